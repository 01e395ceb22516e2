"""Costs of the points of a sweep: time, device and memory."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from separation.analysis.sweep_tables import read_history
from separation.files.layout import BENCHMARKS, PointFolder, evaluation_benchmark

# costs of separating with the network, which an evaluation measures; see evaluation.network_costs
NETWORK_COSTS = ("parameters", "multiply_adds_per_second", "real_time_factor", "peak_memory_mb")
COST_COLUMNS = [
    *("point", "evaluation", "epochs", "train_seconds", "device", "memory_mb", "evaluate_seconds"),
    *NETWORK_COSTS,
]


def read_costs(points: pd.DataFrame, artifacts: Path, benchmarks: Path = BENCHMARKS) -> pd.DataFrame:
    """The known costs of each point.

    Args:
        points: Points as `separation.analysis.sweep_tables.read_points` returns them.
        artifacts: Folder of the points, with their histories and devices.
        benchmarks: Folder of Snakemake's benchmark files.

    Returns:
        One row per point and evaluation with COST_COLUMNS: `train_seconds` is the wall time of all epochs, including
        restarts; `memory_mb` the peak memory of training; `evaluate_seconds` the wall time of the job; NETWORK_COSTS
        those of separating. Unknown values are NaN or "".
    """
    trained = {point: _training(PointFolder(artifacts / point)) for point in points["point"].unique()}
    rows = []
    for row in points.drop_duplicates(["point", "evaluation"]).itertuples():
        job = evaluation_benchmark(benchmarks, row.point, row.evaluation)
        rows.append(
            {
                "point": row.point,
                "evaluation": row.evaluation,
                **trained[row.point],
                "evaluate_seconds": _seconds_of_job(job),
                **network_costs(artifacts, row.point, row.evaluation),
            }
        )
    costs = pd.DataFrame(rows, columns=COST_COLUMNS)
    costs["device"] = costs["device"].fillna("")
    numbers = [name for name in COST_COLUMNS if name not in ("point", "evaluation", "device")]
    costs[numbers] = costs[numbers].astype(float)
    return costs


def network_costs(artifacts: Path, point: str, evaluation: str) -> dict[str, float]:
    """NETWORK_COSTS of a point in one evaluation; NaN where it was not measured."""
    try:
        text = PointFolder(artifacts / point).evaluation(evaluation).costs.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        # evaluations from before costs were measured
        return dict.fromkeys(NETWORK_COSTS, math.nan)
    known = json.loads(text)
    return {name: math.nan if known.get(name) is None else float(known[name]) for name in NETWORK_COSTS}


def _training(point: PointFolder) -> dict[str, object]:
    history = read_history(point.history)
    found: dict[str, object] = {"epochs": len(history), "device": _device(point.progress)}
    for column, name, reduce in (("seconds", "train_seconds", np.sum), ("memory_mb", "memory_mb", np.max)):
        values = pd.to_numeric(history[column], errors="coerce") if column in history else pd.Series(dtype=float)
        # Without the time of an epoch, the sum would be too low
        found[name] = float(reduce(values)) if len(values) and values.notna().all() else math.nan
    return found


def _device(progress: Path) -> str:
    try:
        return str(json.loads(progress.read_text(encoding="utf-8")).get("device") or "")
    except (FileNotFoundError, json.JSONDecodeError):
        # The progress file is no result: it may be missing, and is rewritten during training
        return ""


def _seconds_of_job(benchmark: Path) -> float:
    try:
        with benchmark.open(newline="", encoding="utf-8") as source:
            rows = list(csv.DictReader(source, delimiter="\t"))
    except FileNotFoundError:
        return math.nan
    value = rows[-1].get("s", "") if rows else ""
    return float(value) if value not in ("", "-", "NA") else math.nan


def exact_duration(seconds: float) -> str:
    """Seconds as text: 42 s, 3 min 20 s, 2 h 5 min; – if unknown."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def rate_unit(costs: pd.DataFrame) -> tuple[str, float]:
    """The unit for training times and its seconds: hours if the longest training takes one or more."""
    longest = costs["train_seconds"].max()
    return ("h", 3600.0) if longest >= 3600 else ("min", 60.0)
