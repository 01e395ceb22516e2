"""What of a sweep is published, and where to: read from the options that reach a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.analysis.sweep_tables import read_points
from separation.files.layout import PointFolder
from separation.planning.run_options import options_of
from separation.publishing.sheet_table import PointFacts, SheetTable, sheet_table
from separation.tracking.registry import page_url


def table_of_sweep(points_csv: Path, scores: Path, run_options: Mapping[str, Any]) -> SheetTable:
    """The table that people keep of a sweep, with links to the trackers that know its points."""
    artifacts = Path(run_options["artifacts"])
    facts = {}
    for point in dict.fromkeys(read_points(points_csv)["point"]):
        options = options_of(run_options, point)
        facts[point] = PointFacts(
            notes=options["info"].get("notes") or "",
            train=_name(options["readers"]["train"], "train"),
            validation=_name(options["readers"]["val"], "val"),
            link=page_url(PointFolder(artifacts / point)),
        )
    return sheet_table(points_csv, scores, facts)


def _name(reader: Mapping[str, Any], key: str) -> str:
    """A dataset by its name, with the split where that is not the one that the column says."""
    return reader["dataset"] if reader["split"] == key else f"{reader['dataset']}/{reader['split']}"
