"""Rows of points.csv: ids and labels of points, and the values of the keys that vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from separation.experiment.ids import canonical_json
from separation.experiment.key_paths import defines_loss, short_names, values_of
from separation.experiment.sweep import Point


@dataclass
class PointRow:
    """A row of points.csv: a point under one evaluation.

    Attributes:
        point, evaluation, baselines: Ids.
        swept: Values of the keys that vary in the sweep.
        labels: Readable names, one for each block with this point.
        blocks: Numbers of those blocks.
        seed: Seed of the training run.
        group: Digest of the setting; the same for points that differ only in the seed.
        validation, validation_metric: Id of the evaluation of the validation split, and the metric in it by which
            points are chosen; "" where they are chosen by validation loss.
    """

    point: str
    evaluation: str
    baselines: str
    swept: dict[str, Any]
    labels: list[str]
    blocks: list[int]
    seed: int
    group: str
    validation: str = ""
    validation_metric: str = ""

    @property
    def label(self) -> str:
        return " | ".join(dict.fromkeys(self.labels))

    def as_record(self) -> dict[str, Any]:
        """The row as JSON values."""
        chosen = {"validation": self.validation, "validation_metric": self.validation_metric}
        return {
            "point": self.point,
            "evaluation": self.evaluation,
            "baselines": self.baselines,
            "label": self.label,
            "swept": self.swept,
            "block": ";".join(str(block) for block in self.blocks),
            "seed": self.seed,
            "group": self.group,
            **(chosen if self.validation else {}),
        }


def fill_varying_keys(expanded: list[tuple[Point, PointRow]]) -> None:
    """Adds to every row its label and the values of all keys that vary, even if its own block omits them."""
    keys: dict[str, bool] = {}
    for point, _ in expanded:
        for setting in point.settings:
            keys[setting.key] = keys.get(setting.key, False) or setting.swept
    varies = {key: len({canonical_json(_value_of(point, key)) for point, _ in expanded}) > 1 for key in keys}
    names = short_names(_told_apart_by([key for key, different in varies.items() if different], expanded))
    for point, row in expanded:
        values = {key: row.swept.get(key, _value_of(point, key)) for key in keys if keys[key] or varies[key]}
        row.swept = {key: value for key, value in values.items() if value is not None}
        varying = {setting.key: setting.value for setting in point.settings if setting.key in names}
        row.labels.append(", ".join(f"{names[key]}={_text(value)}" for key, value in varying.items()) or "as written")


def _told_apart_by(keys: Sequence[str], expanded: list[tuple[Point, PointRow]]) -> list[str]:
    """The keys for labels: those with mappings as values, such as all arguments of a network, only where needed."""
    long = {
        setting.key for point, _ in expanded for setting in point.settings if isinstance(setting.value, Mapping)
    } & set(keys)
    if not long:
        return list(keys)
    short = [key for key in keys if key not in long]

    def distinct(chosen: Sequence[str]) -> int:
        return len({canonical_json([_value_of(point, key) for key in chosen]) for point, _ in expanded})

    return short if distinct(short) == distinct(keys) else list(keys)


def loss_keys(swept: Sequence[Mapping[str, Any]]) -> list[str]:
    """The swept keys that make the losses of points incomparable.

    Args:
        swept: Values of the swept keys of each point.
    """
    keys = dict.fromkeys(key for values in swept for key in values if defines_loss(key))
    return [key for key in keys if len({canonical_json(values.get(key)) for values in swept}) > 1]


def _value_of(point: Point, key: str) -> Any:
    for setting in reversed(point.settings):
        if setting.key == key:
            return setting.value
    return next(iter(values_of(point.config, key)), None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
