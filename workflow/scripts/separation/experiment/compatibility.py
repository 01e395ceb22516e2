"""Checks, before anything runs, that network, losses, algorithm and data fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from separation.errors import UserError, nearest
from separation.experiment.nussl_signatures import (
    ALGORITHMS,
    DATASETS,
    LOSSES,
    MODULES,
    OPTIMIZERS,
    OUTPUT_OF_ALGORITHM,
    SPARSE_OPTIMIZERS,
    arguments_of,
    keys_of_loss,
)
from separation.experiment.schema import format_value
from separation.experiment.tensor_sizes import TensorSizes
from separation.experiment.testers import METRICS_OF, read_testers, tester_names
from separation.experiment.torch_networks import check_network, expanded
from separation.experiment.user_classes import Extras
from separation.experiment.user_metrics import find_user_metrics
from separation.experiment.waveform_losses import WAVEFORM_LOSSES, LossEntry
from separation.files.yaml_reader import KeyPath

Mistake = tuple[KeyPath, str]

NO_EXTRAS = Extras()

_EMBEDDING_LOSSES = {"DeepClusteringLoss", "WhitenedKMeansLoss"}
# keys of a batch that losses read
_TARGETS = ("ideal_binary_mask", "weights", "source_magnitudes", "source_audio", "mix_audio")


def check_config(config: Mapping[str, Any], extras: Extras = NO_EXTRAS) -> Mistake | None:
    """The first mismatch in a config: key path and message; None where everything fits.

    Args:
        config: Complete config of a point.
        extras: User classes that the config may name.
    """
    mistake = check_network(config["model_config"], config["dataset_config"], extras)
    if mistake is not None:
        return mistake
    model = expanded(config["model_config"])
    config = {**config, "model_config": model}
    return (
        _check_folders(config["datasets"])
        or _check_connections(model)
        or _check_arguments(model)
        or TensorSizes(config).check()
        or _check_remix(config["dataset_config"])
        or _check_outputs(config)
        or _check_losses(config, extras)
        or _check_algorithm(config, extras)
        or _check_optimizer(config)
        or check_testers(config, extras)
    )


def check_testers(config: Mapping[str, Any], extras: Extras) -> Mistake | None:
    """The first mistake in test_config.testers: key path and message."""
    testers = config["test_config"]["testers"]
    user_metrics = find_user_metrics(extras, testers)
    try:
        read_testers(testers, config["dataset_config"]["sample_rate"], user_metrics)
    except UserError as mistake:
        unknown = [name for name in tester_names(testers) if name not in METRICS_OF and name not in user_metrics]
        known = [*METRICS_OF, *extras.classes, *extras.functions]
        hint = nearest(unknown[0], known) if unknown else ""
        return tuple(mistake.key.split(".")), mistake.message + hint
    return None


def _check_connections(model: Mapping[str, Any]) -> Mistake | None:
    modules = model["modules"]
    computed: set[str] = {name for name, module in modules.items() if "class" not in module}
    for number, connection in enumerate(model["connections"]):
        name, sources = connection[0], connection[1]
        path = ("model_config", "connections", number)
        if name not in modules:
            return path, f"unknown module '{name}'{nearest(name, modules)}"
        if "class" not in modules[name]:
            return path, f"'{name}' has no class: it is an input and takes no inputs itself"
        for source in sources:
            for used in source.values() if isinstance(source, dict) else [source]:
                if isinstance(used, str) and used.split(":")[0] not in computed and not isinstance(source, dict):
                    if used in modules:
                        return path, f"'{name}' uses '{used}' before it is computed"
                    return path, f"unknown input '{used}'{nearest(used, modules)}"
        computed.add(name)
    return None


def _check_arguments(model: Mapping[str, Any]) -> Mistake | None:
    for name, module in model["modules"].items():
        path: KeyPath = ("model_config", "modules", name)
        kind = module.get("class")
        if kind is None:
            if module.get("args"):
                return (*path, "args"), "an input takes no arguments; give the module a class"
            continue
        known = arguments_of(kind)
        if kind not in MODULES or known is None:
            hint = nearest(kind, MODULES)
            # another spelling is a typo; any other name may be a torch module or the user's own
            if hint and kind.lower() in {other.lower() for other in MODULES}:
                return (*path, "class"), f"unknown class '{kind}'{hint}"
            continue
        for argument in module.get("args", {}):
            if argument not in known:
                hint = nearest(argument, known) or f"; {kind} takes {', '.join(known) or 'none'}"
                return (*path, "args", argument), f"unknown argument{hint}"
    return None


def _check_folders(datasets: Mapping[str, Any]) -> Mistake | None:
    for split, entry in datasets.items():
        if "folder" not in entry:
            continue
        kind, path = entry["class"], ("datasets", split)
        if kind == "OnTheFly":
            return (*path, "class"), (
                "OnTheFly needs a Python function, which a YAML file cannot contain; use dataset_config.remix for new "
                "mixtures in each epoch"
            )
        if kind not in DATASETS:
            hint = nearest(kind, DATASETS) or f"; expected one of {', '.join(DATASETS)}"
            return (*path, "class"), f"unknown class '{kind}'{hint}"
        for argument in entry:
            if argument not in ("folder", "class", *DATASETS[kind]):
                hint = nearest(argument, DATASETS[kind]) or f"; {kind} takes {', '.join(DATASETS[kind])}"
                return (*path, argument), f"unknown argument{hint}"
    return None


def _check_remix(section: Mapping[str, Any]) -> Mistake | None:
    remix = section["remix"]
    if remix is None:
        return None
    if section["cache_kind"] != "audio":
        return (
            "dataset_config",
            "remix",
        ), "expected cache_kind: audio (remixing needs the audio of the sources), found features"
    least, largest = remix["gain"]
    if least > largest:
        return ("dataset_config", "remix", "gain"), f"expected the lower gain first, found [{least}, {largest}]"
    return None


def _check_outputs(config: Mapping[str, Any]) -> Mistake | None:
    model = config["model_config"]
    computed = [connection[0] for connection in model["connections"]]
    inputs = [name for name, module in model["modules"].items() if "class" not in module]
    for number, name in enumerate(model["output"]):
        if name.split(":")[0] not in computed:
            hint = nearest(name, computed) or f"; the connections compute {', '.join(computed)}"
            return ("model_config", "output", number), f"no connection computes '{name}'{hint}"
    keys = config["dataset_config"]["data_keys_for_training"]
    for name in inputs:
        if name not in keys:
            hint = nearest(name, keys) or f"; it contains {', '.join(keys)}"
            return ("model_config", "modules", name), f"this input is not in data_keys_for_training{hint}"
    return None


def _check_losses(config: Mapping[str, Any], extras: Extras) -> Mistake | None:
    user_losses = {name: found.keys for name, found in extras.classes.items() if found.keys}
    losses = {**LOSSES, **dict.fromkeys(WAVEFORM_LOSSES, ()), "MixITLoss": (), **user_losses}
    outputs = config["model_config"]["output"]
    keys = config["dataset_config"]["data_keys_for_training"]
    frequencies = config["dataset_config"]["n_fft"] // 2 + 1
    for number, (name, output, *rest) in enumerate(config["train_config"]["loss_function"]):
        path: KeyPath = ("train_config", "loss_function", number)
        if not isinstance(name, str):
            return path, f"expected the name of a loss, found {format_value(name)}"
        kind = name.split(":")[0]
        if kind not in losses:
            hint = nearest(kind, losses) or f"; expected one of {', '.join(losses)}"
            return path, f"unknown loss '{name}'{hint}"
        arguments = rest[1] if len(rest) > 1 and isinstance(rest[1], dict) else {}
        waveform = None if kind in user_losses else LossEntry.read(kind, arguments)
        if waveform is not None and (mistake := _check_waveform_loss(waveform, path)):
            return mistake
        loss_keys = keys_of_loss(kind, arguments, losses) if waveform is None else waveform.inputs
        wanted = output if isinstance(output, str) else loss_keys[0]
        if wanted not in outputs:
            hint = nearest(wanted, outputs) or f"; its outputs are {', '.join(outputs)}"
            return path, f"the model has no output '{wanted}'{hint}"
        for key in loss_keys[1:]:
            if key not in keys and key in _TARGETS:
                return path, f"{kind} needs '{key}' in dataset_config.data_keys_for_training"
        module = config["model_config"]["modules"].get(wanted, {})
        if module.get("class") == "Embedding" and kind in _EMBEDDING_LOSSES:
            features = module["args"].get("num_features")
            if isinstance(features, int) and features != frequencies:
                features_path = ("model_config", "modules", wanted, "args", "num_features")
                return features_path, f"expected {frequencies} (n_fft // 2 + 1), found {features}"
    return None


def _check_waveform_loss(loss: LossEntry, path: KeyPath) -> Mistake | None:
    known = loss.known_arguments
    if known is None:
        hint = nearest(loss.name, (*WAVEFORM_LOSSES, "SISDRLoss"))
        return path, f"{loss.wrapper} needs a loss on waveforms, found '{loss.name}'" + (
            hint or f"; expected one of {', '.join(WAVEFORM_LOSSES)}, SISDRLoss"
        )
    for argument in loss.arguments:
        if argument not in known:
            hint = nearest(argument, known) or f"; {loss.name} takes {', '.join(known) or 'none'}"
            return path, f"unknown argument '{argument}'{hint}"
    return None


def _check_optimizer(config: Mapping[str, Any]) -> Mistake | None:
    name = config["train_config"]["optimizer"]
    if name.lower() in SPARSE_OPTIMIZERS:
        return ("train_config", "optimizer"), f"'{name}' needs sparse gradients, but networks here have dense ones"
    if name.lower() in OPTIMIZERS:
        return None
    hint = nearest(name.lower(), OPTIMIZERS) or f"; expected one of {', '.join(OPTIMIZERS)}"
    return ("train_config", "optimizer"), f"torch.optim has no '{name}'{hint}"


def _check_algorithm(config: Mapping[str, Any], extras: Extras) -> Mistake | None:
    section = config["algorithm_config"]
    kind = section["class"]
    if kind in extras.classes:
        return None
    if kind not in ALGORITHMS:
        hint = nearest(kind, ALGORITHMS) or f"; expected one of {', '.join(ALGORITHMS)}"
        return ("algorithm_config", "class"), f"unknown algorithm '{kind}'{hint}"
    for argument in section["args"]:
        if argument not in ALGORITHMS[kind]:
            hint = nearest(argument, ALGORITHMS[kind])
            return ("algorithm_config", "args", argument), f"{kind} has no such argument{hint}"
    needed = OUTPUT_OF_ALGORITHM[kind]
    outputs = config["model_config"]["output"]
    if needed not in outputs:
        found = ", ".join(outputs)
        return ("algorithm_config", "class"), f"{kind} needs a model with the output '{needed}', found {found}"
    if kind == "DeepClustering" and "num_sources" not in section["args"]:
        return ("algorithm_config", "args"), "missing argument 'num_sources'"
    return None


def check_data(config: Mapping[str, Any], split: str, recipe: Mapping[str, Any]) -> Mistake | None:
    """The first mismatch of dataset_config with the recipe of a split: key path and message."""
    section = config["dataset_config"]
    name = config["datasets"][split].get("dataset")
    if recipe["sample_rate"] != section["sample_rate"]:
        return ("dataset_config", "sample_rate"), (
            f"expected {recipe['sample_rate']} (sample_rate of dataset {name}), found {section['sample_rate']}"
        )
    if recipe.get("num_channels", 1) != section["num_channels"]:
        return ("dataset_config", "num_channels"), (
            f"expected {recipe.get('num_channels', 1)} (num_channels of dataset {name}), "
            f"found {section['num_channels']}"
        )
    labels = recipe["mixture_parameters"][config["datasets"][split].get("split", split)].get("labels")
    if not labels:
        return None
    named_labels: list[tuple[KeyPath, str]] = []
    for key in ("group_sources", "ignore_sources", "source_labels"):
        for number, member in enumerate(section[key]):
            if isinstance(member, list):
                named_labels += [(("dataset_config", key, number, inner), label) for inner, label in enumerate(member)]
            else:
                named_labels.append((("dataset_config", key, number), member))
    names = section["group_names"] or []
    for path, label in named_labels:
        if label not in labels and not (path[1] == "source_labels" and (label in names or "+" in label)):
            hint = nearest(label, labels) or f"; it has {', '.join(labels)}"
            return path, f"the dataset {name} has no source '{label}'{hint}"
    return None
