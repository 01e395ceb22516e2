"""Paired comparisons of the points of a sweep, on the same sources of the same items."""

from __future__ import annotations

import logging
from itertools import combinations

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.statistics import mean_of_scores
from separation.analysis.sweep_tables import value_order, varying_keys
from separation.files.score_table import BASELINES

log = logging.getLogger(__name__)

# Up to this many points, each is compared with every other
MAX_POINTS_FOR_ALL_PAIRS = 20
NEVER_MET = "never met with all else equal"
COMPARISON_COLUMNS = [
    *("kind", "key", "point", "evaluation", "label", "against", "against_evaluation", "against_label"),
    *("metric", "difference", "difference_low", "difference_high", "effect_size", "share_better", "items"),
    *("songs", "matched_pairs", "pairs_better", "verdict"),
]

Row = tuple[str, str]  # (point, evaluation): one column of a score matrix


def baselines_for(points: pd.DataFrame, row: Row, matrix: pd.DataFrame) -> dict[str, Row]:
    """The baselines to compare a row with: baseline name -> its row.

    Only baselines of the same items count. Of several sets, the one that the point names in `baselines` is used, else
    the one of the same evaluation, else the only one.
    """
    named = (
        points.loc[(points["point"] == row[0]) & (points["evaluation"] == row[1]), "baselines"]
        if "baselines" in points
        else []
    )
    wanted = [*named, row[1]]
    has_score = np.isfinite(matrix[row].to_numpy())
    chosen = {}
    for name in BASELINES:
        candidates = [
            other
            for other in matrix.columns
            if other[0] == name and (has_score & np.isfinite(matrix[other].to_numpy())).any()
        ]
        fitting = [other for evaluation in wanted for other in candidates if other[1] == evaluation]
        if fitting or len(candidates) == 1:
            chosen[name] = (fitting or candidates)[0]
        elif candidates:
            log.warning("%s: ambiguous, %d sets of baselines match and none is named", row[0], len(candidates))
    return chosen


def lower_is_better(row: dict) -> dict:
    """A row of comparisons of a metric in which a lower score is better: only its words and shares change."""
    exchanged = {statistics.BETTER: statistics.WORSE, statistics.WORSE: statistics.BETTER}
    found = row | {"verdict": exchanged.get(row["verdict"], row["verdict"])}
    if "share_better" in row:
        found["share_better"] = 1 - row["share_better"]
    if "pairs_better" in row:
        found["pairs_better"] = row["matched_pairs"] - row["pairs_better"]
    return found


class Comparisons:
    """The paired comparisons of one sweep, on one metric.

    Args:
        points: points.csv, with evaluations filled in.
        matrix: Scores of the metric, units x (point, evaluation).
        metric: Name of the metric.
        clusters: Song or songs of each unit.
        seed: Seed of the bootstrap.
    """

    def __init__(self, points: pd.DataFrame, matrix: pd.DataFrame, metric: str, clusters: np.ndarray, seed: int):
        self.points, self.matrix, self.metric, self.clusters, self.seed = points, matrix, metric, clusters, seed
        self.items = np.unique(matrix.index.droplevel("source").map("/".join), return_inverse=True)[1]
        self.labels = {
            (row.point, row.evaluation): row.label
            for row in points.itertuples()
            if (row.point, row.evaluation) in matrix.columns
        }
        self.rows = list(self.labels)

    def compare_all(self, best: str | None) -> list[dict]:
        """All comparisons: with the best point, in pairs, with the baselines, and the effects of swept keys.

        Args:
            best: Id of the best point.
        """
        found = []
        # Nothing chooses between the evaluations of one point: the first one is used
        winner = next((row for row in self.rows if row[0] == best), None)
        if winner is not None:
            found += self._compare([(row, winner) for row in self.rows if row != winner], "best")
        if len(self.rows) <= MAX_POINTS_FOR_ALL_PAIRS:
            found += self._compare([pair for pair in combinations(self.rows, 2) if winner not in pair], "pair")
        if winner is not None:
            baselines = baselines_for(self.points, winner, self.matrix)
            found += self._compare([(winner, baseline) for baseline in baselines.values()], "baseline")
            for key in varying_keys(self.points):
                found += self._effects(key, winner)
        return found

    def _compare(self, pairs: list[tuple[Row, Row]], kind: str) -> list[dict]:
        if not pairs:
            return []
        first = self.matrix[[one for one, _ in pairs]].to_numpy()
        second = self.matrix[[other for _, other in pairs]].to_numpy()
        found = self._differences(first, second)
        for row, (one, other) in zip(found, pairs, strict=True):
            row |= {"kind": kind, "point": one[0], "evaluation": one[1], "label": self._label(one)}
            row |= {"against": other[0], "against_evaluation": other[1], "against_label": self._label(other)}
        return found

    def _label(self, row: Row) -> str:
        return self.labels.get(row) or BASELINES.get(row[0], row[0])

    def _differences(self, first: np.ndarray, second: np.ndarray) -> list[dict]:
        found = statistics.paired_difference(first, second, self.items, self.clusters, seed=self.seed)
        rows = []
        for index in range(first.shape[1]):
            mean, low, high = (getattr(found.difference, name)[index] for name in ("mean", "low", "high"))
            row = {"metric": self.metric, "difference": mean, "difference_low": low, "difference_high": high}
            row |= {"effect_size": found.effect_size[index], "share_better": found.share_better[index]}
            row |= {"items": int(found.items[index]), "songs": int(found.clusters[index])}
            rows.append(row | {"verdict": statistics.verdict(mean, low, high)})
        return rows

    def _effects(self, key: str, winner: Row) -> list[dict]:
        """Each value of a key compared with the best point's value, over pairs of points with all other keys equal."""
        points = self.points.set_index(["point", "evaluation"], drop=False)
        points = points.loc[[row for row in self.rows]]
        others = [other for other in varying_keys(self.points) if other != key]
        # Points are paired by seed, unless the key is the seed
        others += ["seed"] if "seed" in points and not key.endswith("seed") else []
        reference = points.loc[[winner], key].iloc[0]
        settings = points[others].agg(tuple, axis=1) if others else pd.Series([()] * len(points), index=points.index)
        partners: dict[tuple, list[Row]] = {}
        for row in points.index[points[key] == reference]:
            partners.setdefault(settings[row], []).append(row)
        values = [value for value in value_order(points[key]) if value != reference]
        found = []
        for value in values:
            pairs = [
                (one, other) for one in points.index[points[key] == value] for other in partners.get(settings[one], [])
            ]
            if pairs:
                differences = [self.matrix[one] - self.matrix[other] for one, other in pairs]
                # Units that are missing from a pair are left out, because pairs would have uneven weights
                mean = np.mean([difference.to_numpy() for difference in differences], axis=0)[:, None]
                row = self._differences(mean, np.zeros_like(mean))[0]
                row["pairs_better"] = sum(int(mean_of_scores(difference) > 0) for difference in differences)
            elif len(values) < MAX_POINTS_FOR_ALL_PAIRS:
                row = {"metric": self.metric, "items": 0, "songs": 0, "verdict": NEVER_MET}
            else:
                continue
            row |= {"kind": "effect", "key": key, "label": value, "against_label": reference}
            found.append(row | {"matched_pairs": len(pairs)})
        return found
