"""Columns of scores.parquet, the baselines that are rows of it, and the definitions of the user's own metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.files.atomic import atomic_path

if TYPE_CHECKING:
    import pandas

# Names of metrics are upper case, apart from a first letter (uSDR); names of mixing conditions are not
METRIC_NAME = re.compile(r"[a-z]?[A-Z][A-Z0-9-]*i?")

# One row has the scores of one estimate. Metrics and mixing conditions are in the columns that follow
SCORE_KEYS = ("point", "evaluation", "dataset", "split", "item", "source")
# Column of an estimate without scores because of NaN or infinite samples, in it, its sources or their mixture
NON_FINITE = "non_finite"
# Estimates of different points are compared on the same unit
UNIT = ["dataset", "split", "item", "source"]
# Values of the column `point` that are not points, with their names in tables and charts
BASELINES = {
    "mixture": "Mixture (nothing done)",
    "fixed_mask": "Fixed mask",
    "ideal_binary_mask": "Ideal binary mask",
    "ideal_ratio_mask": "Ideal ratio mask",
    "phase_sensitive_mask": "Phase-sensitive mask",
}
# The baseline that `oracle_share` is measured against
ORACLE = "ideal_binary_mask"
# Values of the column `point` that are systems of other programs begin with this, followed by the name
SYSTEM = "system:"
_DEFINITIONS = b"separation.user_metrics"


def is_system(point: str) -> bool:
    """Whether a value of the column `point` is a system of another program."""
    return point.startswith(SYSTEM)


def is_reference(point: str) -> bool:
    """Whether a value of the column `point` is no point of the sweep: a baseline, or a system of another program."""
    return point in BASELINES or is_system(point)


def reference_label(point: str) -> str:
    """The name of a baseline or system in tables and charts."""
    return BASELINES.get(point) or point.removeprefix(SYSTEM)


def write_score_table(table: pandas.DataFrame, path: Path, user_metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes a score table, atomically, with the definitions of the user's own metrics in it.

    Args:
        table: Rows with SCORE_KEYS, metrics and mixing conditions.
        path: File to write (parquet).
        user_metrics: column -> fields of `metric_definitions.MetricDefinition`.
    """
    import pyarrow
    import pyarrow.parquet

    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    if user_metrics:
        arrow = with_user_metrics(arrow, user_metrics)
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(arrow, temporary)


def with_user_metrics(table: Any, user_metrics: Mapping[str, Mapping[str, Any]]) -> Any:
    """A pyarrow table with the definitions of the user's own metrics."""
    text = json.dumps({name: dict(fields) for name, fields in user_metrics.items()}, sort_keys=True)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _DEFINITIONS: text.encode()})


def read_user_metrics(path: Path) -> dict[str, dict[str, Any]]:
    """The definitions of the user's own metrics in a score table, by column; {} for most tables."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(path).metadata or {}
    return json.loads(metadata.get(_DEFINITIONS, b"{}"))
