"""Key paths of sweep keys: a dotted key is an exact path, a plain key is every match."""

from __future__ import annotations

from typing import Any

from separation.errors import UserError, nearest
from separation.experiment import schema
from separation.experiment.key_paths import CACHE_PATH, all_keys, paths_of
from separation.experiment.nussl_signatures import ARGUMENT_NAMES, arguments_of
from separation.experiment.torch_networks import is_torch_network
from separation.files.yaml_reader import Document, KeyPath

SCHEMA = "experiment"
# sections in which a plain key is searched
_SECTIONS = (
    "info",
    "dataset_config",
    "datasets",
    "train_config",
    "model_config",
    "algorithm_config",
    "test_config",
)


class SweepKeys:
    """Finds the paths in an experiment that the keys of its sweep set.

    Args:
        document: Experiment file, for the lines of mistakes.
        base: Its content with all defaults and without `sweep`.
    """

    def __init__(self, document: Document, base: dict[str, Any]):
        self.document, self.base = document, base
        #: keys without effect, one line each
        self.notices: list[str] = []
        self._paths: dict[str, list[KeyPath]] = {}

    def paths(self, key: str, origin: KeyPath, *, required: bool = False) -> list[KeyPath]:
        """The paths that a sweep key sets: one for a dotted key, every match for a plain key."""
        if key not in self._paths:
            self._paths[key] = self._exact(key, origin) if "." in key else self._matches(key, origin)
        if required and not self._paths[key]:
            raise self._unknown(key, origin)
        return self._paths[key]

    def _exact(self, key: str, origin: KeyPath) -> list[KeyPath]:
        parts = key.split(".")
        path: list[str | int] = []
        value: Any = self.base
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if isinstance(value, dict):
                if part in value:
                    path.append(part)
                    value = value[part]
                    continue
                if last and self._may_be_added(tuple(path), part):
                    return [(*path, part)]
                raise self._unknown(key, origin, part, self._addable(tuple(path)) + list(value))
            if isinstance(value, list) and part.lstrip("-").isdigit() and 0 <= int(part) < len(value):
                path.append(int(part))
                value = value[int(part)]
                continue
            raise self._unknown(key, origin)
        return [tuple(path)]

    def _matches(self, key: str, origin: KeyPath) -> list[KeyPath]:
        if key == "cache":
            return [CACHE_PATH]
        found = [path for section in _SECTIONS for path in paths_of(self.base.get(section), key, (section,))]
        if not found:
            # an argument of a module or algorithm that the file leaves at its default
            found = [path for path in self._argument_paths() if key in arguments_of(self._class_at(path))]
            found = [(*path, key) for path in found]
        if not found and key in ARGUMENT_NAMES:
            self.notices.append(
                f"{self._location(origin)}{key} has no effect: no module or algorithm in this file takes it"
            )
        elif not found:
            raise self._unknown(key, origin)
        return found

    def _argument_paths(self) -> list[KeyPath]:
        modules = self.base["model_config"].get("modules", {})
        paths: list[KeyPath] = [
            ("model_config", "modules", name, "args") for name, module in modules.items() if "class" in module
        ]
        if is_torch_network(self.base["model_config"]):
            paths.append(("model_config", "args"))
        return [*paths, ("algorithm_config", "args")]

    def _class_at(self, path: KeyPath) -> str:
        value: Any = self.base
        for part in path[:-1]:
            value = value[part]
        return value["class"]

    def _may_be_added(self, parent: KeyPath, key: str) -> bool:
        """Whether `key` may be set under `parent` although neither the file nor the defaults contain it."""
        part, rest = schema.subschema(SCHEMA, parent)
        if not rest and part is not None and key in part.get("properties", {}):
            return True
        if parent == ("model_config", "args"):
            # checked with the class of each point
            return True
        if parent and parent[-1] == "args":
            known = arguments_of(self._class_at(parent))
            return known is None or key in known
        # a dataset class of nussl takes its own arguments
        return parent[:1] == ("datasets",) and len(parent) == 2 and "class" in self.base["datasets"][parent[1]]

    def _addable(self, parent: KeyPath) -> list[str]:
        part, rest = schema.subschema(SCHEMA, parent)
        names = [] if rest or part is None else list(part.get("properties", {}))
        if parent and parent[-1] == "args":
            names += list(arguments_of(self._class_at(parent)) or ())
        return names

    def _unknown(self, key: str, origin: KeyPath, part: str | None = None, candidates: list[str] | None = None):
        if part is None:
            candidates = [*all_keys(self.base), *ARGUMENT_NAMES]
        hint = nearest(part or key, set(candidates or ()))
        while origin and isinstance(origin[-1], int):
            origin = origin[:-1]
        message = f"matches nothing in this experiment{hint}"
        if origin:
            return self.document.error(message, origin)
        return UserError(message, file="command line", key=f"set={key}")

    def _location(self, origin: KeyPath) -> str:
        line = self.document.line(origin) if origin else None
        return f"{self.document.file}:{line}: " if line else "command line: "
