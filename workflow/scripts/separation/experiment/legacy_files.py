"""Migration of experiment files written for cookiecutter-nussl and for older versions of nussl.

Renamed keys and values are replaced, keys without a meaning are ignored with a notice, and features that no longer
exist are an error that names the replacement. docs/migration.md has the table.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from separation.experiment.nussl_signatures import DATASETS
from separation.experiment.waveform_losses import WAVEFORM_LOSSES
from separation.files.layout import DIRECTORY_VARIABLES
from separation.files.yaml_reader import Document, KeyPath

LOSS_NAMES = {
    "dpcl": "DeepClusteringLoss",
    "whitened_kmeans": "WhitenedKMeansLoss",
    "dpcl:whitened": "WhitenedKMeansLoss",
    "l1": "L1Loss",
    "mse": "MSELoss",
    "kl": "KLDivLoss",
    "sisdr": "SISDRLoss",
    "PITLoss": "PermutationInvariantLoss",
}
_LOSS_WRAPPERS = {"pit": "PermutationInvariantLoss", "cit": "CombinationInvariantLoss", "mixit": "MixITLoss"}
_DATA_KEYS = {
    "log_spectrogram": "mix_magnitude",
    "magnitude_spectrogram": "mix_magnitude",
    "assignments": "ideal_binary_mask",
    "source_spectrograms": "source_magnitudes",
}
# keys that have no effect any more, by section, and why
_IGNORED = {
    "info": {
        "blocking": "Snakemake orders jobs by their inputs and outputs",
        "num_gpus": "profiles assign GPUs to jobs",
        "num_jobs": "profiles set the number of parallel jobs",
        "run_in": "`--sdm apptainer` runs jobs in the container",
    },
    "dataset_config": {
        "use_librosa_stft": "there is only one STFT implementation",
        "overwrite_cache": "the id of a cache depends on its contents, so it never goes stale",
    },
    "train_config": {"use_tensorboard": "TensorBoard events are always written"},
    "test_config": {"use_blocking_executor": "items are separated in batches"},
}
_REMOVED_WEIGHT_TYPES = {
    "threshold": "dataset_config.weight_threshold, which is always applied",
    "class": "weight_type: [magnitude]",
    "equal": "weight_type: [] with weight_threshold: null",
}
_REMOVED_MODULES = {
    "GaussianMixture": "GaussianMixtureTorch",
    "ConvolutionalStack": "ConvolutionalStack2D",
    "SkipConnection": "DualPath with skip_connection",
    "Concatenation": "Concatenate",
}
_TESTERS = {"ScaleInvariantSDR": "BSSEvalScale", "BSSEval": "BSSEvalV4", "BSSEvalSources": "BSSEvalV4"}
_TESTER_ARGUMENTS = ("compute_permutation", "best_permutation_key")
_BARE_VARIABLE = re.compile(rf"^({'|'.join(DIRECTORY_VARIABLES.values())})(?=/|$)")


def translate(document: Document, variables: Mapping[str, str]) -> tuple[Document, list[str]]:
    """An experiment file with current names, and notices of ignored keys.

    Args:
        document: File as written.
        variables: Directories that cookiecutter-nussl allowed without `${}`.

    Raises:
        UserError: The file uses something that no longer exists; the message names the replacement.
    """
    if not isinstance(document.value, dict):
        return document, []
    work = _Translation(document, variables)
    return Document(document.file, work.value, document.lines), work.notices


class _Translation:
    def __init__(self, document: Document, variables: Mapping[str, str]):
        self.document, self.notices = document, []
        self.value = _with_directories(copy.deepcopy(document.value), variables)
        self._remove_ignored()
        section = self._section
        if section("dataset_config"):
            self._dataset_config(section("dataset_config"))
        if section("train_config"):
            self._train_config(section("train_config"), ("train_config",))
        if section("model_config"):
            self._model_config(section("model_config"))
        if section("algorithm_config"):
            self._algorithm_config(section("algorithm_config"))
        if section("test_config"):
            self._test_config(section("test_config"))
        self._sweep()

    def _section(self, name: str) -> dict[str, Any]:
        section = self.value.get(name)
        return section if isinstance(section, dict) else {}

    def _notice(self, path: KeyPath, key: str, message: str) -> None:
        self.notices.append(f"{self.document.file}:{self.document.line((*path, key))}: {key}: {message}")

    def _remove_ignored(self) -> None:
        for name, ignored in _IGNORED.items():
            section = self._section(name)
            for key in [key for key in section if key in ignored]:
                del section[key]
                self._notice((name,), key, f"has no effect; {ignored[key]}")

    def _dataset_config(self, section: dict[str, Any]) -> None:
        if isinstance(section.get("data_keys_for_training"), list):
            section["data_keys_for_training"] = _data_keys(section["data_keys_for_training"])
        for name in section.get("weight_type") or []:
            if name in _REMOVED_WEIGHT_TYPES:
                raise self.document.error(
                    f"'{name}' is no longer supported; use {_REMOVED_WEIGHT_TYPES[name]}",
                    ("dataset_config", "weight_type"),
                )
        if section.get("excerpt_selection_strategy") == "balanced":
            raise self.document.error(
                "'balanced' is no longer supported; use random", ("dataset_config", "excerpt_selection_strategy")
            )
        # these are arguments of the dataset class
        for key in ("mix_folder", "source_folders"):
            if key in section:
                value = section.pop(key)
                for split in self._section("datasets").values():
                    if isinstance(split, dict) and key in DATASETS.get(split.get("class"), ()):
                        split.setdefault(key, value)

    def _train_config(self, section: dict[str, Any], path: KeyPath) -> None:
        if isinstance(section.get("loss_function"), list):
            section["loss_function"] = [_loss(loss) for loss in section["loss_function"]]

    def _model_config(self, section: dict[str, Any]) -> None:
        modules, connections, output = section.get("modules"), section.get("connections"), section.get("output")
        if not (isinstance(modules, dict) and isinstance(connections, list) and isinstance(output, list)):
            return
        for name, module in modules.items():
            if isinstance(module, dict):
                self._module(name, module)
        first: list[list[Any]] = []
        if "log_spectrogram" in modules and "class" not in (modules["log_spectrogram"] or {}):
            modules["log_spectrogram"] = {"class": "AmplitudeToDB"}
            first.append(["log_spectrogram", ["mix_magnitude"]])
        for name in ("magnitude_spectrogram",):
            used = any(name in _inputs(connection) for connection in connections)
            if used and "class" not in (modules.get(name) or {}):
                modules[name] = {"class": "Alias"}
                first.append([name, ["mix_magnitude"]])
        if first and "mix_magnitude" not in modules:
            section["modules"] = modules = {"mix_magnitude": {}, **modules}
        self._name_mask(modules, connections, output)
        section["connections"] = first + connections

    def _module(self, name: str, module: dict[str, Any]) -> None:
        path: KeyPath = ("model_config", "modules", name)
        # nussl 1.1.9 needs no shapes, and legacy files often have those of another n_fft
        module.pop("input_shape", None)
        kind, arguments = module.get("class"), module.get("args")
        if kind in _REMOVED_MODULES:
            raise self.document.error(
                f"'{kind}' is no longer supported; use {_REMOVED_MODULES[kind]}", (*path, "class")
            )
        if not isinstance(arguments, dict):
            return
        for flag in ("use_batch_norm", "use_instance_norm"):
            if flag in arguments and not arguments.pop(flag):
                module["class"], module["args"] = "Alias", {}
        if kind == "Embedding" and "num_channels" in arguments:
            arguments["num_audio_channels"] = arguments.pop("num_channels")

    def _name_mask(self, modules: dict[str, Any], connections: list[Any], output: list[Any]) -> None:
        """Adds the output `mask`, which nussl's DeepMaskEstimation needs, under any name in the file."""
        if (self._section("algorithm_config").get("class")) != "DeepMaskEstimation" or "mask" in output:
            return
        if "mask" in modules:
            output.append("mask")
            return
        for connection in connections:
            module = modules.get(connection[0]) if connection else None
            if isinstance(module, dict) and module.get("class") == "Mask" and _inputs(connection):
                modules["mask"] = {"class": "Alias"}
                connections.append(["mask", [_inputs(connection)[0]]])
                output.append("mask")
                return

    def _algorithm_config(self, section: dict[str, Any]) -> None:
        arguments = section.get("args")
        if not isinstance(arguments, dict):
            return
        options = arguments.pop("clustering_options", None)
        if isinstance(options, dict):
            for key, value in options.items():
                arguments.setdefault("beta" if key in ("posterior_alpha", "alpha") else key, value)
        if "enhancement_amount" in arguments:
            amount = arguments.pop("enhancement_amount")
            if amount:
                raise self.document.error(
                    "enhancement is no longer supported; remove this key",
                    ("algorithm_config", "args", "enhancement_amount"),
                )
        for key in ("model_path", "use_cuda"):
            arguments.pop(key, None)
        if section.get("class") == "DeepMaskEstimation":
            arguments.pop("num_sources", None)

    def _test_config(self, section: dict[str, Any]) -> None:
        testers = section.get("testers")
        if isinstance(testers, dict):
            testers = [{name: arguments} for name, arguments in testers.items()]
        if not isinstance(testers, list):
            return
        section["testers"] = [self._tester(tester) for tester in testers]

    def _tester(self, tester: Any) -> Any:
        if isinstance(tester, list) and len(tester) == 2 and isinstance(tester[0], str):
            tester = {tester[0]: tester[1]}
        if not isinstance(tester, dict) or len(tester) != 1:
            return tester
        ((name, arguments),) = tester.items()
        if name not in _TESTERS:
            return {name: arguments or {}}
        kept = {key: value for key, value in (arguments or {}).items() if key in _TESTER_ARGUMENTS}
        if set(arguments or {}) - set(kept):
            self._notice(
                ("test_config",),
                "testers",
                f"{name} is now {_TESTERS[name]}, without {', '.join(sorted(set(arguments) - set(kept)))}",
            )
        return {_TESTERS[name]: kept}

    def _sweep(self) -> None:
        blocks = self.value.get("sweep")
        if not isinstance(blocks, list):
            return
        for number, block in enumerate(blocks):
            if isinstance(block, dict):
                self._block(block, ("sweep", number))

    def _block(self, block: dict[str, Any], path: KeyPath) -> None:
        for key in list(block):
            last = key.rsplit(".", 1)[-1]
            reason = next((names[last] for names in _IGNORED.values() if last in names), None)
            if reason is not None or last == "input_shape":
                del block[key]
                self._notice(path, key, f"has no effect; {reason or 'nussl 1.1.9 needs no shapes'}")
            elif last == "loss_function" and isinstance(block[key], list):
                block[key] = [[_loss(loss) for loss in losses] for losses in block[key]]
            elif last == "data_keys_for_training" and isinstance(block[key], list):
                block[key] = [_data_keys(keys) if isinstance(keys, list) else keys for keys in block[key]]
            elif key.startswith("multiple_parameters"):
                groups = block[key] if isinstance(block[key], list) else [block[key]]
                for group in groups:
                    if isinstance(group, dict):
                        self._block(group, (*path, key))


def _inputs(connection: Any) -> list[Any]:
    return connection[1] if isinstance(connection, list) and len(connection) > 1 else []


def _data_keys(keys: list[Any]) -> list[Any]:
    return list(dict.fromkeys(_DATA_KEYS.get(key, key) if isinstance(key, str) else key for key in keys))


def _loss(loss: Any) -> Any:
    """[name, output, weight] with the class of the loss as name, and the loss inside a wrapper as its argument."""
    if not isinstance(loss, list) or not loss or not isinstance(loss[0], str):
        return loss
    name, *rest = loss
    wrapper, _, inner = name.rpartition(":")
    if wrapper in _LOSS_WRAPPERS:
        padded = rest + [1.0] * (2 - len(rest))
        arguments = {"loss_function": LOSS_NAMES.get(inner, inner)}
        if inner in WAVEFORM_LOSSES and len(rest) > 2 and isinstance(rest[2], dict):
            arguments |= rest[2]
        return [_LOSS_WRAPPERS[wrapper], *padded[:2], arguments]
    return [LOSS_NAMES.get(name, name), *rest]


def _with_directories(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_directories(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_directories(inner, variables) for inner in value]
    if isinstance(value, str):
        return _BARE_VARIABLE.sub(lambda match: variables.get(match.group(1), match.group(0)), value)
    return value
