"""The user's own metrics: classes or functions in the folder info.extras, read without running them.

A metric is called with `(references, estimates, mixture, sample_rate)`; see docs/metrics.md. It is described by texts:
`unit`, `direction` ("higher is better" or "lower is better"), `definition` (or a docstring), and optionally `column`,
its name in tables, and `source`. A class has them as attributes; those of a function follow it: `f.unit = "dB"`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment.testers import METRICS_OF, UserMetric
from separation.experiment.user_classes import Extras, parse_file
from separation.files.score_table import METRIC_NAME

DIRECTIONS = {"higher is better": True, "lower is better": False}
#: arguments that every metric is called with
CALL = ("references", "estimates", "mixture", "sample_rate")
_TEXTS = ("unit", "direction", "definition", "source", "column")

_Definition = ast.ClassDef | ast.FunctionDef


def find_user_metrics(extras: Extras, testers: Sequence[Any] | Mapping[str, Any]) -> dict[str, UserMetric]:
    """The metrics of a folder that test_config.testers names, by name.

    Raises:
        UserError: Such a metric lacks its unit, direction or definition, one of these is not a text, or two files
            define it.
    """
    return {found.name: _read(found.file, found.name) for found in extras.metrics_of(testers)}


def _read(file: Path, name: str) -> UserMetric:
    body = parse_file(file).body
    node = next(node for node in body if isinstance(node, _Definition) and node.name == name)
    is_class = isinstance(node, ast.ClassDef)
    found = _class_attributes(node, body) if is_class else _function_attributes(node, body)
    texts: dict[str, str] = {}
    for key, value in found.items():
        try:
            texts[key] = ast.literal_eval(value)
        except ValueError:
            texts[key] = ""
        if not isinstance(texts[key], str) or not texts[key].strip():
            raise UserError(f"{name}.{key}: expected a text in quotes", file=file, line=value.lineno)
    if "definition" not in texts and (docstring := ast.get_docstring(node)):
        texts["definition"] = " ".join(docstring.split("\n\n")[0].split())
    for key, example in (("unit", "dB"), ("direction", "higher is better"), ("definition", "What the number means.")):
        if key not in texts:
            where = f'`{key} = "{example}"` in the class' if is_class else f'`{name}.{key} = "{example}"` below it'
            raise UserError(f"the metric {name} has no {key}; add {where}", file=file, line=node.lineno)
    if texts["direction"] not in DIRECTIONS:
        expected = " or ".join(repr(word) for word in DIRECTIONS)
        raise UserError(
            f"{name}.direction: expected {expected}, found {texts['direction']!r}",
            file=file,
            line=found["direction"].lineno,
        )
    return UserMetric(
        name,
        file,
        _column(texts.get("column"), name, file, node.lineno),
        texts["unit"],
        DIRECTIONS[texts["direction"]],
        texts["definition"],
        texts.get("source", ""),
        is_class,
        _parameters(node, file),
    )


def _column(given: str | None, name: str, file: Path, line: int) -> str:
    """The metric's name in tables: in capitals, as metrics are told from mixing conditions."""
    # LogSpectralDistance and log_spectral_distance are LOG-SPECTRAL-DISTANCE
    column = given or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", "-", name).upper()
    if not METRIC_NAME.fullmatch(column):
        raise UserError(
            f"expected a name in capitals for the column of a metric, such as LSD, found {column!r}; "
            f'set `column = "LSD"` beside its unit',
            file=file,
            line=line,
        )
    if column in {metric for names in METRICS_OF.values() for metric in names}:
        raise UserError(
            f"the column {column} is that of a built-in metric; set another `column` beside its unit",
            file=file,
            line=line,
        )
    return column


def _class_attributes(node: ast.ClassDef, body: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """The attributes of a class and of its bases in the same file."""
    found: dict[str, ast.expr] = {}
    for base in node.bases:
        for other in body:
            if isinstance(other, ast.ClassDef) and isinstance(base, ast.Name) and other.name == base.id:
                found |= _class_attributes(other, body[: body.index(other)])
    for target, value in _assignments(node.body):
        if isinstance(target, ast.Name) and target.id in _TEXTS:
            found[target.id] = value
    return found


def _function_attributes(node: ast.FunctionDef, body: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """What a file assigns to attributes of a function."""
    found: dict[str, ast.expr] = {}
    for target, value in _assignments(body):
        if isinstance(target, ast.Attribute) and target.attr in _TEXTS and ast.unparse(target.value) == node.name:
            found[target.attr] = value
    return found


def _assignments(body: Sequence[ast.stmt]) -> Iterator[tuple[ast.expr, ast.expr]]:
    for statement in body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                    yield from zip(target.elts, statement.value.elts, strict=False)
                else:
                    yield target, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            yield statement.target, statement.value


def _parameters(node: _Definition, file: Path) -> tuple[str, ...] | None:
    """The arguments that a tester may set; None where a class inherits its constructor or takes any arguments."""
    if isinstance(node, ast.ClassDef):
        functions = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if "__call__" not in functions and not node.bases:
            raise UserError(
                f"the metric {node.name} cannot be called; add `def __call__(self, {', '.join(CALL)})`",
                file=file,
                line=node.lineno,
            )
        if "__init__" not in functions:
            return None if node.bases else ()
        arguments, skipped = functions["__init__"].args, 1
    else:
        arguments, skipped = node.args, len(CALL)
    if arguments.kwarg is not None:
        return None
    positional = [*arguments.posonlyargs, *arguments.args][skipped:]
    return tuple(argument.arg for argument in (*positional, *arguments.kwonlyargs))
