"""Values in a config by sweep key: a dotted key is an exact path, a plain key is every match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from separation.experiment.ids import canonical_json
from separation.files.yaml_reader import KeyPath

# keys that define the loss: points that differ in one of them cannot be ranked by it
LOSS_KEYS = ("loss_function", "loss_weights", "output_type", "weight_type", "data_keys_for_training", "output")
CACHE_PATH: KeyPath = ("dataset_config", "cache")


def matches(config: dict[str, Any], condition: dict[str, Any]) -> bool:
    """Whether a config meets a condition; a list of values matches any of them, a plain key matches anywhere."""
    for key, expected in condition.items():
        values = values_of(config, key)
        wanted = [canonical_json(item) for item in expected] if isinstance(expected, list) else []
        wanted.append(canonical_json(expected))
        if not any(canonical_json(value) in wanted for value in values):
            return False
    return True


def values_of(config: dict[str, Any], key: str) -> list[Any]:
    """The values of a sweep key in a config: one for a dotted key, all matches for a plain one."""
    if "." not in key:
        if key == "cache":
            return [value_at(config, CACHE_PATH)]
        return [value_at(config, path) for path in paths_of(config, key, ())]
    value: Any = config
    for part in key.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return []
    return [value]


def value_at(config: Any, path: KeyPath) -> Any:
    """The value at a path that exists."""
    for part in path:
        config = config[part]
    return config


def replaced(value: Any, path: KeyPath, new: Any) -> Any:
    """A copy of `value` with `new` at `path`; unchanged parts are shared, not copied."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, list):
        changed = list(value)
        changed[key] = replaced(value[key], rest, new)
        return changed
    return {**value, key: replaced(value.get(key, {}), rest, new)}


def paths_of(value: Any, key: str, path: KeyPath) -> Iterator[KeyPath]:
    """The paths, below `path`, of every `key` in a value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield (*path, name)
            else:
                yield from paths_of(inner, key, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_of(inner, key, (*path, index))


def all_keys(value: Any) -> Iterator[str]:
    """Every key in a value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from all_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from all_keys(inner)


def defines_loss(key: str) -> bool:
    """Whether points that differ in a key have losses that do not compare."""
    return key.rsplit(".", 1)[-1] in LOSS_KEYS or "loss_function" in key


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested mapping by dotted key; lists and empty mappings are leaves."""
    if isinstance(value, Mapping) and (value or not prefix):
        return {
            key: leaf
            for name, inner in value.items()
            for key, leaf in flatten(inner, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    return {prefix: value}


def is_whole_number(value: Any) -> bool:
    """Whether a value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_list(config: dict[str, Any], path: KeyPath) -> bool:
    """Whether the value at a path is a list."""
    try:
        return isinstance(value_at(config, path), list)
    except (KeyError, IndexError, TypeError):
        return False


def short_names(keys: list[str]) -> dict[str, str]:
    """The shortest unique ending of each dotted key."""
    names = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if sum(other == name or other.endswith("." + name) for other in keys) == 1:
                break
        names[key] = name
    return names
