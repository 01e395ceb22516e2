"""Safe reader for YAML files, with YAML 1.2 numbers and the line of every key.

PyYAML implements YAML 1.1, where `1e-3` is a string, `1:30` is 90 and `no` is false. Here, scalars are resolved by the
core schema of YAML 1.2.2 (section 10.3.2). `!!python/tuple` is read as a list; any other tag that would build Python
objects is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from separation.errors import UserError

KeyPath = tuple[str | int, ...]

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_TRUE = re.compile(r"^(?:true|True|TRUE)$")
_FALSE = re.compile(r"^(?:false|False|FALSE)$")
_INTEGER = re.compile(r"^[-+]?[0-9]+$")
_OCTAL = re.compile(r"^0o[0-7]+$")
_HEXADECIMAL = re.compile(r"^0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_INFINITE = re.compile(r"^[-+]?\.(?:inf|Inf|INF)$")
_NAN = re.compile(r"^\.(?:nan|NaN|NAN)$")

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
# filled in after hashing, so the reader leaves it unchanged
_LATE_VARIABLES = {"EXPERIMENT_KEY"}

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "timestamp", "value", "merge")}
_CONTAINER_TAGS = {f"{_TAG}{name}" for name in ("map", "seq", "python/tuple")}


@dataclass(frozen=True)
class Document:
    """Contents of a YAML file, and the line (from 1) of every key and list item by key path."""

    file: str
    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """The line of `path`, or of its nearest ancestor in the file."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return self.lines.get((), None)

    def error(self, message: str, path: KeyPath = ()) -> UserError:
        """A UserError that points at `path` in this file."""
        return UserError(message, file=self.file, line=self.line(path), key=dotted(path))


def dotted(path: KeyPath) -> str:
    """`('a', 'b', 0)` as `a.b[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def resolve_scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar by the core schema of YAML 1.2."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text):
        return True
    if _FALSE.match(text):
        return False
    if _INTEGER.match(text):
        return int(text)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.match(text):
        return int(text[2:], 16)
    if _FLOAT.match(text):
        return float(text)
    if _INFINITE.match(text):
        return float("-inf") if text.startswith("-") else float("inf")
    if _NAN.match(text):
        return float("nan")
    return text


def display_path(path: str | os.PathLike) -> str:
    """`path` as a user would type it: relative to the working directory if it is below it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)


def read_yaml(path: str | os.PathLike, variables: Mapping[str, str] | None = None) -> Document:
    """Reads one YAML file.

    Args:
        path: File to read.
        variables: Values of `${VAR}` and `${VAR:-default}`; None leaves these unchanged.

    Raises:
        UserError: The file is missing, is not UTF-8 or does not parse; a key is duplicated; a tag would build a Python
            object; a variable is unset and has no default.
    """
    shown = display_path(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such file", file=shown) from None
    except IsADirectoryError:
        raise UserError("expected a YAML file, found a folder", file=shown) from None
    except OSError as problem:
        raise UserError(f"cannot be read: {problem.strerror}", file=shown) from None
    except UnicodeDecodeError as problem:
        line = Path(path).read_bytes()[: problem.start].count(b"\n") + 1
        raise UserError("expected UTF-8 text, found an invalid byte", file=shown, line=line) from None
    return parse_yaml(text, file=shown, variables=variables)


def parse_yaml(text: str, *, file: str, variables: Mapping[str, str] | None = None) -> Document:
    """Parses YAML text; see `read_yaml`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = None if mark is None else mark.line + 1
        detail = " ".join(part for part in (problem.context, problem.problem) if part)
        raise UserError(f"invalid YAML: {detail}", file=file, line=line) from None
    except yaml.YAMLError as problem:
        raise UserError(f"invalid YAML: {problem}", file=file) from None
    if node is None:
        return Document(file, None, {(): 1})
    reader = _Reader(file, variables)
    value = reader.construct(node, ())
    return Document(file, value, reader.lines)


class _Reader:
    def __init__(self, file: str, variables: Mapping[str, str] | None):
        self.file, self.variables = file, variables
        self.lines: dict[KeyPath, int] = {(): 1}
        self._open: list[int] = []

    def error(self, message: str, node: yaml.Node, path: KeyPath) -> UserError:
        return UserError(message, file=self.file, line=node.start_mark.line + 1, key=dotted(path))

    def construct(self, node: yaml.Node, path: KeyPath) -> Any:
        if id(node) in self._open:
            raise self.error("recursive anchor", node, path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _CONTAINER_TAGS:
            raise self.error(f"tag {_shown_tag(node.tag)} is not allowed; expected plain YAML", node, path)
        self._open.append(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._child(item, (*path, index), item) for index, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.pop()

    def _child(self, node: yaml.Node, path: KeyPath, position: yaml.Node) -> Any:
        self.lines[path] = position.start_mark.line + 1
        return self.construct(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if not isinstance(source, yaml.MappingNode):
                        raise self.error("<< expects a mapping or a list of mappings", value_node, path)
                    for key, value in self.construct(source, path).items():
                        merged.setdefault(key, value)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error("a key must be text", key_node, path)
            key = key_node.value
            if key in own:
                raise self.error("duplicate key", key_node, (*path, key))
            own[key] = self._child(value_node, (*path, key), key_node)
        return {**merged, **own}

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        explicit = node.tag not in _PLAIN_TAGS and node.tag != f"{_TAG}str"
        if explicit:
            raise self.error(f"tag {_shown_tag(node.tag)} is not allowed; expected plain YAML", node, path)
        text = node.value
        replaced = self._replace_variables(text, node, path)
        # style None is a plain scalar; quoted scalars and blocks are always text
        if node.style is None:
            return resolve_scalar(replaced)
        return replaced

    def _replace_variables(self, text: str, node: yaml.Node, path: KeyPath) -> str:
        if self.variables is None or "${" not in text:
            return text

        def value_of(match: re.Match) -> str:
            name, default = match.groups()
            if name in _LATE_VARIABLES:
                return match.group(0)
            if name in self.variables:
                return self.variables[name]
            if default is not None:
                return default
            raise self.error(
                f"${{{name}}} is not set; set the environment variable {name} or write ${{{name}:-default}}", node, path
            )

        return _VARIABLE.sub(value_of, text)


def _shown_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
