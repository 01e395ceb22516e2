"""Unique sweep names: two experiment files with the same name are an error."""

from __future__ import annotations

from pathlib import Path

from separation.errors import UserError
from separation.files.atomic import read_json, write_json
from separation.files.layout import SweepFiles
from separation.planning.workflow import Workflow


def check_name(workflow: Workflow) -> None:
    """Stops if another file already has results under this sweep's name.

    Raises:
        UserError: The results in results/sweeps/<name> come from another file that still exists.
    """
    name, file = workflow.experiment.name, workflow.experiment.document.file
    record = SweepFiles.of(name).record
    if not record.exists():
        return
    other = read_json(record)["file"]
    if other != file and Path(other).exists():
        raise UserError(f"the name '{name}' is already used by {other}; set a different info.name", file=file)


def record_name(folder: Path, file: str) -> None:
    """Records which experiment file the results in `folder` come from."""
    write_json(SweepFiles(folder).record, {"file": file})
