"""Axes of a sweep block: swept, fixed, zipped and random keys."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from separation.errors import nearest
from separation.experiment import schema
from separation.experiment.key_paths import is_whole_number
from separation.experiment.schema import format_value
from separation.experiment.sweep_keys import SCHEMA, SweepKeys
from separation.files.yaml_reader import Document, KeyPath

_DISTRIBUTIONS = {"uniform": 2, "log_uniform": 2, "randint": 2, "choice": 1}


@dataclass(frozen=True)
class SweptValue:
    """One value of a sweep key, and its key path in the experiment file (`origin`)."""

    key: str
    value: Any
    origin: KeyPath
    swept: bool


# values that change together; a swept key has one tuple per value
Choice = tuple[SweptValue, ...]


class Axes:
    """Reads the keys of a block.

    Args:
        document: Experiment file, for the lines of mistakes.
        keys: Paths of the sweep's keys.
    """

    def __init__(self, document: Document, keys: SweepKeys):
        self.document, self.keys = document, keys

    def axes(self, block: dict[str, Any], path: KeyPath) -> list[list[Choice]]:
        """Axes of a block in the file's order; groups that change together come last and so take precedence."""
        axes: list[list[Choice]] = []
        groups: list[list[Choice]] = []
        for key, value in block.items():
            origin = (*path, key)
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
                    raise self.document.error("an empty list yields no points", origin)
                axes.append(
                    [(SweptValue(key, item, (*origin, number), swept=True),) for number, item in enumerate(value)]
                )
            else:
                axes.append([(SweptValue(key, value, origin, swept=False),)])
        return axes + groups

    def _groups(self, value: Any, origin: KeyPath) -> list[Choice]:
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list) or not value or not all(isinstance(group, dict) for group in value):
            raise self.document.error("expected a list of mappings, each a group of keys that change together", origin)
        swept = len(value) > 1
        return [
            tuple(SweptValue(key, inner, (*origin, number, key), swept) for key, inner in group.items())
            for number, group in enumerate(value)
        ]

    def _seeds(self, value: Any, origin: KeyPath) -> list[Choice]:
        if isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        if not isinstance(value, list) or not value:
            raise self.document.error("expected a list of whole numbers, like [0, 1, 2]", origin)
        return [(SweptValue("info.seed", seed, (*origin, number), swept=True),) for number, seed in enumerate(value)]

    def _zips(self, value: Any, origin: KeyPath) -> list[list[Choice]]:
        zips = value if isinstance(value, list) else [value]
        axes = []
        for number, mapping in enumerate(zips):
            path = (*origin, number) if isinstance(value, list) else origin
            if not isinstance(mapping, dict) or not mapping:
                raise self.document.error("expected a mapping of keys to lists of equal length", path)
            for key, inner in mapping.items():
                if not isinstance(inner, list) or not inner:
                    raise self.document.error(f"expected a list, found {format_value(inner)}", (*path, key))
            lengths = {key: len(inner) for key, inner in mapping.items()}
            if len(set(lengths.values())) > 1:
                found = ", ".join(f"{key} ({length})" for key, length in lengths.items())
                raise self.document.error(f"expected lists of equal length, found {found}", path)
            axes.append(
                [
                    tuple(SweptValue(key, mapping[key][index], (*path, key, index), swept=True) for key in mapping)
                    for index in range(next(iter(lengths.values())))
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
                hint = nearest(key, ["count", "seed", "distributions"])
                raise self.document.error(f"unknown key{hint or '; ' + form}", (*origin, key))
        count, seed, distributions = value.get("count"), value.get("seed", 0), value.get("distributions")
        if not is_whole_number(count) or count < 1:
            raise self.document.error(
                f"expected a whole number of at least 1, found {format_value(count)}", (*origin, "count")
            )
        if not is_whole_number(seed):
            raise self.document.error(f"expected a whole number, found {format_value(seed)}", (*origin, "seed"))
        if not isinstance(distributions, dict) or not distributions:
            raise self.document.error(form, (*origin, "distributions"))
        for key, distribution in distributions.items():
            self._check_distribution(distribution, (*origin, "distributions", key))
        # a key's draws depend on its name and the seed only, so adding a key does not change the values of others
        draws = {
            key: self._draws(key, distribution, random.Random(f"{seed}:{key}"), count, (*origin, "distributions", key))
            for key, distribution in distributions.items()
        }
        return [
            tuple(SweptValue(key, draws[key][index], (*origin, "distributions", key), swept=True) for key in draws)
            for index in range(count)
        ]

    def _check_distribution(self, distribution: Any, origin: KeyPath) -> None:
        names = ", ".join(_DISTRIBUTIONS)
        if not isinstance(distribution, list) or not distribution or not isinstance(distribution[0], str):
            raise self.document.error(
                f"expected a distribution like [uniform, 0, 1], found {format_value(distribution)}", origin
            )
        name = distribution[0].replace("-", "_")
        if name not in _DISTRIBUTIONS:
            hint = nearest(name, _DISTRIBUTIONS)
            raise self.document.error(
                f"unknown distribution '{distribution[0]}'{hint}; expected one of {names}", origin
            )
        parameters = distribution[1:]
        if name == "choice":
            if len(parameters) != 1 or not isinstance(parameters[0], list) or not parameters[0]:
                raise self.document.error("expected [choice, [value, value, ...]]", origin)
            return
        valid = len(parameters) == 2 and all(
            isinstance(bound, (int, float)) and not isinstance(bound, bool) and math.isfinite(bound)
            for bound in parameters
        )
        if not valid or parameters[0] > parameters[1]:
            raise self.document.error(f"expected [{name}, low, high] with numbers low <= high", origin)
        if name == "log_uniform" and parameters[0] <= 0:
            raise self.document.error(f"expected bounds above 0, found {format_value(parameters[0])}", origin)
        if name == "randint" and not all(is_whole_number(bound) for bound in parameters):
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
        kinds = [schema.subschema(SCHEMA, path) for path in self.keys.paths(key, origin)]
        if any(not rest and part is not None and part.get("type") == "integer" for part, rest in kinds):
            return [round(value) for value in drawn]
        # six digits, because exp and log may differ in the last bit between machines and the value enters the id
        return [float(f"{value:.6g}") for value in drawn]
