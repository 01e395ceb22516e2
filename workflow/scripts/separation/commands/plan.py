"""What a sweep would do, told before anything is paid for: `make plan`.

Reads the experiment, looks which results exist, and prints the points with their swept values, what of each exists,
which caches and datasets are missing, and how each new point differs from the nearest one that is finished.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.commands.command_line import console, run_command, short_names
from separation.experiment.ids import canonical_json
from separation.experiment.key_paths import flatten
from separation.files.atomic import read_json
from separation.files.layout import PointFolder, baseline_scores, cache_manifest, cache_store, split_manifest
from separation.planning.sweep_names import check_name
from separation.planning.workflow import Workflow

# finding the nearest finished point compares every new one with every finished one
_MOST_COMPARISONS = 500_000
_ROWS_SHOWN = 60


def plan_of(workflow: Workflow) -> dict[str, Any]:
    """What exists and what is missing of a sweep.

    Returns:
        `sweep`, `points` (one entry per row of points.csv: `point`, `evaluation`, `label`, `swept`, `state` (finished,
        trained, begun or new), `nearest` and `differs` where something finished is near: another point for a new one,
        another evaluation of the same point for one that is trained and not yet evaluated so), `missing` (ids of
        datasets, caches and baselines that have to be made), `jobs` (how many trainings and evaluations are left).
    """
    artifacts = workflow.settings.artifacts
    finished = _finished_points(artifacts)
    flat_finished = {point: _leaves(spec) for point, spec in finished.items()}
    flat_new: dict[str, frozenset] = {}
    rows = []
    new = [point for point in workflow.trainings if point not in finished]
    compare = bool(finished) and len(new) * len(finished) <= _MOST_COMPARISONS
    for row in workflow.table():
        point, evaluation = row["point"], row["evaluation"]
        folder = PointFolder(artifacts / point)
        trained, begun = folder.best_checkpoint.exists(), folder.spec.exists()
        scored = folder.evaluation(evaluation).scores.exists()
        state = "finished" if trained and scored else "trained" if trained else "begun" if begun else "new"
        entry = {key: row[key] for key in ("point", "evaluation", "label", "swept")}
        entry["state"] = state
        if not trained and compare:
            if point not in flat_new:
                flat_new[point] = _leaves(json.loads(workflow.trainings[point].spec))
            entry |= _nearest(flat_new[point], {key: value for key, value in flat_finished.items() if key != point})
        elif state == "trained":
            work, _ = workflow.evaluations[point, evaluation]
            entry |= _nearest(_leaves(json.loads(work.spec)), _finished_evaluations(folder))
        rows.append(entry)
    states = {row["point"]: row["state"] for row in rows}
    return {
        "sweep": workflow.experiment.name,
        "points": rows,
        "missing": _missing(workflow),
        "jobs": {
            "train_point": sum(state in ("new", "begun") for state in states.values()),
            "evaluate_point": sum(row["state"] != "finished" for row in rows),
        },
        "notices": workflow.notices,
    }


def _missing(workflow: Workflow) -> dict[str, list[str]]:
    settings = workflow.settings
    datasets = [
        f"{dataset}/{split}"
        for dataset, split in workflow.mixtures
        if not split_manifest(settings.data, dataset, split).exists()
    ]
    manifests = {"/".join(key): cache_manifest(settings.cache, *key) for key in workflow.caches}
    caches = [name for name, manifest in manifests.items() if not manifest.exists()]
    pruned = [name for name, manifest in manifests.items() if manifest.exists() and not cache_store(manifest).exists()]
    baselines = [name for name in workflow.baselines if not baseline_scores(settings.artifacts, name).exists()]
    return {"datasets": datasets, "caches": caches, "pruned caches": pruned, "baselines": baselines}


def _finished_points(artifacts: Path) -> dict[str, Any]:
    """What determines every trained point below `artifacts`, by id."""
    found = {}
    if not artifacts.is_dir():
        return found
    with os.scandir(artifacts) as entries:
        for entry in entries:
            folder = PointFolder(Path(entry.path))
            if folder.best_checkpoint.exists() and folder.spec.exists():
                found[entry.name] = read_json(folder.spec)
    return found


def _finished_evaluations(folder: PointFolder) -> dict[str, frozenset]:
    return {
        evaluation.path.name: _leaves(read_json(evaluation.spec))
        for evaluation in folder.evaluations()
        if evaluation.spec.exists() and evaluation.scores.exists()
    }


def _leaves(spec: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((key, canonical_json(value)) for key, value in flatten(spec).items())


def _nearest(new: frozenset, finished: Mapping[str, frozenset]) -> dict[str, Any]:
    """The finished point with the fewest differing keys, and those keys with both values."""
    if not finished:
        return {}
    nearest = min(sorted(finished), key=lambda point: len(finished[point] ^ new))
    mine, theirs = dict(new - finished[nearest]), dict(finished[nearest] - new)
    differs = {
        key: {"now": json.loads(mine.get(key, "null")), "then": json.loads(theirs.get(key, "null"))}
        for key in sorted({*mine, *theirs})
    }
    return {"nearest": nearest, "differs": differs}


def print_plan(plan: Mapping[str, Any]) -> None:
    """Shows a plan as a table."""
    from rich.markup import escape
    from rich.table import Table

    shown = console()
    short = short_names(row["swept"] for row in plan["points"])
    table = Table(title=f"{plan['sweep']}: {len(plan['points'])} points", title_justify="left")
    table.add_column("state")
    for name in short.values():
        table.add_column(escape(name), overflow="fold")
    table.add_column("point", overflow="fold")
    if any(row.get("differs") for row in plan["points"]):
        table.add_column("differs from the nearest finished one in", overflow="fold")
    for row in plan["points"][:_ROWS_SHOWN]:
        differs = ", ".join(
            f"{key}: {canonical_json(pair['then'])} → {canonical_json(pair['now'])}"
            for key, pair in row.get("differs", {}).items()
        )
        values = [escape(canonical_json(row["swept"][key])) if key in row["swept"] else "" for key in short]
        cells = [row["state"], *values, row["point"]]
        table.add_row(*cells, *([escape(differs)] if len(table.columns) > len(cells) else []))
    shown.print(table)
    if len(plan["points"]) > _ROWS_SHOWN:
        shown.print(f"… and {len(plan['points']) - _ROWS_SHOWN} more; all of them with --json")
    for what, ids in plan["missing"].items():
        if ids:
            shown.print(f"{what} to be {'filled again' if what.startswith('pruned') else 'made'}: {', '.join(ids)}")
    jobs = plan["jobs"]
    shown.print(f"left to do: {jobs['train_point']} trainings, {jobs['evaluate_point']} evaluations")
    for notice in plan["notices"]:
        shown.print(f"notice: {escape(notice)}")


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make plan`."""

    def tell(workflow: Workflow) -> dict[str, Any]:
        check_name(workflow)
        return plan_of(workflow)

    return run_command("plan", "Says what a sweep would run.", tell, lambda _, plan: print_plan(plan), arguments)


if __name__ == "__main__":
    sys.exit(main())
