"""Networks that are any torch module: what an experiment says of them, found without importing torch or their package.

`model_config: {class: demucs.htdemucs.HTDemucs, args: {...}}` stands for a SeparationModel of nussl with one module,
separation.networks.adapter.TorchNetwork, which builds the class and brings its input and output into the workflow's
order. So training, checkpoints and evaluation treat it like any other network.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.errors import UserError, nearest
from separation.experiment.user_classes import Extras
from separation.files.yaml_reader import KeyPath

#: networks of this project by name
BUILT_IN = {
    "ConvTasNet": "separation.networks.conv_tasnet.ConvTasNet",
    "OpenUnmix": "separation.networks.open_unmix.OpenUnmix",
    "SepFormer": "separation.networks.sepformer.SepFormer",
    "TFGridNet": "separation.networks.tf_gridnet.TFGridNet",
}
#: class of a model_config that describes its modules itself
NUSSL_MODEL = "SeparationModel"
#: order of the axes that the workflow has: batch, channels, samples, sources
INPUT_AXES, OUTPUT_AXES = "b c t", "b s c t"
#: keys of model_config that describe a torch module
KEYS = ("args", "axes", "select")
#: packages with networks that `envs/extra.sh networks` installs
PACKAGES = ("asteroid", "bs_roformer", "demucs", "pymss_core")
_ADAPTER = "TorchNetwork"


def is_torch_network(model_config: Mapping[str, Any]) -> bool:
    """Whether a model_config names a torch module, not a SeparationModel."""
    return model_config.get("class", NUSSL_MODEL) != NUSSL_MODEL


def expanded(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """A model_config as nussl's SeparationModel, where it names a torch module; else as it is, without KEYS."""
    if not is_torch_network(model_config):
        return {key: value for key, value in model_config.items() if key not in KEYS}
    network = BUILT_IN.get(model_config["class"], model_config["class"])
    arguments = {"network": network, "args": dict(model_config.get("args") or {})}
    arguments["axes"] = {"input": INPUT_AXES, "output": OUTPUT_AXES} | dict(model_config.get("axes") or {})
    arguments["select"] = list(model_config.get("select") or [])
    return {
        "class": NUSSL_MODEL,
        "name": model_config.get("name", NUSSL_MODEL),
        "modules": {"mix_audio": {}, "audio": {"class": _ADAPTER, "args": arguments}},
        "connections": [["audio", ["mix_audio"]]],
        "output": ["audio"],
    }


def package_version(model_config: Mapping[str, Any]) -> dict[str, str]:
    """The version of the package that a network comes from, by its name; {} for nussl, built-in and user's networks."""
    name = model_config.get("class", NUSSL_MODEL)
    if "." not in name or name in BUILT_IN:
        return {}
    package = name.split(".")[0]
    version = _version(package)
    return {package: version} if version else {}


@functools.cache
def _version(package: str) -> str | None:
    """The version of the distribution that a package belongs to; None for a module that none owns."""
    distribution = importlib.metadata.packages_distributions().get(package, [package])[0]
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_network(
    model_config: Mapping[str, Any], dataset_config: Mapping[str, Any], extras: Extras
) -> tuple[KeyPath, str] | None:
    """The first mistake in a model_config: key path and message; None where it fits.

    Reads the code of the class without running it.
    """
    if not is_torch_network(model_config):
        for key in KEYS:
            if model_config.get(key):
                return ("model_config", key), f"a SeparationModel takes no {key}; its modules do"
        for key in ("modules", "connections", "output"):
            if key not in model_config:
                return ("model_config",), f"missing key '{key}' (needed by class SeparationModel)"
        return None
    for key in ("modules", "connections", "output"):
        if key in model_config:
            return ("model_config", key), f"only a SeparationModel has {key}, and class is {model_config['class']}"
    expected = {"mix_audio", "source_audio"}
    keys = dataset_config["data_keys_for_training"]
    if not expected <= set(keys):
        found = ", ".join(keys)
        path = ("dataset_config", "data_keys_for_training")
        return path, f"expected [mix_audio, source_audio], which a network on waveforms needs, found [{found}]"
    return (
        _check_axes(model_config, dataset_config["num_channels"])
        or _check_class(model_config["class"], extras)
        or _check_arguments(model_config["class"], model_config.get("args") or {}, extras)
    )


def _check_axes(model_config: Mapping[str, Any], num_channels: int) -> tuple[KeyPath, str] | None:
    axes = {"input": INPUT_AXES, "output": OUTPUT_AXES} | dict(model_config.get("axes") or {})
    for name, known in (("input", "bct"), ("output", "bsct")):
        letters = axes[name].split()
        path = ("model_config", "axes", name)
        wrong = [letter for letter in letters if letter not in known or len(letter) != 1]
        if wrong or len(set(letters)) != len(letters) or not {"b", "t"} <= set(letters):
            left_out = "c may be left out for mono" + (", s for one source" if name == "output" else "")
            return path, f"expected the axes {' '.join(known)} in any order ({left_out}), found '{axes[name]}'"
        if "c" not in letters and num_channels != 1:
            return path, f"expected an axis c for {num_channels} channels (dataset_config.num_channels), found none"
    return None


def _check_class(name: str, extras: Extras) -> tuple[KeyPath, str] | None:
    path = ("model_config", "class")
    if name in extras.classes or name in BUILT_IN:
        return None
    if "." not in name:
        known = (NUSSL_MODEL, *BUILT_IN, *extras.classes)
        hint = nearest(name, known) or f"; expected {', '.join(BUILT_IN)}, a class of extras or an import path"
        return path, f"unknown network '{name}'{hint}"
    module, _, kind = name.rpartition(".")
    package = module.split(".")[0]
    try:
        file = _file_of(module)
    except UserError as mistake:
        return path, mistake.message
    if file is None:
        return path, f"package {package} has no module {module}"
    names = _names(file)
    if names is not None and kind not in names:
        classes = [each for each in names if each[:1].isupper()]
        return path, f"{module} has no class '{kind}'{nearest(kind, classes) or '; it has ' + ', '.join(classes)}"
    return None


def _file_of(module: str) -> Path | None:
    """The file of a module, found without importing any package; None where there is none.

    Raises:
        UserError: The package is not installed, or is no Python code.
    """
    package, *inner = module.split(".")
    specification = importlib.util.find_spec(package)
    if specification is None:
        command = (
            "envs/extra.sh networks" if package in PACKAGES else f".venv/bin/python -m pip install --no-deps {package}"
        )
        raise UserError(f"package {package} is not installed; install it with: {command}")
    if not inner:
        return Path(specification.origin) if specification.origin else None
    for folder in specification.submodule_search_locations or []:
        for candidate in (Path(folder, *inner).with_suffix(".py"), Path(folder, *inner, "__init__.py")):
            if candidate.is_file():
                return candidate
    return None


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _names(file: Path) -> list[str] | None:
    """Names that a file defines or imports at its top level; None where only running it tells."""
    names: list[str] = []
    for node in ast.walk(_tree(file)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            if node.name == "__getattr__":
                return None
            names.append(node.name)
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            for alias in node.names:
                if alias.name == "*":
                    return None
                names.append(alias.asname or alias.name.split(".")[0])
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names


def _check_arguments(name: str, arguments: Mapping[str, Any], extras: Extras) -> tuple[KeyPath, str] | None:
    """The first unknown or missing argument, where the class itself says what it takes."""
    if name in extras.classes:
        file, kind = extras.classes[name].file, name
    else:
        module, _, kind = BUILT_IN.get(name, name).rpartition(".")
        file = _file_of(module)
    found = file and _signature(file, kind)
    if not found:
        return None
    required, known = found
    for argument in arguments:
        if argument not in known:
            hint = nearest(argument, known) or f"; {kind} takes {', '.join(known) or 'none'}"
            return ("model_config", "args", argument), f"unknown argument{hint}"
    for argument in required:
        if argument not in arguments:
            return ("model_config", "args"), f"missing argument '{argument}' of {kind}"
    return None


def _signature(file: Path, kind: str) -> tuple[list[str], list[str]] | None:
    """Required and all arguments of a class; None where it takes any or inherits them."""
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == kind:
            for statement in node.body:
                if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                    return _arguments(statement.args)
    return None


def _arguments(arguments: ast.arguments) -> tuple[list[str], list[str]] | None:
    if arguments.kwarg is not None or arguments.vararg is not None:
        return None
    positional = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)][1:]
    keywords = [argument.arg for argument in arguments.kwonlyargs]
    required = positional[: len(positional) - len(arguments.defaults)]
    required += [name for name, default in zip(keywords, arguments.kw_defaults, strict=True) if default is None]
    return required, positional + keywords
