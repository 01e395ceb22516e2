"""Scores by mixing condition: the levels, overlaps or pitches at which a model fails."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from separation.analysis.clustered import interval_of_mean
from separation.analysis.sweep_tables import clusters_of, members_of, metric_columns, unit_of
from separation.files.score_table import NON_FINITE, SCORE_KEYS, UNIT

#: number of bins, with equal counts, for numbers
BINS = 4
#: conditions with more distinct words (file names) are left out
MAX_CATEGORIES = 12
#: name of the condition computed from scores: the SNR of the source in the mixture
INPUT = "input_snr"
COLUMNS = [
    *("condition", "value", "from", "to", "point", "evaluation", "metric", "mean", "low", "high"),
    *("items", "songs", "speakers"),
]


def condition_columns(scores: pd.DataFrame) -> list[str]:
    """The mixing conditions of a score table that have more than one value.

    `songs`, `cluster` and other names of single files are left out.
    """
    metrics = set(metric_columns(scores))
    others = {*SCORE_KEYS, *metrics, NON_FINITE, "songs", "cluster", "cluster_unit"}
    names = [name for name in scores.columns if name not in others]
    found = []
    for name in names:
        values = scores[name].dropna()
        distinct = values.nunique()
        if distinct > 1 and (_is_number(values) or distinct <= MAX_CATEGORIES):
            found.append(name)
    return found


def analyze_conditions(scores: pd.DataFrame, rows: list[tuple[str, str]], metric: str) -> pd.DataFrame:
    """Means of one metric by condition.

    Args:
        scores: Scores as `sweep_tables.read_scores` returns them.
        rows: The (point, evaluation) pairs to include.
        metric: Column of the metric.

    Returns:
        One row for each condition, value of it, and (point, evaluation), with COLUMNS: the mean over items and sources
        with its interval, and the numbers of items and of songs or speakers. A value is a word, or a range `from` <=
        value < `to` (the last one closed); ranges have equal counts of units. `input_snr` is the source's SNR in the
        mixture.
    """
    chosen = scores[scores.set_index(["point", "evaluation"]).index.isin(rows)]
    if {"SNR", "SNRi"} <= set(chosen.columns):
        # score minus improvement is the score of the mixture
        chosen = chosen.assign(**{INPUT: chosen["SNR"] - chosen["SNRi"]})
    found: list[dict] = []
    for condition in condition_columns(chosen):
        # all rows have the same items, so that bins are the same for all
        units = chosen.drop_duplicates(UNIT).set_index(UNIT)[condition]
        bins = _bins(units)
        unit_of_row = pd.MultiIndex.from_frame(chosen[UNIT])
        for value, low, high, inside in bins:
            members = units.index[inside]
            part = chosen[unit_of_row.isin(members)]
            matrix = part.pivot(index=UNIT, columns=["point", "evaluation"], values=metric)
            clusters = clusters_of(part, matrix.index)
            interval = interval_of_mean(matrix.to_numpy(), clusters)
            items = len(matrix.index.droplevel("source").unique())
            for column, (point, evaluation) in enumerate(matrix.columns):
                row = {"condition": condition, "value": value, "from": low, "to": high}
                row |= {"point": point, "evaluation": evaluation, "metric": metric}
                row |= {"mean": interval.mean[column], "low": interval.low[column], "high": interval.high[column]}
                found.append(row | {"items": items} | {f"{unit_of(part)}s": len(members_of(clusters))})
    return pd.DataFrame(found, columns=COLUMNS)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _bins(values: pd.Series) -> list[tuple[str, float, float, np.ndarray]]:
    """Each bin as its name, its ends (NaN for words) and a mask of the values in it."""
    known = values.dropna()
    if not _is_number(known) or known.nunique() <= BINS:
        nan = float("nan")
        return [(_word(word), nan, nan, (values == word).to_numpy()) for word in sorted(known.unique())]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    bins = []
    for index, (low, high) in enumerate(pairwise(edges)):
        last = index == len(edges) - 2
        inside = (values >= low) & ((values <= high) if last else (values < high))
        bins.append((f"{low:.3g} to {high:.3g}", float(low), float(high), inside.to_numpy()))
    return bins


def _word(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
