"""Makes the user's own classes known to nussl, by the names under which experiments call them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from separation.errors import UserError
from separation.experiment.user_classes import UserClass, find_extras
from separation.nussl_compat import nussl

#: separation algorithms that were found in the user's files
OWN_ALGORITHMS: dict[str, type] = {}
_LOADED: dict[Path, ModuleType] = {}


def load_extras(config: Mapping[str, Any]) -> None:
    """Runs the files whose classes a config names, and registers these: modules by nussl.ml.register_module, losses
    (modules with DEFAULT_KEYS) by nussl.ml.register_loss, algorithms in OWN_ALGORITHMS.

    Raises:
        UserError: a file fails, or its class is none of these.
    """
    sections = [name for name in ("model_config", "train_config", "algorithm_config") if name in config]
    for own in find_extras(config["info"].get("extras")).used_by(config, *sections):
        _register(own, getattr(_load(own.file), own.name))


def _register(own: UserClass, found: Any) -> None:
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        (nussl.ml.register_loss if hasattr(found, "DEFAULT_KEYS") else nussl.ml.register_module)(found)
    elif isinstance(found, type) and issubclass(found, nussl.separation.base.SeparationBase):
        OWN_ALGORITHMS[own.name] = found
    else:
        raise UserError(
            f"expected {own.name} to be a torch.nn.Module or one of nussl's SeparationBase, found {found}",
            file=own.file,
        )


def _load(file: Path) -> ModuleType:
    file = file.resolve()
    if file not in _LOADED:
        # files of the folder may import each other
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        specification = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(specification)
        # where pickle and inspect look for the source of its classes
        sys.modules.setdefault(file.stem, module)
        try:
            specification.loader.exec_module(module)
        except Exception as error:
            raise UserError(f"cannot be imported: {type(error).__name__}: {error}", file=file) from error
        _LOADED[file] = module
    return _LOADED[file]
