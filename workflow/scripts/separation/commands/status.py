"""How far the points of a sweep are: what `make status` prints.

Read from the points' folders alone, so that it can be asked at any time, beside a running workflow, and without torch.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.commands.command_line import console, run_command, short_names
from separation.files.layout import PointFolder
from separation.planning.workflow import Workflow
from separation.training.progress_file import duration, is_running, read_progress

#: in the order in which they are counted
STATES = ("running", "stopped", "failed", "interrupted", "waiting", "trained", "evaluated")


def status_of(workflow: Workflow) -> list[dict[str, Any]]:
    """One row per point and evaluation, in the sweep's order.

    Returns:
        rows with point, evaluation, swept (key: value), state (see STATES), epoch, num_epochs, train_loss,
        validation_loss (the lowest so far), seconds_left and device; None where it is not known.
    """
    rows = []
    for row in workflow.rows:
        folder = PointFolder(workflow.settings.artifacts / row.point)
        known = {"point": row.point, "evaluation": row.evaluation, "swept": row.swept}
        rows.append(known | _status(folder, folder.evaluation(row.evaluation).scores))
    return rows


def _status(folder: PointFolder, scores: Path) -> dict[str, Any]:
    progress, epochs = read_progress(folder.progress), _epochs(folder.history)
    best = min((float(epoch["validation_loss"]) for epoch in epochs), default=None)
    trained = folder.best_checkpoint.exists()
    running = progress is not None and is_running(progress)
    if running:
        state = "running"
    elif trained:
        state = "evaluated" if scores.exists() else "trained"
    elif progress is None:
        state = "waiting"
    else:
        # killed, where it did not even say so
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


def _epochs(history: Path) -> list[dict[str, str]]:
    try:
        with history.open(newline="", encoding="utf-8") as source:
            return list(csv.DictReader(source))
    except FileNotFoundError:
        return []


def print_status(sweep: str, rows: list[Mapping[str, Any]]) -> None:
    """Shows the rows as a table, and how many there are of each state."""
    from rich.markup import escape
    from rich.table import Table

    shown = console()
    names = short_names(row["swept"] for row in rows)
    table = Table(title=f"{sweep}: {len(rows)} points", title_justify="left")
    for column in ("state", *names.values()):
        table.add_column(escape(column), overflow="fold")
    for column in ("epoch", "train loss", "best val. loss", "time left"):
        table.add_column(column, justify="right")
    table.add_column("device")
    table.add_column("point", overflow="fold")
    for row in rows:
        epoch = f"{row['epoch'] or 0}/{row['num_epochs']}" if row["num_epochs"] else ""
        losses = ["" if row[key] is None else f"{row[key]:.4f}" for key in ("train_loss", "validation_loss")]
        left = "" if row["seconds_left"] is None else duration(row["seconds_left"])
        swept = [escape(json.dumps(row["swept"][key])) if key in row["swept"] else "" for key in names]
        table.add_row(row["state"], *swept, epoch, *losses, left, row["device"] or "", row["point"])
    shown.print(table)
    counts = Counter(row["state"] for row in rows)
    shown.print(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make status`."""

    def show(workflow: Workflow, rows: list[dict[str, Any]]) -> None:
        print_status(workflow.experiment.name, rows)

    return run_command("status", "Says how far the points of a sweep are.", status_of, show, arguments)


if __name__ == "__main__":
    sys.exit(main())
