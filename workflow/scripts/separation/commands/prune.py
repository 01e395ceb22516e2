"""Results that no experiment file refers to: `make prune` lists them, and removes them on request."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from separation.errors import UserError
from separation.experiment.config import EXPERIMENTS, ROOT, default_config
from separation.files.atomic import read_json
from separation.files.layout import (
    MANIFEST,
    SWEEPS,
    SweepFiles,
    baselines_folder,
    point_folders,
    systems_folder,
    visible_folders,
)
from separation.planning.expansion import load_workflow
from separation.planning.workflow import Workflow


@dataclass(frozen=True)
class Leftover:
    """A folder that may be removed, its kind, and its size in bytes."""

    kind: str
    path: Path
    size: int


def find_leftovers(workflows: list[Workflow], *, caches_too: bool = False) -> list[Leftover]:
    """Finds contents of the result folders that belong to none of the workflows.

    Args:
        workflows: One workflow per experiment file.
        caches_too: Whether to include the arrays of caches in use; their manifests stay, and jobs that need them refill
            them.

    Returns:
        Points, evaluations, validation scores, baselines, caches, datasets and sources, largest first.
    """
    settings = workflows[0].settings
    in_use = {
        "point": {point for workflow in workflows for point in workflow.trainings},
        "evaluation": {f"{point}/{name}" for workflow in workflows for point, name in workflow.evaluations},
        "validation": {f"{point}/{name}" for workflow in workflows for point, name in workflow.validations},
        "baselines": {name for workflow in workflows for name in workflow.baselines},
        "system": {name for workflow in workflows for name in workflow.systems},
        "cache": {cache for workflow in workflows for cache, _ in workflow.caches},
        "data": {name for workflow in workflows for name in (*workflow.datasets, *workflow.sources)},
    }
    found: list[Leftover] = []
    for folder in visible_folders(baselines_folder(settings.artifacts)):
        if folder.name not in in_use["baselines"]:
            found.append(_leftover("baselines", folder))
    for folder in visible_folders(systems_folder(settings.artifacts)):
        if folder.name not in in_use["system"]:
            found.append(_leftover("system", folder))
    # a user's own folders have no config
    for point in point_folders(settings.artifacts):
        if point.id not in in_use["point"]:
            found.append(_leftover("point", point.path))
            continue
        for evaluation in point.evaluations():
            if f"{point.id}/{evaluation.id}" not in in_use["evaluation"]:
                found.append(_leftover("evaluation", evaluation.path))
        for validation in point.validations():
            if f"{point.id}/{validation.id}" not in in_use["validation"]:
                found.append(_leftover("validation", validation.path))
    for folder in visible_folders(settings.cache):
        # an unfinished cache has no manifest, only arrays
        stores = sorted(store for store in folder.iterdir() if ".zarr" in store.suffixes)
        if folder.name not in in_use["cache"] and (stores or any(folder.glob("*.json"))):
            found.append(_leftover("cache", folder))
        elif caches_too:
            found += [_leftover("cache arrays", store) for store in stores]
    for folder in visible_folders(settings.data):
        if folder.name not in in_use["data"] and any(folder.glob(f"*/{MANIFEST}")):
            found.append(_leftover("data", folder))
    return sorted(found, key=lambda leftover: (-leftover.size, str(leftover.path)))


def load_workflows(environment: Mapping[str, str]) -> list[Workflow]:
    """The workflows of all experiment files: those in config/experiments, and those of the sweeps in results/sweeps.

    Raises:
        UserError: A file is not readable or not valid. Its results are then unknown, so nothing may be removed.
    """
    files = sorted((ROOT / EXPERIMENTS).glob("*.y*ml"))
    for folder in visible_folders(SWEEPS):
        record = SweepFiles(folder).record
        if not record.exists():
            continue
        file = Path(read_json(record)["file"])
        if file.exists() and file.resolve() not in {known.resolve() for known in files}:
            files.append(file)
    config = default_config()
    return [load_workflow({**config, "sweep": str(file), "set": ""}, environment) for file in files]


def remove(leftover: Leftover) -> None:
    """Removes a leftover, after renaming it, so that an interruption leaves no half-removed folder under its name."""
    renamed = leftover.path.with_name(f".{leftover.path.name}.removed")
    shutil.rmtree(renamed, ignore_errors=True)
    leftover.path.rename(renamed)
    shutil.rmtree(renamed)


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make prune`."""
    parser = argparse.ArgumentParser(prog="prune", description="List results that no experiment file refers to.")
    parser.add_argument("--remove", action="store_true", help="remove everything listed")
    parser.add_argument("--caches", action="store_true", help="also list the arrays of all caches")
    options = parser.parse_args(arguments)
    try:
        leftovers = find_leftovers(load_workflows(os.environ), caches_too=options.caches)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for leftover in leftovers:
        print(f"{_size_text(leftover.size):>10}  {leftover.kind:<12}  {leftover.path}")
        if options.remove:
            remove(leftover)
    total = _size_text(sum(leftover.size for leftover in leftovers))
    outcome = "removed" if options.remove else "nothing was removed; make prune remove=1 removes them"
    print(f"{len(leftovers)} leftovers, {total}: {outcome}" if leftovers else "no leftovers")
    return 0


def _leftover(kind: str, path: Path) -> Leftover:
    files = (Path(parent) / name for parent, _, names in os.walk(path) for name in names)
    return Leftover(kind, path, sum(file.lstat().st_size for file in files))


def _size_text(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


if __name__ == "__main__":
    sys.exit(main())
