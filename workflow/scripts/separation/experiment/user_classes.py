"""User-defined modules, losses, algorithms and metrics, found in Python files without running them."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment.testers import METRICS_OF, tester_names


@dataclass(frozen=True)
class UserClass:
    """A class, or a function that is a metric, in a file of the user's folder.

    Attributes:
        name: Its name, as experiments write it.
        file: File that defines it.
        keys: DEFAULT_KEYS of a loss, in order; None for all others.
    """

    name: str
    file: Path
    keys: tuple[str, ...] | None

    @property
    def files(self) -> list[Path]:
        """Its file, then the files of the folder that this one imports."""
        return [self.file, *sorted(_with_imports(self.file) - {self.file})]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of its file and of the files of the folder that this one imports, in hex."""
        content = hashlib.sha256()
        for part in sorted(_with_imports(self.file)):
            content.update(part.name.encode() + b"\0" + part.read_bytes() + b"\0")
        return content.hexdigest()


@dataclass(frozen=True)
class Extras:
    """All classes of a folder by name, and its functions with the files that define them; empty if there is none."""

    classes: Mapping[str, UserClass] = field(default_factory=dict)
    functions: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    def used_by(self, config: Mapping[str, Any], *sections: str) -> list[UserClass]:
        """The classes that these sections of a config use, sorted by name."""
        if not self.classes:
            return []
        names = {name for section in sections for name in _CLASS_NAMES[section](config)}
        return [self.classes[name] for name in sorted(names & set(self.classes))]

    def metrics_of(self, testers: Sequence[Any] | Mapping[str, Any]) -> list[UserClass]:
        """The classes and functions that test_config.testers names, sorted by name; built-in testers come first.

        Raises:
            UserError: Two files define such a function.
        """
        found = []
        for name in sorted(set(tester_names(testers)) - set(METRICS_OF)):
            files = self.functions.get(name, ())
            if len(files) + (name in self.classes) > 1:
                other = self.classes[name].file if name in self.classes else files[1]
                raise UserError(f"{name} is also defined in {other}", file=files[0])
            found += [self.classes[name]] if name in self.classes else [UserClass(name, file, None) for file in files]
        return found

    def hashes(self, config: Mapping[str, Any], *sections: str) -> dict[str, str]:
        """Hashes of the code that these sections use, by class; {} for most experiments."""
        return {found.name: found.sha256 for found in self.used_by(config, *sections)}

    def metric_hashes(self, testers: Sequence[Any] | Mapping[str, Any]) -> dict[str, str]:
        """Hashes of the code of the user's own metrics that test_config.testers names; {} for most experiments."""
        return {found.name: found.sha256 for found in self.metrics_of(testers)}


_CLASS_NAMES = {
    "model_config": lambda config: [
        config["model_config"].get("class"),
        *(module.get("class") for module in config["model_config"].get("modules", {}).values()),
    ],
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
    functions: dict[str, list[Path]] = {}
    for file in sorted(Path(folder).glob("*.py")) if folder else []:
        for node in parse_file(file).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                functions.setdefault(node.name, []).append(file)
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            if node.name in classes:
                raise UserError(f"the class {node.name} is also defined in {classes[node.name].file}", file=file)
            classes[node.name] = UserClass(node.name, file, _default_keys(node))
    return Extras(classes, functions)


def parse_file(file: Path) -> ast.Module:
    """The syntax tree of a Python file.

    Raises:
        UserError: It is not valid Python.
    """
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
            paths = (file.parent / f"{name.split('.')[0]}.py" for name in _imported(parse_file(current)))
            waiting += [path for path in paths if path.exists()]
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
