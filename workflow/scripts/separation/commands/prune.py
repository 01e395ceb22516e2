"""Finds what no experiment file refers to any more, and removes it when told to: `make prune`."""

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
from separation.files.layout import SWEEPS, SweepFiles
from separation.planning.expansion import load_workflow
from separation.planning.workflow import Workflow


@dataclass(frozen=True)
class Leftover:
    """Something on disk that may go: what it is, where, and its size in bytes."""

    kind: str
    path: Path
    size: int


def find_leftovers(workflows: list[Workflow], *, caches_too: bool = False) -> list[Leftover]:
    """What lies below the directories and belongs to none of the workflows.

    Args:
        workflows: of every experiment file.
        caches_too: also the arrays of caches that are referred to; their manifests stay, and who needs them fills them
            again.

    Returns:
        points, evaluations, baselines, caches, datasets and sources, largest first.
    """
    settings = workflows[0].settings
    referred = {
        "point": {point for workflow in workflows for point in workflow.trainings},
        "evaluation": {f"{point}/{name}" for workflow in workflows for point, name in workflow.evaluations},
        "baselines": {name for workflow in workflows for name in workflow.baselines},
        "cache": {cache for workflow in workflows for cache, _ in workflow.caches},
        "data": {name for workflow in workflows for name in (*workflow.datasets, *workflow.sources)},
    }
    found: list[Leftover] = []
    for folder in _folders(settings.artifacts):
        if folder.name == "baselines":
            unused = [inner for inner in _folders(folder) if inner.name not in referred["baselines"]]
            found += [_leftover("baselines", inner) for inner in unused]
        elif folder.name not in referred["point"]:
            # only what the workflow wrote, whatever else may lie there
            if (folder / "config.yml").exists():
                found.append(_leftover("point", folder))
        else:
            evaluations = _folders(folder / "evaluations")
            found += [
                _leftover("evaluation", inner)
                for inner in evaluations
                if f"{folder.name}/{inner.name}" not in referred["evaluation"]
            ]
    for folder in _folders(settings.cache):
        # one that was never finished has no manifest, only arrays
        stores = sorted(store for store in folder.iterdir() if ".zarr" in store.suffixes)
        if folder.name not in referred["cache"] and (stores or any(folder.glob("*.json"))):
            found.append(_leftover("cache", folder))
        elif caches_too:
            found += [_leftover("cache arrays", store) for store in stores]
    for folder in _folders(settings.data):
        if folder.name not in referred["data"] and any(folder.glob("*/manifest.json")):
            found.append(_leftover("data", folder))
    return sorted(found, key=lambda leftover: (-leftover.size, str(leftover.path)))


def load_workflows(environment: Mapping[str, str]) -> list[Workflow]:
    """The workflows of all experiment files: those in config/experiments, and those that sweeps were made from.

    Raises:
        UserError: one of them cannot be read; what it refers to is then not known, so nothing may be removed.
    """
    files = sorted((ROOT / EXPERIMENTS).glob("*.y*ml"))
    for folder in _folders(SWEEPS):
        record = SweepFiles(folder).record
        if not record.exists():
            continue
        file = Path(read_json(record)["file"])
        if file.exists() and file.resolve() not in {known.resolve() for known in files}:
            files.append(file)
    config = default_config()
    return [load_workflow({**config, "sweep": str(file), "set": ""}, environment) for file in files]


def remove(leftover: Leftover) -> None:
    """Removes a leftover. It is moved aside first, so that a removal that is cut short leaves nothing half whole."""
    aside = leftover.path.with_name(f".{leftover.path.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    leftover.path.rename(aside)
    shutil.rmtree(aside)


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make prune`."""
    parser = argparse.ArgumentParser(prog="prune", description="Lists what no experiment file refers to any more.")
    parser.add_argument("--remove", action="store_true", help="remove what is listed")
    parser.add_argument("--caches", action="store_true", help="list the arrays of all caches too")
    asked = parser.parse_args(arguments)
    try:
        leftovers = find_leftovers(load_workflows(os.environ), caches_too=asked.caches)
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    for leftover in leftovers:
        print(f"{_shown_size(leftover.size):>10}  {leftover.kind:<12}  {leftover.path}")
        if asked.remove:
            remove(leftover)
    total = _shown_size(sum(leftover.size for leftover in leftovers))
    told = "removed" if asked.remove else "nothing was removed; make prune remove=1 removes them"
    print(f"{len(leftovers)} leftovers, {total}: {told}" if leftovers else "nothing is left over")
    return 0


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _leftover(kind: str, path: Path) -> Leftover:
    files = (Path(parent) / name for parent, _, names in os.walk(path) for name in names)
    return Leftover(kind, path, sum(file.lstat().st_size for file in files))


def _shown_size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


if __name__ == "__main__":
    sys.exit(main())
