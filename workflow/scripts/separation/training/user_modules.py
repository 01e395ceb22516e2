"""Registration of the user's own classes with nussl, by the names that experiments use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from separation.errors import UserError
from separation.experiment.options import PointOptions
from separation.experiment.user_classes import UserClass, find_extras
from separation.networks.adapter import register_adapter
from separation.nussl_compat import nussl

#: separation algorithms from the user's files
USER_ALGORITHMS: dict[str, type] = {}
#: prefix of the module names of the user's files: extras/queue.py must not shadow, or be shadowed by, Python's queue
_PREFIX = "extras_"
_LOADED: dict[Path, ModuleType] = {}


def load_extras(options: PointOptions) -> None:
    """Imports the files whose classes a point names, and registers these classes.

    Modules are registered by nussl.ml.register_module, losses (modules with DEFAULT_KEYS) by nussl.ml.register_loss,
    algorithms in USER_ALGORITHMS.

    Raises:
        UserError: A file cannot be imported, or its class is none of these.
    """
    sections = ("model_config", "train_config", "algorithm_config")
    register_adapter()
    for user_class in find_extras(options.extras).used_by(options.written, *sections):
        _register(user_class, getattr(load_file(user_class.file), user_class.name))


def _register(user_class: UserClass, found: Any) -> None:
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        (nussl.ml.register_loss if hasattr(found, "DEFAULT_KEYS") else nussl.ml.register_module)(found)
    elif isinstance(found, type) and issubclass(found, nussl.separation.base.SeparationBase):
        USER_ALGORITHMS[user_class.name] = found
    else:
        raise UserError(
            f"expected {user_class.name} to be a torch.nn.Module or one of nussl's SeparationBase, found {found}",
            file=user_class.file,
        )


def load_file(file: Path) -> ModuleType:
    """Imports a file of the user's, once.

    Raises:
        UserError: It cannot be imported.
    """
    file = file.resolve()
    if file not in _LOADED:
        # files of the folder may import one another
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        name = f"{_PREFIX}{file.stem}"
        try:
            by_stem = importlib.util.find_spec(file.stem)
            if by_stem is not None and by_stem.origin == str(file):
                # what another file of the folder imports is this module, not a second one
                module = sys.modules[name] = importlib.import_module(file.stem)
            else:
                # another module has that name, `queue` for one
                specification = importlib.util.spec_from_file_location(name, file)
                module = importlib.util.module_from_spec(specification)
                # pickle and inspect look up the source of its classes here
                sys.modules[name] = module
                specification.loader.exec_module(module)
        except Exception as error:
            raise UserError(f"cannot be imported: {type(error).__name__}: {error}", file=file) from error
        _LOADED[file] = module
    return _LOADED[file]
