"""The published table of a sweep, built from the options of a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.analysis.sweep_tables import read_points
from separation.files.layout import PointFolder
from separation.planning.run_options import RunOptions
from separation.publishing.sheet_table import PointFacts, SheetTable, sheet_table
from separation.tracking.registry import page_url


def table_of_sweep(points_csv: Path, scores: Path, options: RunOptions) -> SheetTable:
    """The published table of a sweep, with links from its points to their tracker pages.

    Args:
        points_csv, scores: Tables of the sweep, as collect_scores writes them.
        options: Options of the run.
    """
    artifacts = Path(options.artifacts)
    facts = {}
    for point in dict.fromkeys(read_points(points_csv)["point"]):
        settings = options.jobs.point(point)
        facts[point] = PointFacts(
            notes=settings["info"].get("notes") or "",
            train=_dataset_name(settings["splits"]["train"], "train"),
            validation=_dataset_name(settings["splits"]["val"], "val"),
            link=page_url(PointFolder(artifacts / point)),
        )
    return sheet_table(points_csv, scores, facts)


def _dataset_name(split: Mapping[str, Any], usual_split: str) -> str:
    """The name of a dataset, with its split if that is not the usual one."""
    return split["dataset"] if split["split"] == usual_split else f"{split['dataset']}/{split['split']}"
