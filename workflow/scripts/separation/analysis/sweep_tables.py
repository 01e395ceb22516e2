"""Readers of a sweep's tables: points, scores, summary and histories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from separation.analysis.statistics import mean_of_scores
from separation.experiment.metric_definitions import MetricDefinition
from separation.files.layout import PointFolder
from separation.files.score_table import METRIC_NAME, SCORE_KEYS, UNIT, is_reference

# Columns of points.csv that are not swept keys; `baselines` names the evaluation of the baselines if there are several
VALIDATION_COLUMNS = ("validation", "validation_metric", "validation_score")
POINT_COLUMNS = ("point", "label", "block", "seed", "group", "evaluation", "baselines", *VALIDATION_COLUMNS)
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


def validation_metric(points: pd.DataFrame) -> str:
    """The metric on the validation split by which points are chosen; "" if they are chosen by validation loss.

    It is "" too if the points do not all have a score of one metric, as points of several sweeps may.
    """
    if not set(VALIDATION_COLUMNS) <= set(points.columns):
        return ""
    metrics = set(points["validation_metric"])
    scored = points["validation_score"].map(as_number).notna().any()
    return metrics.pop() if len(metrics) == 1 and scored else ""


def selection(
    points: pd.DataFrame, losses: Mapping[str, float], definitions: Mapping[str, MetricDefinition]
) -> dict[str, float]:
    """The number by which points are chosen, lower is better; NaN where it is unknown.

    Args:
        points: points.csv.
        losses: point -> lowest validation loss.
        definitions: Definitions of metrics, for their direction.

    Returns:
        point -> validation loss, or the validation score, with the sign turned where a higher score is better; the best
        one of a point with several evaluations.
    """
    metric = validation_metric(points)
    if not metric:
        return dict(losses)
    sign = 1.0 if metric in definitions and definitions[metric].direction == "lower is better" else -1.0
    found: dict[str, float] = {}
    for point, text in zip(points["point"], points["validation_score"], strict=True):
        score = as_number(text)
        value = float("nan") if score is None else sign * score
        found[point] = float(np.fmin(found.get(point, np.nan), value))
    return found


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
    """Reads scores.parquet and adds what the items depend on: `cluster` and `cluster_unit`.

    The cluster of an item is a tuple of names, its speakers if they are known, else its songs, else the item itself;
    items that share any of them are not independent. `cluster_unit` says which: speaker, song or mixture.
    """
    scores = pd.read_parquet(path)
    for column in SCORE_KEYS:
        scores[column] = scores[column].astype(str)
    item = scores["dataset"] + "/" + scores["split"] + "/" + scores["item"]
    codes, items = pd.factorize(item)
    datasets = scores["dataset"].to_numpy()[np.unique(codes, return_index=True)[1]] if len(scores) else []
    songs = _of_items(scores["songs"], codes) if "songs" in scores else {}
    speakers = [_of_items(scores[column], codes) for column in scores if column.startswith("speaker_")]
    clusters, units = [], []
    for code, (name, dataset) in enumerate(zip(items, datasets, strict=True)):
        unit, members = "speaker", {str(column[code]) for column in speakers if code in column}
        if not members:
            unit, members = "song", _songs(songs.get(code))
        units.append(unit if members else "mixture")
        clusters.append(tuple(f"{dataset}/{member}" for member in sorted(members)) or (name,))
    scores["cluster"] = pd.Series(clusters, dtype=object).reindex(codes).to_numpy()
    scores["cluster_unit"] = pd.Series(units, dtype=object).reindex(codes).to_numpy()
    return scores


def _of_items(values: pd.Series, codes: np.ndarray) -> dict[int, object]:
    """The first known value of each item, by its code."""
    known = values.notna().to_numpy()
    _, first = np.unique(codes[known], return_index=True)
    found = values.to_numpy()[known][first]
    return dict(zip(codes[known][first].tolist(), found, strict=True))


def unit_of(scores: pd.DataFrame) -> str:
    """What the items of a score table are counted in: speaker, song or mixture (if neither is known for all)."""
    units = set(scores["cluster_unit"])
    return units.pop() if len(units) == 1 else "mixture"


def members_of(clusters: Iterable[tuple]) -> set[str]:
    """The distinct songs or speakers of clusters."""
    return {member for cluster in set(clusters) for member in cluster}


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


def _songs(value: object) -> set[str]:
    if isinstance(value, (list, tuple, np.ndarray)):
        return {str(song) for song in value}
    return set() if value is None or value == "" else set(str(value).split("+"))


def score_matrix(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per unit (dataset, split, item, source), one column per (point, evaluation), in order of appearance."""
    columns = ["point", "evaluation"]
    matrix = scores.set_index([*UNIT, *columns])[metric].astype(float).unstack(columns)
    order = scores[columns].drop_duplicates()
    return matrix.reindex(columns=pd.MultiIndex.from_frame(order)).sort_index()


def clusters_of(scores: pd.DataFrame, units: pd.Index) -> np.ndarray:
    """The cluster of each unit of a score matrix, as `read_scores` gives it."""
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
    words |= {"verdict", "condition", "value", "group", "family", "question", "unit", "network"}
    for column in table.columns:
        if column == "best":
            table[column] = table[column] == "True"
        elif column not in words and "." not in column:
            table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def read_summary(path: Path, points: pd.DataFrame) -> pd.DataFrame:
    """Reads summary.csv; swept keys and names stay strings, `best` is bool."""
    texts = {
        column: str for column in ("point", "evaluation", "label", "validation_metric", "data", *swept_keys(points))
    }
    summary = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={})
    for column in summary.columns:
        if column == "best":
            summary[column] = summary[column].astype(str) == "True"
        elif column not in texts:
            summary[column] = pd.to_numeric(summary[column], errors="coerce")
    summary["baseline"] = summary["point"].map(is_reference)
    return summary
