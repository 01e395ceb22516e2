"""The language of `sweep`: from one experiment file to the settings of every point.

`sweep` is a list of blocks. In a block a list is swept (Cartesian product, the last key changing fastest), anything
else is set. A dotted key is an exact path; a plain key sets every matching key anywhere. See docs/sweeps.md.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from separation import schema
from separation.errors import UserError
from separation.identity import canonical_json, normalized
from separation.vocabulary import ARGUMENT_NAMES, arguments_of
from separation.yaml_reader import Document, KeyPath

SCHEMA = "experiment"
_CACHE_PATH: KeyPath = ("dataset_config", "cache")
_DISTRIBUTIONS = {"uniform": 2, "log_uniform": 2, "randint": 2, "choice": 1}
# where a plain key is looked for
_SECTIONS = (
    "info",
    "dataset_config",
    "datasets",
    "train_config",
    "model_config",
    "algorithm_config",
    "test_config",
)


@dataclass(frozen=True)
class Setting:
    """One key of a sweep at one value, and where it stands in the file."""

    key: str
    value: Any
    origin: KeyPath
    swept: bool


# Settings that change together; a swept key has one such tuple per value
Choice = tuple[Setting, ...]


@dataclass
class Point:
    """One point of a sweep before it has an id: its whole config, and the settings that led to it."""

    config: dict[str, Any]
    block: int
    settings: tuple[Setting, ...]
    populate_cache: bool
    num_cache_workers: int | None
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)

    @property
    def swept(self) -> dict[str, Any]:
        """The swept keys, as they are written in the sweep, and their values."""
        return {setting.key: setting.value for setting in self.settings if setting.swept}


@dataclass(frozen=True)
class Override:
    """A change given on the command line."""

    key: str
    value: Any


class Sweep:
    """Expands an experiment.

    Args:
        document: the experiment file, checked against its schema.
        base: its content with all defaults and without `sweep`.
        overrides: changes from the command line; they win over the file and its sweep.
    """

    def __init__(self, document: Document, base: dict[str, Any], overrides: tuple[Override, ...] = ()):
        self.document, self.base, self.overrides = document, base, overrides
        self.notices: list[str] = []
        self._checked: set[tuple[KeyPath, str]] = set()
        self._targets: dict[str, list[KeyPath]] = {}
        self._sections: dict[tuple, tuple[Any, list]] = {}

    def points(self) -> Iterator[Point]:
        """All points in the sweep's order, excluded ones left out; equal points of several blocks come several times.

        Raises:
            UserError: a key matches nothing, a value does not fit its key, a block is malformed or gives no point.
        """
        blocks = self.document.value.get("sweep") or [{}]
        for index, block in enumerate(blocks):
            yield from self._block(index, block)

    # one block ---------------------------------------------------------------------------------------------------

    def _block(self, index: int, block: dict[str, Any]) -> Iterator[Point]:
        where: KeyPath = ("sweep", index)
        block = dict(block)
        command_line = self._override_block(block)
        populate = self._flag(block, "populate_cache", where, default=True)
        cache_workers = self._cache_workers(block, where)
        exclude = self._conditions(block.pop("exclude", []), (*where, "exclude"))
        when = self._whens(block.pop("when", []), (*where, "when"))
        axes = self._axes(block, where) + command_line
        given = False
        for combination in itertools.product(*axes):
            settings = tuple(itertools.chain.from_iterable(combination))
            for more in self._conditional(settings, when):
                point = self._point(index, settings + more, populate, cache_workers)
                if any(matches(point.config, condition) for condition in exclude):
                    continue
                given = True
                yield point
        if not given:
            raise self.document.error("this block gives no point: every combination is excluded", where)

    def _axes(self, block: dict[str, Any], where: KeyPath) -> list[list[Choice]]:
        """The block's axes in the file's order; groups that change together come last, so that they win."""
        axes: list[list[Choice]] = []
        groups: list[list[Choice]] = []
        for key, value in block.items():
            origin = (*where, key)
            if key.startswith("multiple_parameters"):
                groups.append(self._groups(value, origin))
            elif key == "seeds":
                axes.append(self._seeds(value, origin))
            elif key == "zip":
                axes += self._zips(value, origin)
            elif key == "random":
                axes.append(self._random(value, origin))
            elif isinstance(value, list):
                if not value:
                    raise self.document.error("an empty list gives no point", origin)
                axes.append([(Setting(key, item, (*origin, number), swept=True),) for number, item in enumerate(value)])
            else:
                axes.append([(Setting(key, value, origin, swept=False),)])
        return axes + groups

    def _groups(self, value: Any, origin: KeyPath) -> list[Choice]:
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list) or not value or not all(isinstance(group, dict) for group in value):
            raise self.document.error("expected a list of mappings, each a group of keys that change together", origin)
        swept = len(value) > 1
        return [
            tuple(Setting(key, inner, (*origin, number, key), swept) for key, inner in group.items())
            for number, group in enumerate(value)
        ]

    def _seeds(self, value: Any, origin: KeyPath) -> list[Choice]:
        if isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        if not isinstance(value, list) or not value:
            raise self.document.error("expected a list of whole numbers, like [0, 1, 2]", origin)
        return [(Setting("info.seed", seed, (*origin, number), swept=True),) for number, seed in enumerate(value)]

    def _zips(self, value: Any, origin: KeyPath) -> list[list[Choice]]:
        zips = value if isinstance(value, list) else [value]
        axes = []
        for number, mapping in enumerate(zips):
            place = (*origin, number) if isinstance(value, list) else origin
            if not isinstance(mapping, dict) or not mapping:
                raise self.document.error("expected a mapping of keys to lists of one length", place)
            for key, inner in mapping.items():
                if not isinstance(inner, list) or not inner:
                    raise self.document.error(f"expected a list, found {schema.shown(inner)}", (*place, key))
            lengths = {key: len(inner) for key, inner in mapping.items()}
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
                raise self.document.error(f"expected lists of one length, found {told}", place)
            axes.append(
                [
                    tuple(Setting(key, mapping[key][row], (*place, key, row), swept=True) for key in mapping)
                    for row in range(next(iter(lengths.values())))
                ]
            )
        return axes

    def _random(self, value: Any, origin: KeyPath) -> list[Choice]:
        form = (
            "expected count, seed and distributions, like "
            "{count: 20, seed: 0, distributions: {learning_rate: [log_uniform, 1e-4, 1e-1]}}"
        )
        if not isinstance(value, dict):
            raise self.document.error(form, origin)
        for key in value:
            if key not in ("count", "seed", "distributions"):
                hint = schema.nearest(key, ["count", "seed", "distributions"])
                raise self.document.error(f"unknown key{hint or '; ' + form}", (*origin, key))
        count, seed, distributions = value.get("count"), value.get("seed", 0), value.get("distributions")
        if not _whole(count) or count < 1:
            raise self.document.error(
                f"expected a whole number of at least 1, found {schema.shown(count)}", (*origin, "count")
            )
        if not _whole(seed):
            raise self.document.error(f"expected a whole number, found {schema.shown(seed)}", (*origin, "seed"))
        if not isinstance(distributions, dict) or not distributions:
            raise self.document.error(form, (*origin, "distributions"))
        for key, distribution in distributions.items():
            self._check_distribution(distribution, (*origin, "distributions", key))
        # a key's draws depend on its name and the seed alone: adding a key leaves the others' values as they were
        draws = {
            key: self._draws(key, distribution, random.Random(f"{seed}:{key}"), count, (*origin, "distributions", key))
            for key, distribution in distributions.items()
        }
        return [
            tuple(Setting(key, draws[key][row], (*origin, "distributions", key), swept=True) for key in draws)
            for row in range(count)
        ]

    def _check_distribution(self, distribution: Any, origin: KeyPath) -> None:
        names = ", ".join(_DISTRIBUTIONS)
        if not isinstance(distribution, list) or not distribution or not isinstance(distribution[0], str):
            raise self.document.error(
                f"expected a distribution like [uniform, 0, 1], found {schema.shown(distribution)}", origin
            )
        name = distribution[0].replace("-", "_")
        if name not in _DISTRIBUTIONS:
            hint = schema.nearest(name, list(_DISTRIBUTIONS))
            raise self.document.error(f"unknown distribution '{distribution[0]}'{hint}; known are {names}", origin)
        parameters = distribution[1:]
        if name == "choice":
            if len(parameters) != 1 or not isinstance(parameters[0], list) or not parameters[0]:
                raise self.document.error("expected [choice, [value, value, ...]]", origin)
            return
        good = len(parameters) == 2 and all(
            isinstance(bound, (int, float)) and not isinstance(bound, bool) and math.isfinite(bound)
            for bound in parameters
        )
        if not good or parameters[0] > parameters[1]:
            raise self.document.error(f"expected [{name}, low, high] with numbers low <= high", origin)
        if name == "log_uniform" and parameters[0] <= 0:
            raise self.document.error(f"expected bounds above 0, found {schema.shown(parameters[0])}", origin)
        if name == "randint" and not all(_whole(bound) for bound in parameters):
            raise self.document.error("expected whole numbers as bounds", origin)

    def _draws(
        self, key: str, distribution: list[Any], generator: random.Random, count: int, origin: KeyPath
    ) -> list[Any]:
        name, parameters = distribution[0].replace("-", "_"), distribution[1:]
        if name == "choice":
            return [parameters[0][generator.randrange(len(parameters[0]))] for _ in range(count)]
        low, high = parameters
        if name == "randint":
            return [generator.randint(low, high) for _ in range(count)]
        if name == "log_uniform":
            drawn = [math.exp(generator.uniform(math.log(low), math.log(high))) for _ in range(count)]
        else:
            drawn = [generator.uniform(low, high) for _ in range(count)]
        kinds = [schema.subschema(SCHEMA, path) for path in self._find(key, origin)]
        if any(not rest and part is not None and part.get("type") == "integer" for part, rest in kinds):
            return [round(value) for value in drawn]
        # six digits, so that machines whose exp and log differ in the last bit agree on the value and on the id
        return [float(f"{value:.6g}") for value in drawn]

    # options of a block ------------------------------------------------------------------------------------------

    def _flag(self, block: dict[str, Any], key: str, where: KeyPath, *, default: bool) -> bool:
        value = block.pop(key, default)
        if not isinstance(value, bool):
            raise self.document.error(f"expected true or false, found {schema.shown(value)}", (*where, key))
        return value

    def _cache_workers(self, block: dict[str, Any], where: KeyPath) -> int | None:
        value = block.pop("num_cache_workers", None)
        if value is not None and (not _whole(value) or value < 0):
            raise self.document.error(
                f"expected a whole number, found {schema.shown(value)}", (*where, "num_cache_workers")
            )
        return value

    def _override_block(self, block: dict[str, Any]) -> list[list[Choice]]:
        """Applies the command line to a block; what is swept or set there comes after the block's own axes."""
        axes: list[list[Choice]] = []
        for override in self.overrides:
            key, value = override.key, override.value
            if key in ("populate_cache", "num_cache_workers", "seeds"):
                block[key] = value
                continue
            targets = self._find(key, ())
            as_list = all(schema.accepts_list(SCHEMA, path) or _is_list(self.base, path) for path in targets)
            if isinstance(value, list) and not as_list:
                axes.append([(Setting(key, item, (), swept=True),) for item in value])
            else:
                axes.append([(Setting(key, value, (), swept=False),)])
            block.pop(key, None)
        return axes

    def _conditions(self, value: Any, origin: KeyPath) -> list[dict[str, Any]]:
        conditions = value if isinstance(value, list) else [value]
        for number, condition in enumerate(conditions):
            place = (*origin, number) if isinstance(value, list) else origin
            self._check_condition(condition, place)
        return conditions

    def _check_condition(self, condition: Any, place: KeyPath) -> None:
        if not isinstance(condition, dict) or not condition:
            raise self.document.error("expected a mapping of keys to values (or lists of values)", place)
        for key in condition:
            self._find(key, (*place, key), required=True)

    def _whens(self, value: Any, origin: KeyPath) -> list[tuple[dict[str, Any], list[list[Choice]]]]:
        whens = value if isinstance(value, list) else [value]
        parsed = []
        for number, when in enumerate(whens):
            place = (*origin, number) if isinstance(value, list) else origin
            if not isinstance(when, dict) or "if" not in when or len(when) < 2:
                raise self.document.error("expected a condition under 'if' and keys that it sets or sweeps", place)
            rest = dict(when)
            condition = rest.pop("if")
            self._check_condition(condition, (*place, "if"))
            parsed.append((condition, self._axes(rest, place)))
        return parsed

    def _conditional(
        self, settings: tuple[Setting, ...], whens: list[tuple[dict[str, Any], list[list[Choice]]]]
    ) -> list[tuple[Setting, ...]]:
        """The further settings of a combination: one entry per combination of the conditional keys that apply."""
        if not whens:
            return [()]
        combinations: list[tuple[Setting, ...]] = [()]
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

    def _point(self, block: int, settings: tuple[Setting, ...], populate: bool, workers: int | None) -> Point:
        config, origins = self._apply(settings)
        return Point(config, block, settings, populate, workers, origins)

    def _apply(self, settings: tuple[Setting, ...]) -> tuple[dict[str, Any], dict[KeyPath, KeyPath]]:
        """The config under some settings, and by path of what they changed where they stand.

        A section is built once for all points that set the same in it, so that equal sections are one object.
        """
        origins: dict[KeyPath, KeyPath] = {}
        changes: dict[str | int, list[tuple[KeyPath, Setting]]] = {}
        for setting in settings:
            for path in self._find(setting.key, setting.origin):
                origins[path] = setting.origin
                changes.setdefault(path[0], []).append((path, setting))
        config = dict(self.base)
        for section, changed in changes.items():
            key = (section, *((path, id(setting)) for path, setting in changed))
            if key not in self._sections:
                value = self.base[section]
                for path, setting in changed:
                    self._check_value(setting, path)
                    value = _replaced(value, path[1:], setting.value)
                # the settings are kept, so that their ids stay their own
                self._sections[key] = (value, changed)
            config[section] = self._sections[key][0]
        return config, origins

    def _check_value(self, setting: Setting, path: KeyPath) -> None:
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

    def _setting_error(self, setting: Setting, message: str):
        if setting.origin:
            return self.document.error(message, setting.origin)
        return UserError(message, file="command line", key=f"set={setting.key}")

    def _find(self, key: str, origin: KeyPath, *, required: bool = False) -> list[KeyPath]:
        """The paths that a sweep's key sets: itself where it is dotted, every match where it is plain."""
        if key not in self._targets:
            self._targets[key] = self._exact(key, origin) if "." in key else self._matches(key, origin)
        if required and not self._targets[key]:
            raise self._unknown(key, origin)
        return self._targets[key]

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
            return [_CACHE_PATH]
        found = [path for section in _SECTIONS for path in _paths_of(self.base.get(section), key, (section,))]
        if not found:
            # a module or an algorithm takes the argument though the file leaves it at its default
            found = [path for path in self._argument_places() if key in arguments_of(self._class_at(path))]
            found = [(*path, key) for path in found]
        if not found and key in ARGUMENT_NAMES:
            self.notices.append(
                f"{self._place(origin)}{key} sets nothing: no module or algorithm of this file takes it"
            )
        elif not found:
            raise self._unknown(key, origin)
        return found

    def _argument_places(self) -> list[KeyPath]:
        modules = self.base["model_config"].get("modules", {})
        places: list[KeyPath] = [
            ("model_config", "modules", name, "args") for name, module in modules.items() if "class" in module
        ]
        return [*places, ("algorithm_config", "args")]

    def _class_at(self, path: KeyPath) -> str:
        value: Any = self.base
        for part in path[:-1]:
            value = value[part]
        return value["class"]

    def _may_be_added(self, parent: KeyPath, key: str) -> bool:
        """Whether `key` may be set under `parent` though the file and the schema's defaults do not hold it."""
        part, rest = schema.subschema(SCHEMA, parent)
        if not rest and part is not None and key in part.get("properties", {}):
            return True
        if parent and parent[-1] == "args":
            known = arguments_of(self._class_at(parent))
            return known is None or key in known
        # a nussl dataset class takes arguments of its own
        return parent[:1] == ("datasets",) and len(parent) == 2 and "class" in self.base["datasets"][parent[1]]

    def _addable(self, parent: KeyPath) -> list[str]:
        part, rest = schema.subschema(SCHEMA, parent)
        names = [] if rest or part is None else list(part.get("properties", {}))
        if parent and parent[-1] == "args":
            names += list(arguments_of(self._class_at(parent)) or ())
        return names

    def _unknown(self, key: str, origin: KeyPath, part: str | None = None, candidates: list[str] | None = None):
        if part is None:
            candidates = [*_all_keys(self.base), *ARGUMENT_NAMES]
        hint = schema.nearest(part or key, sorted(set(candidates or ())))
        while origin and isinstance(origin[-1], int):
            origin = origin[:-1]
        message = f"matches nothing in this experiment{hint}"
        if origin:
            return self.document.error(message, origin)
        return UserError(message, file="command line", key=f"set={key}")

    def _place(self, origin: KeyPath) -> str:
        line = self.document.line(origin) if origin else None
        return f"{self.document.file}:{line}: " if line else "command line: "


def matches(config: dict[str, Any], condition: dict[str, Any]) -> bool:
    """Whether a config has the values of a condition; a list of values matches any of them, a plain key anywhere."""
    for key, expected in condition.items():
        values = values_of(config, key)
        wanted = [canonical_json(item) for item in expected] if isinstance(expected, list) else []
        wanted.append(canonical_json(expected))
        if not any(canonical_json(value) in wanted for value in values):
            return False
    return True


def values_of(config: dict[str, Any], key: str) -> list[Any]:
    """The values that a key of a sweep names in a config: one for a dotted key, all matches for a plain one."""
    if "." not in key:
        if key == "cache":
            return [value_at(config, _CACHE_PATH)]
        return [value_at(config, path) for path in _paths_of(config, key, ())]
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


def _replaced(value: Any, path: KeyPath, new: Any) -> Any:
    """A copy of `value` with `new` at `path`; parts off the path are shared, not copied."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, list):
        changed = list(value)
        changed[key] = _replaced(value[key], rest, new)
        return changed
    return {**value, key: _replaced(value.get(key, {}), rest, new)}


def _paths_of(value: Any, key: str, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield (*path, name)
            else:
                yield from _paths_of(inner, key, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths_of(inner, key, (*path, index))


def _all_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _all_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _all_keys(inner)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(config: dict[str, Any], path: KeyPath) -> bool:
    try:
        return isinstance(value_at(config, path), list)
    except (KeyError, IndexError, TypeError):
        return False
