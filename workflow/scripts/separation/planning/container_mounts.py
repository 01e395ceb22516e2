"""What jobs in a container have to see of this machine: the folders that do not lie in the working directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from separation.experiment.config import ROOT, Settings


def folders_to_mount(settings: Settings, strings: Iterable[str], working: Path) -> list[Path]:
    """The folders that jobs read and write outside the working directory, none of them within another.

    DATA, CACHE and ARTIFACTS and the repository, where links in them lead, and every file or folder of the user's that
    the workflow knows of: recordings, scripts, own modules, an experiment's mixtures.

    Args:
        settings: the workflow's.
        strings: Strings of the job table, among them paths.
        working: the working directory, which containers see as it is.
    """
    own = [settings.data, settings.cache, settings.artifacts, ROOT]
    told = {Path(text) for text in strings if text.startswith(("/", ".."))}
    wanted = [path.absolute() for path in [*own, *sorted(path for path in told if path.exists())]]
    found: list[Path] = []
    folders = {path.parent if path.is_file() else path for path in wanted}
    for folder in sorted(folders | {folder.resolve() for folder in folders}):
        if not any(folder.is_relative_to(other) for other in [working.absolute(), *found]):
            found.append(folder)
    return found


def container_variables(folders: list[Path], gpus: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which apptainer, or singularity where there is no apptainer, shows jobs what they need.

    Snakemake mounts this library at a place of its own, where it would find neither its templates nor its schemas
    beside it; PYTHONPATH has it taken from the repository.

    Args:
        folders: mounted at their own paths; what the user has in that variable stays.
        gpus: where there are any, NVIDIA's driver is shown too.
        environment: the environment's variables.
    """
    program = "SINGULARITY" if shutil.which("singularity") and not shutil.which("apptainer") else "APPTAINER"
    mounted = [part for part in environment.get(f"{program}_BIND", "").split(",") if part]
    found = {f"{program}_BIND": ",".join(dict.fromkeys([*mounted, *map(str, folders)]))}
    found[f"{program}ENV_PYTHONPATH"] = str(ROOT / "workflow" / "scripts")
    return {**found, f"{program}_NV": "1"} if gpus else found


def show_to_jobs(settings: Settings, strings: Iterable[str], gpus: int) -> None:
    """Lets the containers that this process and its jobs start see all folders, and the GPUs, that they need."""
    folders = folders_to_mount(settings, strings, Path.cwd())
    os.environ.update(container_variables(folders, gpus, os.environ))
