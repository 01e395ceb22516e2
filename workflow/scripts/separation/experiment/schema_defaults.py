"""JSON schemas of users' files and the defaults in them, without jsonschema, which is slow to import."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"


@functools.cache
def load_schema(name: str) -> dict[str, Any]:
    """The schema `workflow/schemas/<name>.schema.yaml`."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((SCHEMAS / f"{name}.schema.yaml").read_text(encoding="utf-8"), Loader=loader)


def with_defaults(value: Any, schema: str, *, section: str | None = None) -> Any:
    """A copy of `value` in which every key that the schema gives a default for is present.

    Args:
        value: Content of a whole file, or of one section of it.
        schema: Name of the schema.
        section: Top-level key that `value` belongs to; None for a whole file.
    """
    whole = load_schema(schema)

    def fill(value: Any, part: dict[str, Any]) -> Any:
        if "$ref" in part:
            part = whole["$defs"][part["$ref"].rsplit("/", 1)[1]]
        if isinstance(value, dict):
            filled = {key: fill(inner, _property(part, key)) for key, inner in value.items()}
            for key, inner in part.get("properties", {}).items():
                if key not in filled and "default" in inner:
                    filled[key] = fill(copy.deepcopy(inner["default"]), inner)
            return filled
        if isinstance(value, list):
            items = part.get("items", {})
            return [fill(inner, items if isinstance(items, dict) else {}) for inner in value]
        return value

    return fill(value, whole if section is None else _property(whole, section))


def _property(part: dict[str, Any], key: str) -> dict[str, Any]:
    inner = part.get("properties", {}).get(key, part.get("additionalProperties"))
    return inner if isinstance(inner, dict) else {}
