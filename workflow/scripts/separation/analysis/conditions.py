"""Scores by the conditions under which mixtures were made: at which levels, overlaps or pitches does a model fail?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.sweep_tables import metric_columns
from separation.files.score_table import SCORE_KEYS, UNIT

#: values of one kind are put into so many bins of equal counts
BINS = 4
#: conditions with more different words than that (file names) are left out
MOST_WORDS = 12
#: how a mixture's own SNR of a source is called, which follows from scores: how loud the source is in the mixture
INPUT = "input_snr"
COLUMNS = [
    *("condition", "value", "from", "to", "point", "evaluation", "metric", "mean", "low", "high"),
    *("items", "songs"),
]


def condition_columns(scores: pd.DataFrame) -> list[str]:
    """The columns of a score table that tell how mixtures were made and that vary within it.

    `songs`, `cluster` and other names of single files are left out, and so is what has one value everywhere.
    """
    metrics = set(metric_columns(scores))
    names = [name for name in scores.columns if name not in {*SCORE_KEYS, *metrics, "songs", "cluster"}]
    found = []
    for name in names:
        values = scores[name].dropna()
        distinct = values.nunique()
        if distinct > 1 and (_is_number(values) or distinct <= MOST_WORDS):
            found.append(name)
    return found


def analyze_conditions(
    scores: pd.DataFrame, rows: list[tuple[str, str]], metric: str, *, seed: int = 0
) -> pd.DataFrame:
    """Means of one metric by condition.

    Args:
        scores: as `sweep_tables.read_scores` gives them.
        rows: the (point, evaluation) to look at.
        metric: its column.
        seed: of the bootstrap.

    Returns:
        COLUMNS: for each condition and each of its values (a word, or a range `from` <= value < `to`, the last one
        closed) and each row the mean over items and sources with its cluster bootstrap interval, and how many items and
        songs it stands on. Ranges hold equal shares of the units. `input_snr` is the source's SNR in the mixture.
    """
    chosen = scores[scores.set_index(["point", "evaluation"]).index.isin(rows)]
    if {"SNR", "SNRi"} <= set(chosen.columns):
        # what the estimate gained over the mixture is known, so what the mixture had is, too
        chosen = chosen.assign(**{INPUT: chosen["SNR"] - chosen["SNRi"]})
    found: list[dict] = []
    for condition in condition_columns(chosen):
        # equal items in every row, so that bins are the same for all
        units = chosen.drop_duplicates(UNIT).set_index(UNIT)[condition]
        bins = _bins(units)
        places = pd.MultiIndex.from_frame(chosen[UNIT])
        for value, low, high, inside in bins:
            members = units.index[inside]
            part = chosen[places.isin(members)]
            matrix = part.pivot(index=UNIT, columns=["point", "evaluation"], values=metric)
            clusters = part.drop_duplicates(UNIT).set_index(UNIT)["cluster"].reindex(matrix.index).to_numpy()
            interval = statistics.bootstrap_mean(matrix.to_numpy(), clusters, seed=seed)
            items = len(matrix.index.droplevel("source").unique())
            for place, (point, evaluation) in enumerate(matrix.columns):
                row = {"condition": condition, "value": value, "from": low, "to": high}
                row |= {"point": point, "evaluation": evaluation, "metric": metric}
                row |= {"mean": interval.mean[place], "low": interval.low[place], "high": interval.high[place]}
                found.append(row | {"items": items, "songs": len(np.unique(clusters))})
    return pd.DataFrame(found, columns=COLUMNS)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _bins(values: pd.Series) -> list[tuple[str, float, float, np.ndarray]]:
    """Each bin as its name, its ends (NaN for words) and which values are in it."""
    known = values.dropna()
    if not _is_number(known) or known.nunique() <= BINS:
        nothing = float("nan")
        return [(_word(word), nothing, nothing, (values == word).to_numpy()) for word in sorted(known.unique())]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    bins = []
    for place, (low, high) in enumerate(pairwise(edges)):
        last = place == len(edges) - 2
        inside = (values >= low) & ((values <= high) if last else (values < high))
        bins.append((f"{low:.3g} to {high:.3g}", float(low), float(high), inside.to_numpy()))
    return bins


def _word(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
