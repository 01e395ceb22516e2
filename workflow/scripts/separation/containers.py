"""What jobs in a container have to see of this machine: the folders that do not lie in the working directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from separation.config import ROOT, Settings


def folders_to_mount(settings: Settings, run_options: Mapping[str, Any], working: Path) -> list[Path]:
    """The folders that jobs read and write outside the working directory, none of them within another.

    DATA, CACHE and ARTIFACTS and the repository, where links in them lead, and every file or folder of the user's that
    the workflow knows of: recordings, scripts, own modules, an experiment's mixtures.

    Args:
        settings: the workflow's.
        run_options: what jobs are told, see `points.Workflow`.
        working: the working directory, which containers see as it is.
    """
    own = [settings.data, settings.cache, settings.artifacts, ROOT]
    told = {Path(text) for text in _strings(run_options) if text.startswith(("/", ".."))}
    wanted = [path.absolute() for path in [*own, *sorted(path for path in told if path.exists())]]
    found: list[Path] = []
    folders = {path.parent if path.is_file() else path for path in wanted}
    for folder in sorted(folders | {folder.resolve() for folder in folders}):
        if not any(folder.is_relative_to(other) for other in [working.absolute(), *found]):
            found.append(folder)
    return found


def mount_variables(folders: list[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """The variable by which apptainer, or singularity where there is no apptainer, mounts folders at their own paths.

    What the user has in that variable stays.
    """
    variable = "SINGULARITY_BIND" if shutil.which("singularity") and not shutil.which("apptainer") else "APPTAINER_BIND"
    mounted = [part for part in environment.get(variable, "").split(",") if part]
    return {variable: ",".join(dict.fromkeys([*mounted, *map(str, folders)]))}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def mount_for_jobs(settings: Settings, run_options: Mapping[str, Any]) -> None:
    """Lets the containers that this process and its jobs start see all folders that they need."""
    os.environ.update(mount_variables(folders_to_mount(settings, run_options, Path.cwd()), os.environ))
