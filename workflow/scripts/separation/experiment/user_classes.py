"""User-defined modules, losses and algorithms, found in Python files without running them."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.errors import UserError


@dataclass(frozen=True)
class UserClass:
    """A class in a file of the user's folder.

    Attributes:
        name: Class name, as experiments write it.
        file: File that defines it.
        keys: DEFAULT_KEYS of a loss, in order; None for modules and algorithms.
    """

    name: str
    file: Path
    keys: tuple[str, ...] | None

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of its file and of the files of the folder that this one imports, in hex."""
        content = hashlib.sha256()
        for part in sorted(_with_imports(self.file)):
            content.update(part.name.encode() + b"\0" + part.read_bytes() + b"\0")
        return content.hexdigest()


@dataclass(frozen=True)
class Extras:
    """All classes of a folder by name; empty if the folder does not exist."""

    classes: Mapping[str, UserClass] = field(default_factory=dict)

    def used_by(self, config: Mapping[str, Any], *sections: str) -> list[UserClass]:
        """The classes that these sections of a config use, sorted by name."""
        if not self.classes:
            return []
        names = {name for section in sections for name in _CLASS_NAMES[section](config)}
        return [self.classes[name] for name in sorted(names & set(self.classes))]

    def hashes(self, config: Mapping[str, Any], *sections: str) -> dict[str, str]:
        """Hashes of the code that these sections use, by class; {} for most experiments."""
        return {found.name: found.sha256 for found in self.used_by(config, *sections)}


_CLASS_NAMES = {
    "model_config": lambda config: [module.get("class") for module in config["model_config"]["modules"].values()],
    "train_config": lambda config: [
        str(loss[0]).rpartition(":")[2] for loss in config["train_config"]["loss_function"]
    ],
    "algorithm_config": lambda config: [config["algorithm_config"]["class"]],
}


#: default of info.extras; the folder need not exist
DEFAULT_FOLDER = "extras"


def find_extras(folder: str | Path | None) -> Extras:
    """Finds the classes in the Python files of a folder; classes whose names begin with _ are ignored.

    Raises:
        UserError: A file is not valid Python, two files define a class of the same name, or the folder is missing and
            is not the default one.
    """
    if folder is not None and str(folder) != DEFAULT_FOLDER and not Path(folder).is_dir():
        raise UserError(f"no such folder: {folder} (relative paths start at the repository root)", key="info.extras")
    classes: dict[str, UserClass] = {}
    for file in sorted(Path(folder).glob("*.py")) if folder else []:
        for node in _parsed(file).body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            if node.name in classes:
                raise UserError(f"the class {node.name} is also defined in {classes[node.name].file}", file=file)
            classes[node.name] = UserClass(node.name, file, _default_keys(node))
    return Extras(classes)


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"invalid Python: {error.msg}", file=file, line=error.lineno) from error


def _default_keys(node: ast.ClassDef) -> tuple[str, ...] | None:
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "DEFAULT_KEYS" for target in targets):
            try:
                return tuple(ast.literal_eval(statement.value))
            except ValueError:
                return None
    return None


def _with_imports(file: Path) -> set[Path]:
    """A file and the files of its folder that it imports, directly or indirectly."""
    found, waiting = set(), [file]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            paths = (file.parent / f"{name.split('.')[0]}.py" for name in _imported(_parsed(current)))
            waiting += [path for path in paths if path.exists()]
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
