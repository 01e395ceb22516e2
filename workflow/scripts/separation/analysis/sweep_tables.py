"""Readers of a sweep's tables: points, scores, summary and histories."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from separation.analysis.statistics import mean_of_scores
from separation.files.layout import PointFolder
from separation.files.score_table import BASELINES, METRIC_NAME, SCORE_KEYS, UNIT

# Columns of points.csv that are not swept keys; `baselines` names the evaluation of the baselines if there are several
POINT_COLUMNS = ("point", "label", "block", "seed", "group", "evaluation", "baselines")
PRIMARY_METRICS = ("SI-SDRi", "SI-SDR", "SDRi", "SDR")


def to_csv_text(value: object) -> str:
    """A swept value as written in points.csv: strings unchanged, others as JSON, so that null differs from missing."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def read_points(points_csv: Path) -> pd.DataFrame:
    """Reads points.csv, every column as strings; '' means that a point does not have the key."""
    points = pd.read_csv(points_csv, dtype=str, keep_default_na=False)
    if "evaluation" not in points:
        points["evaluation"] = ""
    return points


def swept_keys(points: pd.DataFrame) -> list[str]:
    """The swept dotted keys of points.csv, in the order of their columns."""
    return [column for column in points.columns if column not in POINT_COLUMNS]


def varying_keys(points: pd.DataFrame) -> list[str]:
    """The swept keys with more than one value among the points."""
    return [key for key in swept_keys(points) if points[key].nunique() > 1]


def value_order(values: pd.Series | list[str]) -> list[str]:
    """The distinct values in reading order: missing first, then numbers by size, then words alphabetically."""

    def rank(value: str) -> tuple:
        number = as_number(value)
        return (value != "", number is None, number if number is not None else 0.0, value)

    return sorted(set(values), key=rank)


def as_number(value: str) -> float | None:
    """The finite number that a string represents, or None."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def metric_columns(scores: pd.DataFrame) -> list[str]:
    """The metrics of a score table, identified by their upper-case names."""
    return [
        column
        for column in scores.columns
        if column not in SCORE_KEYS
        and METRIC_NAME.fullmatch(column)
        and pd.api.types.is_numeric_dtype(scores[column])
        and not pd.api.types.is_bool_dtype(scores[column])
    ]


def primary_metric(metrics: list[str]) -> str:
    """The metric that points are compared by: SI-SDR improvement if it was measured."""
    for metric in (*PRIMARY_METRICS, *metrics):
        if metric in metrics:
            return metric
    raise ValueError("no metric among the scores")


def read_scores(path: Path) -> pd.DataFrame:
    """Reads scores.parquet and adds `cluster`: items of one cluster are not independent.

    The cluster of an item is its speakers if they are known, else its songs, else the item itself.
    """
    scores = pd.read_parquet(path)
    for column in SCORE_KEYS:
        scores[column] = scores[column].astype(str)
    item = scores["dataset"] + "/" + scores["split"] + "/" + scores["item"]
    known = scores["songs"].map(_songs) if "songs" in scores else pd.Series("", index=scores.index)
    speakers = [column for column in scores if column.startswith("speaker_")]
    if speakers:
        pairs = scores[speakers].apply(lambda row: "+".join(sorted(map(str, row.dropna().unique()))), axis=1)
        known = pairs.where(pairs != "", known)
    scores["cluster"] = (scores["dataset"] + "/" + known).where(known != "", item)
    return scores


def mean_scores(path: Path) -> dict[str, object]:
    """The mean scores of one evaluation: `dataset`, `split`, `count` of items, `metrics`, and `sources` (by source)."""
    scores = read_scores(path)
    metrics = metric_columns(scores)
    return {
        "dataset": scores["dataset"].iloc[0],
        "split": scores["split"].iloc[0],
        "count": int(scores["item"].nunique()),
        "metrics": {metric: float(mean_of_scores(scores[metric])) for metric in metrics},
        "sources": {
            source: {metric: float(mean_of_scores(rows[metric])) for metric in metrics}
            for source, rows in scores.groupby("source", sort=False)
        },
    }


def _songs(value: object) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        songs = [str(song) for song in value]
    else:
        songs = [] if value is None or value is pd.NA or value != value else str(value).split("+")
    # The same songs are one cluster in any order
    return "+".join(sorted(set(songs)))


def score_matrix(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per unit (dataset, split, item, source), one column per (point, evaluation), in order of appearance."""
    columns = ["point", "evaluation"]
    matrix = scores.set_index([*UNIT, *columns])[metric].astype(float).unstack(columns)
    order = scores[columns].drop_duplicates()
    return matrix.reindex(columns=pd.MultiIndex.from_frame(order)).sort_index()


def clusters_of(scores: pd.DataFrame, units: pd.Index) -> np.ndarray:
    """The cluster of each unit of a score matrix."""
    return scores.drop_duplicates(UNIT).set_index(UNIT)["cluster"].reindex(units).to_numpy()


def read_history(path: Path) -> pd.DataFrame:
    """Reads history.csv: one row per epoch with `train_loss` and `validation_loss`."""
    history = pd.read_csv(path)
    for column in ("epoch", "train_loss", "validation_loss"):
        history[column] = pd.to_numeric(history[column], errors="coerce")
    return history


def lowest_validation_loss(history: pd.DataFrame) -> float:
    """The lowest finite validation loss, NaN if there is none."""
    losses = history["validation_loss"].to_numpy(dtype=float)
    losses = losses[np.isfinite(losses)]
    return float(losses.min()) if len(losses) else float("nan")


def read_histories(points: pd.DataFrame, artifacts: Path) -> dict[str, pd.DataFrame]:
    """Reads the history of every point, by point."""
    return {point: read_history(PointFolder(artifacts / point).history) for point in points["point"].unique()}


def read_analysis(path: Path) -> pd.DataFrame:
    """Reads comparisons.csv, groups.csv or conditions.csv; an empty table if the file does not exist.

    Names, labels and values are strings; all other columns are numbers.
    """
    if not path.exists():
        return pd.DataFrame()
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    words = {"kind", "key", "point", "evaluation", "label", "against", "against_evaluation", "against_label", "metric"}
    words |= {"verdict", "condition", "value", "group"}
    for column in table.columns:
        if column not in words and "." not in column:
            table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def read_summary(path: Path, points: pd.DataFrame) -> pd.DataFrame:
    """Reads summary.csv; swept keys and names stay strings, `best` is bool."""
    texts = {column: str for column in ("point", "evaluation", "label", *swept_keys(points))}
    summary = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={})
    for column in summary.columns:
        if column == "best":
            summary[column] = summary[column].astype(str) == "True"
        elif column not in texts:
            summary[column] = pd.to_numeric(summary[column], errors="coerce")
    summary["baseline"] = summary["point"].isin(list(BASELINES))
    return summary
