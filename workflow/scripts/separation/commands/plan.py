"""Preview of a sweep: `make plan`.

Prints the points with their swept values and states, the missing caches and datasets, and how each new point differs
from the nearest finished one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.commands.command_line import console, run_command, swept_columns
from separation.experiment.ids import canonical_json
from separation.experiment.key_paths import flatten
from separation.files.atomic import read_json
from separation.files.layout import (
    PointFolder,
    baseline_scores,
    cache_manifest,
    cache_store,
    split_manifest,
    system_scores,
)
from separation.planning.sweep_names import check_name
from separation.planning.workflow import Workflow

# the nearest finished point is found by comparing every new point with every finished one
_MAX_COMPARISONS = 500_000
_MAX_ROWS = 60
_JOBS = {
    "train_point": "training runs",
    "evaluate_point": "evaluations",
    "evaluate_validation": "scores on validation data",
    "score_system": "scores of other systems",
}
_WORK_LEFT = {"datasets": "mix", "caches": "fill", "pruned caches": "refill", "baselines": "evaluate"}


def plan_of(workflow: Workflow) -> dict[str, Any]:
    """Existing and missing results of a sweep.

    Returns:
        Mapping with

        - `sweep`: Name of the sweep.
        - `points`: One mapping per row of points.csv: `point`, `evaluation`, `label`, `swept`, `state` (finished,
          trained, begun or new). A new point has `nearest`, the finished point with the fewest different settings, and
          `differs`, those settings; so has a trained point that lacks this evaluation, with another evaluation of it.
        - `missing`: Ids of missing datasets, caches, pruned caches and baselines.
        - `jobs`: Number of training runs, evaluations, scores on the validation split and scores of other systems
          left; the last two only if there are any.
        - `notices`: Notices about the experiment file.
    """
    artifacts = workflow.settings.artifacts
    finished = _finished_points(artifacts)
    flat_finished = {point: _leaves(spec) for point, spec in finished.items()}
    flat_new: dict[str, frozenset] = {}
    rows = []
    new = [point for point in workflow.trainings if point not in finished]
    compare = bool(finished) and len(new) * len(finished) <= _MAX_COMPARISONS
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
            job, _ = workflow.evaluations[point, evaluation]
            entry |= _nearest(_leaves(json.loads(job.spec)), _finished_evaluations(folder))
        rows.append(entry)
    states = {row["point"]: row["state"] for row in rows}
    return {
        "sweep": workflow.experiment.name,
        "points": rows,
        "missing": _missing(workflow),
        "jobs": {
            "train_point": sum(state in ("new", "begun") for state in states.values()),
            "evaluate_point": sum(row["state"] != "finished" for row in rows),
            **_other_scores_left(workflow),
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


def _other_scores_left(workflow: Workflow) -> dict[str, int]:
    """The jobs left, by rule, of scores that choose among points and of other programs' estimates."""
    artifacts = workflow.settings.artifacts
    scores = {
        "evaluate_validation": [
            PointFolder(artifacts / point).validation(evaluation).scores for point, evaluation in workflow.validations
        ],
        "score_system": [system_scores(artifacts, system) for system in workflow.systems],
    }
    return {rule: sum(not path.exists() for path in paths) for rule, paths in scores.items() if paths}


def _finished_points(artifacts: Path) -> dict[str, Any]:
    """The specs of all trained points below `artifacts`, by id."""
    specs = {}
    if not artifacts.is_dir():
        return specs
    with os.scandir(artifacts) as entries:
        for entry in entries:
            folder = PointFolder(Path(entry.path))
            if folder.best_checkpoint.exists() and folder.spec.exists():
                specs[entry.name] = read_json(folder.spec)
    return specs


def _finished_evaluations(folder: PointFolder) -> dict[str, frozenset]:
    return {
        evaluation.id: _leaves(read_json(evaluation.spec))
        for evaluation in folder.evaluations()
        if evaluation.spec.exists() and evaluation.scores.exists()
    }


def _leaves(spec: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((key, canonical_json(value)) for key, value in flatten(spec).items())


def _nearest(new: frozenset, finished: Mapping[str, frozenset]) -> dict[str, Any]:
    """The finished point with the fewest different keys, and those keys with both values."""
    if not finished:
        return {}
    nearest = min(sorted(finished), key=lambda point: len(finished[point] ^ new))
    now, then = dict(new - finished[nearest]), dict(finished[nearest] - new)
    differs = {
        key: {"now": json.loads(now.get(key, "null")), "then": json.loads(then.get(key, "null"))}
        for key in sorted({*now, *then})
    }
    return {"nearest": nearest, "differs": differs}


def print_plan(plan: Mapping[str, Any]) -> None:
    """Prints the plan of `plan_of` as a table."""
    from rich.markup import escape
    from rich.table import Table

    terminal = console()
    names = swept_columns(plan["points"])
    table = Table(title=f"{plan['sweep']}: {len(plan['points'])} points", title_justify="left")
    table.add_column("state")
    for name in names.values():
        table.add_column(escape(name), overflow="fold")
    table.add_column("point", overflow="fold")
    if any(row.get("differs") for row in plan["points"]):
        table.add_column("differs from the nearest finished one in", overflow="fold")
    for row in plan["points"][:_MAX_ROWS]:
        differs = ", ".join(
            f"{key}: {canonical_json(pair['then'])} → {canonical_json(pair['now'])}"
            for key, pair in row.get("differs", {}).items()
        )
        values = [escape(canonical_json(row["swept"][key])) if key in row["swept"] else "" for key in names]
        cells = [row["state"], *values, row["point"]]
        table.add_row(*cells, *([escape(differs)] if len(table.columns) > len(cells) else []))
    terminal.print(table)
    if len(plan["points"]) > _MAX_ROWS:
        terminal.print(f"… and {len(plan['points']) - _MAX_ROWS} more; json=1 prints all of them")
    for kind, ids in plan["missing"].items():
        if ids:
            terminal.print(f"{kind} to {_WORK_LEFT[kind]}: {', '.join(ids)}")
    jobs = plan["jobs"]
    left = [f"{jobs[rule]} {name}" for rule, name in _JOBS.items() if rule in jobs]
    terminal.print(f"left to do: {', '.join(left)}")
    for notice in plan["notices"]:
        terminal.print(f"notice: {escape(notice)}")


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make plan`."""

    def query(workflow: Workflow) -> dict[str, Any]:
        check_name(workflow)
        return plan_of(workflow)

    return run_command("plan", "Show what a sweep would run.", query, lambda _, plan: print_plan(plan), arguments)


if __name__ == "__main__":
    sys.exit(main())
