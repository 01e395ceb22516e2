"""State of every point of a sweep: `make status`.

Reads only the points' folders, so that it works at any time, beside a running workflow, and without torch.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.commands.command_line import console, run_command, swept_columns
from separation.files.layout import PointFolder
from separation.planning.workflow import Workflow
from separation.training.progress_file import is_running, read_progress, rough_duration

# in the order of the totals
STATES = ("running", "stopped", "failed", "interrupted", "waiting", "trained", "evaluated")


def status_of(workflow: Workflow) -> list[dict[str, Any]]:
    """The state of every point and evaluation, in the sweep's order.

    Returns:
        Mappings with `point`, `evaluation`, `swept` (value by key), `state` (one of STATES), `epoch`, `num_epochs`,
        `train_loss`, `validation_loss` (the lowest so far), `seconds_left` and `device`; None where unknown.
    """
    states = []
    for row in workflow.rows:
        folder = PointFolder(workflow.settings.artifacts / row.point)
        state = {"point": row.point, "evaluation": row.evaluation, "swept": row.swept}
        states.append(state | _state_of(folder, folder.evaluation(row.evaluation).scores))
    return states


def _state_of(folder: PointFolder, scores: Path) -> dict[str, Any]:
    progress, epochs = read_progress(folder.progress), _read_epochs(folder.history)
    best = min((float(epoch["validation_loss"]) for epoch in epochs), default=None)
    running = progress is not None and is_running(progress)
    if running:
        state = "running"
    elif folder.best_checkpoint.exists():
        state = "evaluated" if scores.exists() else "trained"
    elif progress is None:
        state = "waiting"
    else:
        # a killed job leaves the progress file of a running one
        state = progress.state if progress.state in ("stopped", "failed") else "interrupted"
    return {
        "state": state,
        "epoch": progress.epoch if running else len(epochs) or None,
        "num_epochs": progress.num_epochs if progress else None,
        "train_loss": progress.loss if running else float(epochs[-1]["train_loss"]) if epochs else None,
        "validation_loss": best,
        "seconds_left": progress.seconds_left if running else None,
        "device": progress.device if progress else None,
    }


def _read_epochs(history: Path) -> list[dict[str, str]]:
    try:
        with history.open(newline="", encoding="utf-8") as source:
            return list(csv.DictReader(source))
    except FileNotFoundError:
        return []


def print_status(sweep: str, points: list[Mapping[str, Any]]) -> None:
    """Prints the points of `status_of` as a table, and the number of points in each state."""
    from rich.markup import escape
    from rich.table import Table

    names = swept_columns(points)
    table = Table(title=f"{sweep}: {len(points)} points", title_justify="left")
    for column in ("state", *names.values()):
        table.add_column(escape(column), overflow="fold")
    for column in ("epoch", "train loss", "best val. loss", "time left"):
        table.add_column(column, justify="right")
    table.add_column("device")
    table.add_column("point", overflow="fold")
    for point in points:
        epoch = f"{point['epoch'] or 0}/{point['num_epochs']}" if point["num_epochs"] else ""
        losses = ["" if point[key] is None else f"{point[key]:.4f}" for key in ("train_loss", "validation_loss")]
        left = "" if point["seconds_left"] is None else rough_duration(point["seconds_left"])
        swept = [escape(json.dumps(point["swept"][key])) if key in point["swept"] else "" for key in names]
        table.add_row(point["state"], *swept, epoch, *losses, left, point["device"] or "", point["point"])
    terminal = console()
    terminal.print(table)
    counts = Counter(point["state"] for point in points)
    terminal.print(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make status`."""

    def show(workflow: Workflow, points: list[dict[str, Any]]) -> None:
        print_status(workflow.experiment.name, points)

    return run_command("status", "Show the state of every point of a sweep.", status_of, show, arguments)


if __name__ == "__main__":
    sys.exit(main())
