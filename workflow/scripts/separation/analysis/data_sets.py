"""Which points of a sweep, or of several sweeps, were chosen and tested on the same data."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from separation.files.layout import PointFolder
from separation.files.score_table import is_reference

Row = tuple[str, str]  # (point, evaluation)
_ITEM = ["dataset", "split", "item"]


def data_sets(scores: pd.DataFrame, artifacts: Path) -> dict[Row, str]:
    """The data of each row of a sweep, by name; {} if all points share their data.

    Points share their data if they have the same validation split, where it is known, and a test mixture in common.
    Between others there is no best point: neither validation losses nor scores on different mixtures compare.

    Args:
        scores: Score table of points and baselines.
        artifacts: Folder of the points.
    """
    keys = scores[["point", "evaluation", *_ITEM]].astype(str).drop_duplicates()
    items: dict[Row, set[tuple[str, ...]]] = {
        row: set(part[_ITEM].itertuples(index=False, name=None)) for row, part in keys.groupby(["point", "evaluation"])
    }
    points: dict[str, set[tuple[str, ...]]] = {}
    for (point, _), tested in items.items():
        if not is_reference(point):
            points[point] = points.get(point, set()) | tested
    groups: list[tuple[str, set[tuple[str, ...]], list[str]]] = []
    for point, tested in points.items():
        validation = _validation_data(PointFolder(artifacts / point).spec)
        for known, shared, members in groups:
            if known == validation and shared & tested:
                members.append(point)
                shared |= tested
                break
        else:
            groups.append((validation, set(tested), [point]))
    if len(groups) < 2:
        return {}
    names = [" and ".join(sorted({f"{dataset}/{split}" for dataset, split, _ in tested})) for _, tested, _ in groups]
    names = [
        f"{name}, validated on {validation}" if names.count(name) > 1 else name
        for name, (validation, _, _) in zip(names, groups, strict=True)
    ]
    group_of = {point: name for name, (_, _, members) in zip(names, groups, strict=True) for point in members}
    found = {}
    for (point, evaluation), tested in items.items():
        of_same_items = [name for name, (_, shared, _) in zip(names, groups, strict=True) if shared & tested]
        found[point, evaluation] = group_of.get(point) or " or ".join(of_same_items)
    return found


def _validation_data(spec: Path) -> str:
    """The id of the validation split that chose a point's best epoch, "" if unknown."""
    if not spec.is_file():
        return ""
    val = json.loads(spec.read_text(encoding="utf-8")).get("datasets", {}).get("val", {})
    return "/".join(str(val[key]) for key in ("id", "split") if key in val)
