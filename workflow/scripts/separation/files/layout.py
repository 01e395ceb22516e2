"""Where the parts of a sweep's results lie, and which file they came from."""

from __future__ import annotations

import csv
import os
import socket
import time
import uuid
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from separation.errors import UserError
from separation.experiment.config import Settings
from separation.files.atomic import read_json, write_json, write_text
from separation.planning.workflow import Workflow

SWEEPS = "results/sweeps"
RECORD = "sweep.json"
#: the environment variable with the name of this run of the workflow
RUN_VARIABLE = "SEPARATION_RUN"
#: the one by which jobs know the folders of their workflow again: what `FOLDER_ID` of each holds
FOLDERS_VARIABLE = "SEPARATION_FOLDERS"
FOLDER_ID, UNNAMED = ".folder-id", "-"
#: seconds until what one machine writes is seen by the others
LATENCY = 30


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


def mark_folders(settings: Settings, environment: MutableMapping[str, str]) -> None:
    """Gives DATA, CACHE and ARTIFACTS a name each where they have none, and tells the names to the jobs to come."""
    names = [socket.gethostname()]
    for folder in (settings.data, settings.cache, settings.artifacts):
        place = folder / FOLDER_ID
        try:
            if not place.exists():
                own = place.with_name(f"{FOLDER_ID}.{uuid.uuid4()}")
                write_text(own, f"{uuid.uuid4()}\n")
                # of several workflows that begin, one gives the name
                with suppress(FileExistsError):
                    os.link(own, place)
                own.unlink()
            names.append(place.read_text(encoding="utf-8").strip())
        except OSError:
            names.append(UNNAMED)  # read alone: where nothing is made, nothing can go astray
    environment[FOLDERS_VARIABLE] = " ".join(names)


def check_folders(settings: Settings, environment: Mapping[str, str], latency: float = LATENCY) -> None:
    """Stops a job on a machine where DATA, CACHE or ARTIFACTS is not the folder that the workflow was started with.

    Raises:
        UserError: one of them is another folder here, or is missing.
    """
    host, *names = environment.get(FOLDERS_VARIABLE, "").split(" ")
    deadline = time.monotonic() + latency
    folders = {"DATA": settings.data, "CACHE": settings.cache, "ARTIFACTS": settings.artifacts}
    for (what, folder), name in zip(folders.items(), names, strict=False):
        while name != UNNAMED and _name_of(folder) != name:
            if time.monotonic() > deadline:
                raise UserError(
                    f"on {socket.gethostname()} this is not the {what} folder that the workflow was started with on "
                    f"{host}; name one that all machines share in {what}_DIRECTORY",
                    file=folder.absolute(),
                )
            time.sleep(0.5)


def _name_of(folder: Path) -> str | None:
    try:
        return (folder / FOLDER_ID).read_text(encoding="utf-8").strip()
    except OSError:
        return None
