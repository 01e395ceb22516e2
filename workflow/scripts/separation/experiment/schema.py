"""Checks of user files against the JSON schemas in workflow/schemas, with one line per mistake."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from separation.errors import nearest
from separation.experiment.schema_defaults import load_schema
from separation.files.yaml_reader import Document, KeyPath

if TYPE_CHECKING:
    import jsonschema


@contextlib.contextmanager
def _import_blocked(name: str) -> Iterator[None]:
    """Makes `import name` fail while the block runs, unless the module is already imported.

    jsonschema imports rfc3987_syntax if it is installed (a notebook server needs it), for a format that no schema
    here uses. The import takes longer than the rest of planning a small sweep. jsonschema works without the module.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]


@functools.cache
def _jsonschema() -> types.ModuleType:
    """The library, imported on first use: jobs take settings that planning has checked."""
    with _import_blocked("rfc3987_syntax"):
        import jsonschema
    return jsonschema


_TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return _jsonschema().Draft202012Validator(load_schema(name))


def check(document: Document, schema: str) -> None:
    """Raises a UserError for the first mistake in `document`, in the file's order."""
    if document.value is None:
        raise document.error("the file is empty")
    mistake = first_mistake(document.value, schema)
    if mistake is not None:
        path, message = mistake
        raise document.error(message, path)


def first_mistake(value: Any, schema: str) -> tuple[KeyPath, str] | None:
    """The first mistake in `value`: key path and message; None if there is none."""
    errors = list(_validator(schema).iter_errors(value))
    # a missing key is most often a misspelled one: report the misspelled key
    mistakes = [_describe(error) for error in errors if error.validator != "required"]
    mistakes = mistakes or [_describe(error) for error in errors]
    if not mistakes:
        return None
    order = {path: index for index, path in enumerate(_paths(value))}
    return min(mistakes, key=lambda mistake: order.get(mistake[0], len(order)))


def value_mistake(value: Any, path: KeyPath, schema: str) -> tuple[KeyPath, str] | None:
    """The first mistake in `value` at `path` of a document: key path and message; None if there is none."""
    part, rest = subschema(schema, path)
    if rest or part is None:
        return None
    validator = _jsonschema().Draft202012Validator({**part, "$defs": load_schema(schema).get("$defs", {})})
    for error in validator.iter_errors(value):
        inner, message = _describe(error)
        return (*path, *inner), message
    return None


def subschema(schema: str, path: KeyPath) -> tuple[dict[str, Any] | None, KeyPath]:
    """The part of a schema that describes `path`, and the rest of the path below the last key in the schema.

    (None, path) if a key is not allowed.
    """
    whole = load_schema(schema)
    part: dict[str, Any] = whole
    for index, key in enumerate(path):
        if "$ref" in part:
            part = whole["$defs"][part["$ref"].rsplit("/", 1)[1]]
        properties = part.get("properties", {})
        if isinstance(key, int):
            inner = part.get("items")
        elif key in properties:
            inner = properties[key]
        else:
            inner = part.get("additionalProperties")
            if inner is False:
                return None, path
        if not isinstance(inner, dict):
            return part, path[index:]
        part = inner
    return part, ()


def accepts_list(schema: str, path: KeyPath) -> bool:
    """Whether the value at `path` may itself be a list."""
    part, rest = subschema(schema, path)
    if part is None or rest:
        return False
    kinds = part.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds or []
    return "array" in kinds


def format_value(value: Any) -> str:
    """A value as messages show it: short, in YAML spelling."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _paths(inner, (*path, index))
    return found


def _describe(error: jsonschema.ValidationError) -> tuple[KeyPath, str]:
    path: KeyPath = tuple(error.absolute_path)
    found = format_value(error.instance)
    if error.validator in ("anyOf", "oneOf"):
        return _describe_choice(error, path)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = next(key for key in error.instance if key not in known)
        hint = nearest(unknown, known) or f"; expected one of {', '.join(known)}"
        return (*path, unknown), f"unknown key{hint}"
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return path, f"missing key '{missing[0]}'"
    if error.validator == "type":
        return path, f"expected {_types(error.validator_value)}, found {found}"
    if error.validator == "enum":
        allowed = error.validator_value
        hint = nearest(str(error.instance), [str(item) for item in allowed])
        choices = ("one of " if len(allowed) > 1 else "") + ", ".join(map(format_value, allowed))
        return path, f"expected {choices}, found {found}{hint}"
    bounds = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "more than",
        "exclusiveMaximum": "less than",
    }
    if error.validator in bounds:
        return path, f"expected {bounds[error.validator]} {error.validator_value}, found {found}"
    if error.validator in ("minItems", "minProperties"):
        return path, f"expected at least {_entries(error.validator_value)}, found {len(error.instance)}"
    if error.validator in ("maxItems", "maxProperties"):
        return path, f"expected at most {_entries(error.validator_value)}, found {len(error.instance)}"
    if error.validator == "pattern":
        return path, f"expected text that matches {error.validator_value}, found {found}"
    return path, error.message


def _describe_choice(error: jsonschema.ValidationError, path: KeyPath) -> tuple[KeyPath, str]:
    """The message of the best matching alternative, or all types that are allowed."""
    if error.validator == "oneOf" and not error.context:
        return path, f"matches more than one of the allowed forms, found {format_value(error.instance)}"
    types = [item.get("type") for item in error.validator_value]
    shallow = all(not inner.path for inner in error.context)
    if shallow and all(isinstance(item, (str, list)) for item in types):
        flat = [name for item in types for name in ([item] if isinstance(item, str) else item)]
        kinds = {"object": dict, "array": list, "string": str}
        if not any(isinstance(error.instance, kinds[name]) for name in flat if name in kinds):
            return path, f"expected {_types(flat)}, found {format_value(error.instance)}"
    best = _jsonschema().exceptions.best_match([error])
    if isinstance(error.instance, dict) and (best is error or best is None or best.validator == "required"):
        required = [item["required"] for item in error.validator_value if "required" in item]
        forms = [" and ".join(f"'{key}'" for key in keys) for keys in required]
        return path, f"expected {' or '.join(forms)}, found {', '.join(map(repr, error.instance)) or 'nothing'}"
    return (path, error.message) if best is error or best is None else _describe(best)


def _entries(count: int) -> str:
    return f"{count} entry" if count == 1 else f"{count} entries"


def _types(names: str | list[str]) -> str:
    names = [names] if isinstance(names, str) else names
    return " or ".join(_TYPE_NAMES.get(name, name) for name in names)
