"""Which file a sweep's results came from."""

from __future__ import annotations

from pathlib import Path

from separation.errors import UserError
from separation.files import read_json, write_json
from separation.points import Workflow

SWEEPS = "results/sweeps"
RECORD = "sweep.json"


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
