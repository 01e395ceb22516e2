"""The sweep language: expansion of one experiment file into the settings of every point.

`sweep` is a list of blocks. In a block a list is swept (Cartesian product, the last key changing fastest), anything
else is set. A dotted key is an exact path; a plain key sets every matching key anywhere. See docs/sweeps.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from separation.errors import UserError
from separation.experiment import schema
from separation.experiment.ids import normalized
from separation.experiment.key_paths import is_list, is_whole_number, matches, replaced
from separation.experiment.sweep_axes import Axes, Choice, SweptValue
from separation.experiment.sweep_keys import SCHEMA, SweepKeys
from separation.files.yaml_reader import Document, KeyPath


@dataclass
class Point:
    """One point of a sweep before it has an id: its complete config and the settings it results from."""

    config: dict[str, Any]
    block: int
    settings: tuple[SweptValue, ...]
    populate_cache: bool
    num_cache_workers: int | None
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)

    @property
    def swept(self) -> dict[str, Any]:
        """Values by swept key, with the keys as written in the sweep."""
        return {setting.key: setting.value for setting in self.settings if setting.swept}


@dataclass(frozen=True)
class Override:
    """A change from the command line."""

    key: str
    value: Any


class Sweep:
    """Expands an experiment.

    Args:
        document: Experiment file, checked against its schema.
        base: Its content with all defaults and without `sweep`.
        overrides: Changes from the command line; they take precedence over the file and its sweep.
    """

    def __init__(self, document: Document, base: dict[str, Any], overrides: tuple[Override, ...] = ()):
        self.document, self.base, self.overrides = document, base, overrides
        self.keys = SweepKeys(document, base)
        self.axes = Axes(document, self.keys)
        self._checked: set[tuple[KeyPath, str]] = set()
        self._sections: dict[tuple, tuple[Any, list]] = {}

    @property
    def notices(self) -> list[str]:
        """Keys without effect, one line each."""
        return self.keys.notices

    def points(self) -> Iterator[Point]:
        """All points that are not excluded, in the sweep's order; equal points of several blocks are repeated.

        Raises:
            UserError: A key matches nothing, a value does not fit its key, a block is malformed or yields no points.
        """
        blocks = self.document.value.get("sweep") or [{}]
        for index, block in enumerate(blocks):
            yield from self._block(index, block)

    # one block ---------------------------------------------------------------------------------------------------

    def _block(self, index: int, block: dict[str, Any]) -> Iterator[Point]:
        path: KeyPath = ("sweep", index)
        block = dict(block)
        command_line = self._override_block(block)
        populate = self._flag(block, "populate_cache", path, default=True)
        cache_workers = self._cache_workers(block, path)
        exclude = self._conditions(block.pop("exclude", []), (*path, "exclude"))
        when = self._whens(block.pop("when", []), (*path, "when"))
        axes = self.axes.axes(block, path) + command_line
        empty = True
        for combination in itertools.product(*axes):
            settings = tuple(itertools.chain.from_iterable(combination))
            for more in self._conditional(settings, when):
                point = self._point(index, settings + more, populate, cache_workers)
                if any(matches(point.config, condition) for condition in exclude):
                    continue
                empty = False
                yield point
        if empty:
            raise self.document.error("this block yields no points: `exclude` removes every combination", path)

    # options of a block ------------------------------------------------------------------------------------------

    def _flag(self, block: dict[str, Any], key: str, path: KeyPath, *, default: bool) -> bool:
        value = block.pop(key, default)
        if not isinstance(value, bool):
            raise self.document.error(f"expected true or false, found {schema.format_value(value)}", (*path, key))
        return value

    def _cache_workers(self, block: dict[str, Any], path: KeyPath) -> int | None:
        value = block.pop("num_cache_workers", None)
        if value is not None and (not is_whole_number(value) or value < 0):
            raise self.document.error(
                f"expected a whole number of at least 0, found {schema.format_value(value)}",
                (*path, "num_cache_workers"),
            )
        return value

    def _override_block(self, block: dict[str, Any]) -> list[list[Choice]]:
        """Removes overridden keys from a block; returns the axes of the command line, which follow the block's own."""
        axes: list[list[Choice]] = []
        for override in self.overrides:
            key, value = override.key, override.value
            if key in ("populate_cache", "num_cache_workers", "seeds"):
                block[key] = value
                continue
            paths = self.keys.paths(key, ())
            as_list = all(schema.accepts_list(SCHEMA, path) or is_list(self.base, path) for path in paths)
            if isinstance(value, list) and not as_list:
                axes.append([(SweptValue(key, item, (), swept=True),) for item in value])
            else:
                axes.append([(SweptValue(key, value, (), swept=False),)])
            block.pop(key, None)
        return axes

    def _conditions(self, value: Any, origin: KeyPath) -> list[dict[str, Any]]:
        conditions = value if isinstance(value, list) else [value]
        for number, condition in enumerate(conditions):
            self._check_condition(condition, (*origin, number) if isinstance(value, list) else origin)
        return conditions

    def _check_condition(self, condition: Any, path: KeyPath) -> None:
        if not isinstance(condition, dict) or not condition:
            raise self.document.error("expected a mapping of keys to values (or lists of values)", path)
        for key in condition:
            self.keys.paths(key, (*path, key), required=True)

    def _whens(self, value: Any, origin: KeyPath) -> list[tuple[dict[str, Any], list[list[Choice]]]]:
        whens = value if isinstance(value, list) else [value]
        parsed = []
        for number, when in enumerate(whens):
            path = (*origin, number) if isinstance(value, list) else origin
            if not isinstance(when, dict) or "if" not in when or len(when) < 2:
                raise self.document.error("expected a condition under 'if' and keys to set or sweep", path)
            rest = dict(when)
            condition = rest.pop("if")
            self._check_condition(condition, (*path, "if"))
            parsed.append((condition, self.axes.axes(rest, path)))
        return parsed

    def _conditional(
        self, settings: tuple[SweptValue, ...], whens: list[tuple[dict[str, Any], list[list[Choice]]]]
    ) -> list[tuple[SweptValue, ...]]:
        """Further settings of a combination from `when`: one entry per combination of the keys that apply."""
        if not whens:
            return [()]
        combinations: list[tuple[SweptValue, ...]] = [()]
        for condition, axes in whens:
            grown = []
            for more in combinations:
                if not matches(self._apply(settings + more)[0], condition):
                    grown.append(more)
                    continue
                for combination in itertools.product(*axes):
                    grown.append(more + tuple(itertools.chain.from_iterable(combination)))
            combinations = grown
        return combinations

    # from settings to a config -----------------------------------------------------------------------------------

    def _point(self, block: int, settings: tuple[SweptValue, ...], populate: bool, workers: int | None) -> Point:
        config, origins = self._apply(settings)
        return Point(config, block, settings, populate, workers, origins)

    def _apply(self, settings: tuple[SweptValue, ...]) -> tuple[dict[str, Any], dict[KeyPath, KeyPath]]:
        """The config with some settings applied, and the origin in the file of each changed path.

        A section is built once for all points with the same settings in it, so that equal sections are one object.
        """
        origins: dict[KeyPath, KeyPath] = {}
        changes: dict[str | int, list[tuple[KeyPath, SweptValue]]] = {}
        for setting in settings:
            for path in self.keys.paths(setting.key, setting.origin):
                origins[path] = setting.origin
                changes.setdefault(path[0], []).append((path, setting))
        config = dict(self.base)
        for section, changed in changes.items():
            key = (section, *((path, id(setting)) for path, setting in changed))
            if key not in self._sections:
                value = self.base[section]
                for path, setting in changed:
                    self._check_value(setting, path)
                    value = replaced(value, path[1:], setting.value)
                # the settings are kept so that id() stays unique
                self._sections[key] = (value, changed)
            config[section] = self._sections[key][0]
        return config, origins

    def _check_value(self, setting: SweptValue, path: KeyPath) -> None:
        fingerprint = (path, f"{type(setting.value).__name__}:{setting.value!r}")
        if fingerprint in self._checked:
            return
        try:
            normalized(setting.value)
        except ValueError as problem:
            raise self._setting_error(setting, str(problem)) from None
        mistake = schema.value_mistake(setting.value, path, SCHEMA)
        if mistake is not None:
            raise self._setting_error(setting, mistake[1])
        self._checked.add(fingerprint)

    def _setting_error(self, setting: SweptValue, message: str):
        if setting.origin:
            return self.document.error(message, setting.origin)
        return UserError(message, file="command line", key=f"set={setting.key}")
