"""Folders outside the working directory that jobs in a container need to see."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from separation.experiment.config import ROOT, Settings


def folders_to_mount(settings: Settings, strings: Iterable[str], working: Path) -> list[Path]:
    """The folders that jobs read and write outside the working directory, none of them within another.

    DATA, CACHE, ARTIFACTS and the repository, the targets of links in them, and all the user's files and folders in the
    job table: recordings, scripts, the user's modules, an experiment's mixtures.

    Args:
        settings: Settings of the workflow.
        strings: Strings of the job table, among them paths.
        working: Working directory, which is always mounted.
    """
    workflow_folders = [settings.data, settings.cache, settings.artifacts, ROOT]
    user_paths = {Path(text) for text in strings if text.startswith(("/", ".."))}
    wanted = [path.absolute() for path in [*workflow_folders, *sorted(path for path in user_paths if path.exists())]]
    found: list[Path] = []
    folders = {path.parent if path.is_file() else path for path in wanted}
    for folder in sorted(folders | {folder.resolve() for folder in folders}):
        if not any(folder.is_relative_to(other) for other in [working.absolute(), *found]):
            found.append(folder)
    return found


def container_variables(folders: list[Path], gpus: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for apptainer (or singularity without it) that mount the folders and drivers of jobs.

    Snakemake mounts this library at another path, without the templates and schemas beside it; PYTHONPATH makes jobs
    import it from the repository.

    Args:
        folders: Folders to mount at their own paths, added to those that the user mounts.
        gpus: Number of GPUs; above 0, NVIDIA's driver is mounted too.
        environment: Environment variables.
    """
    program = "SINGULARITY" if shutil.which("singularity") and not shutil.which("apptainer") else "APPTAINER"
    mounted = [part for part in environment.get(f"{program}_BIND", "").split(",") if part]
    found = {f"{program}_BIND": ",".join(dict.fromkeys([*mounted, *map(str, folders)]))}
    found[f"{program}ENV_PYTHONPATH"] = str(ROOT / "workflow" / "scripts")
    return {**found, f"{program}_NV": "1"} if gpus else found


def mount_for_jobs(settings: Settings, strings: Iterable[str], gpus: int) -> None:
    """Mounts the folders and GPUs that jobs need in the containers of this process and its jobs."""
    folders = folders_to_mount(settings, strings, Path.cwd())
    os.environ.update(container_variables(folders, gpus, os.environ))
