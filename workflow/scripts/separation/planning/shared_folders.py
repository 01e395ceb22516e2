"""Ids of DATA, CACHE and ARTIFACTS, that let a job on another machine detect that its folders differ."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from separation.errors import UserError
from separation.experiment.config import Settings
from separation.files.atomic import write_text

#: the host that started the workflow and the contents of each folder's `FOLDER_ID`, for its jobs
FOLDERS_VARIABLE = "SEPARATION_FOLDERS"
FOLDER_ID, READ_ONLY = ".folder-id", "-"
#: seconds until other machines see a written file
LATENCY = 30


def mark_folders(settings: Settings, environment: MutableMapping[str, str]) -> None:
    """Gives DATA, CACHE and ARTIFACTS an id each if they have none, and passes the ids to jobs."""
    ids = [socket.gethostname()]
    for folder in (settings.data, settings.cache, settings.artifacts):
        path = folder / FOLDER_ID
        try:
            if not path.exists():
                temporary = path.with_name(f"{FOLDER_ID}.{uuid.uuid4()}")
                write_text(temporary, f"{uuid.uuid4()}\n")
                # if several workflows start at once, one of them sets the id
                with suppress(FileExistsError):
                    os.link(temporary, path)
                temporary.unlink()
            ids.append(path.read_text(encoding="utf-8").strip())
        except OSError:
            ids.append(READ_ONLY)  # nothing is written there, so no check is needed
    environment[FOLDERS_VARIABLE] = " ".join(ids)


def check_folders(settings: Settings, environment: Mapping[str, str], latency: float = LATENCY) -> None:
    """Stops a job on a machine where DATA, CACHE or ARTIFACTS is not the folder that the workflow started with.

    Raises:
        UserError: One of them is missing or a different folder on this machine.
    """
    host, *ids = environment.get(FOLDERS_VARIABLE, "").split(" ")
    deadline = time.monotonic() + latency
    folders = {"DATA": settings.data, "CACHE": settings.cache, "ARTIFACTS": settings.artifacts}
    for (variable, folder), expected in zip(folders.items(), ids, strict=False):
        while expected != READ_ONLY and _id_of(folder) != expected:
            if time.monotonic() > deadline:
                raise UserError(
                    f"on {socket.gethostname()} this is not the {variable} folder that the workflow on {host} "
                    f"started with; set {variable}_DIRECTORY to a folder that all machines share",
                    file=folder.absolute(),
                )
            time.sleep(0.5)


def _id_of(folder: Path) -> str | None:
    try:
        return (folder / FOLDER_ID).read_text(encoding="utf-8").strip()
    except OSError:
        return None
