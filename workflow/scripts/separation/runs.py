"""Where the parts of a sweep's results lie, and which file they came from."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import MutableMapping
from pathlib import Path

from separation.errors import UserError
from separation.files import read_json, write_json
from separation.points import Workflow

SWEEPS = "results/sweeps"
RECORD = "sweep.json"
#: the environment variable with the name of this run of the workflow
RUN_VARIABLE = "SEPARATION_RUN"


def sweep_folder(name: str) -> Path:
    """Where the results of a sweep lie."""
    return Path(SWEEPS) / name


def check_name(workflow: Workflow) -> None:
    """Stops where another file has already given results under this sweep's name.

    Raises:
        UserError: results/sweeps/<name> was made from another file.
    """
    record = sweep_folder(workflow.experiment.name) / RECORD
    if not record.exists():
        return
    other = read_json(record)["file"]
    if other != workflow.experiment.document.file and Path(other).exists():
        raise UserError(
            f"the sweep '{workflow.experiment.name}' is already that of {other}; give one of the two another info.name",
            file=workflow.experiment.document.file,
        )


def record_name(folder: Path, file: str) -> None:
    """Notes which file the results in `folder` come from."""
    write_json(folder / RECORD, {"file": file})


def histories_of(points_csv: Path, artifacts: Path) -> dict[str, Path]:
    """The learning curve of every point of a points.csv, by point."""
    return {point: artifacts / point / "history.csv" for point, _ in _evaluations(points_csv)}


def estimates_of(points_csv: Path, artifacts: Path) -> dict[str, list[Path]]:
    """The folders with estimates to listen to of every point of a points.csv, by point."""
    found: dict[str, list[Path]] = {}
    for point, evaluation in _evaluations(points_csv):
        folder = artifacts / point / "evaluations" / evaluation / "estimates"
        if folder.is_dir():
            found.setdefault(point, []).append(folder)
    return found


def _evaluations(points_csv: Path) -> list[tuple[str, str]]:
    with open(points_csv, newline="", encoding="utf-8") as rows:
        return [(row["point"], row["evaluation"]) for row in csv.DictReader(rows)]


def name_run(environment: MutableMapping[str, str]) -> None:
    """Gives this run of the workflow a name that its jobs inherit: what is to be told once in a run is told once."""
    if not environment.get(RUN_VARIABLE):
        environment[RUN_VARIABLE] = f"{time.time():.0f}-{os.getpid()}"
