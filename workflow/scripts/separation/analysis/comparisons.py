"""Paired comparisons of the points of a sweep, on the same sources of the same items."""

from __future__ import annotations

import logging
from itertools import combinations

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.clustered import Estimate
from separation.analysis.families import Compared
from separation.analysis.statistics import mean_of_scores
from separation.analysis.sweep_tables import value_order, varying_keys
from separation.files.score_table import BASELINES, is_system, reference_label

log = logging.getLogger(__name__)

# Up to this many points, each is compared with every other
MAX_POINTS_FOR_ALL_PAIRS = 20
NEVER_MET = "never met with all else equal"
COMPARISON_COLUMNS = [
    *("kind", "family", "question", "key", "point", "evaluation", "label", "against", "against_evaluation"),
    *("against_label", "metric", "difference", "difference_low", "difference_high", "p_value", "p_adjusted", "unit"),
    *("effect_size", "share_better", "items", "songs", "speakers", "matched_pairs", "pairs_better", "verdict"),
]

Row = tuple[str, str]  # (point, evaluation): one column of a score matrix


def baselines_for(points: pd.DataFrame, row: Row, matrix: pd.DataFrame) -> dict[str, Row]:
    """The baselines and systems to compare a row with: name -> its row.

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
    systems = [name for name in dict.fromkeys(point for point, _ in matrix.columns) if is_system(name)]
    for name in [*BASELINES, *systems]:
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
        clusters: Songs or speakers of each unit.
        unit: What they are: song, speaker or mixture.
    """

    def __init__(self, points: pd.DataFrame, matrix: pd.DataFrame, metric: str, clusters: np.ndarray, unit: str):
        self.points, self.matrix, self.metric, self.clusters, self.unit = points, matrix, metric, clusters, unit
        self.items = np.unique(matrix.index.droplevel("source").map("/".join), return_inverse=True)[1]
        self.labels = {
            (row.point, row.evaluation): row.label
            for row in points.itertuples()
            if (row.point, row.evaluation) in matrix.columns
        }
        self.rows = list(self.labels)

    def of_networks(self, best: str | None) -> list[Compared]:
        """Trained networks compared with the best one, and in pairs.

        Args:
            best: Id of the best point.
        """
        found = []
        winner = self.row_of(best)
        if winner is not None:
            found += self._compare([(row, winner) for row in self.rows if row != winner], "best")
        if len(self.rows) <= MAX_POINTS_FOR_ALL_PAIRS:
            found += self._compare(list(combinations(self.rows, 2)), "pair")
        return found

    def with_baselines(self, best: str | None) -> list[Compared]:
        """The best network compared with each baseline."""
        winner = self.row_of(best)
        if winner is None:
            return []
        baselines = baselines_for(self.points, winner, self.matrix)
        return self._compare([(winner, baseline) for baseline in baselines.values()], "baseline")

    def row_of(self, point: str | None) -> Row | None:
        """The first evaluation of a point; nothing chooses between several."""
        return next((row for row in self.rows if row[0] == point), None)

    def of_effects(self, reference: Row | None, *, several: bool) -> list[Compared]:
        """Main effects: each value of each swept key compared with that of the reference.

        Args:
            reference: The best point, or the best setting's first.
            several: Whether settings were trained several times.
        """
        keys = [key for key in varying_keys(self.points) if not key.endswith("seed")] if reference is not None else []
        question = statistics.SETTING if several else statistics.NETWORK
        return [one for key in keys for one in self._effects(key, reference, question)]

    def _compare(self, pairs: list[tuple[Row, Row]], kind: str) -> list[Compared]:
        if not pairs:
            return []
        first = self.matrix[[one for one, _ in pairs]].to_numpy()
        second = self.matrix[[other for _, other in pairs]].to_numpy()
        found = []
        described = self.differences(first, second)
        for (row, estimate), (one, other) in zip(described, pairs, strict=True):
            row |= {"kind": kind, "question": statistics.NETWORK, "unit": self.unit}
            row |= {"point": one[0], "evaluation": one[1], "label": self._label(one)}
            row |= {"against": other[0], "against_evaluation": other[1], "against_label": self._label(other)}
            found.append(Compared(row, estimate))
        return found

    def _label(self, row: Row) -> str:
        return self.labels.get(row) or reference_label(row[0])

    def differences(self, first: np.ndarray, second: np.ndarray) -> list[tuple[dict, Estimate]]:
        """The difference of each column: what describes it, and its estimate over songs."""
        found = statistics.paired_difference(first, second, self.items, self.clusters)
        rows = []
        for index in range(first.shape[1]):
            estimate = found.estimate.column(index)
            row = {"metric": self.metric, "items": int(found.items[index])}
            row |= {"effect_size": found.effect_size[index], "share_better": found.share_better[index]}
            rows.append((row | self.counted(int(estimate.members[0])), estimate))
        return rows

    def counted(self, members: int) -> dict[str, int]:
        """The number of songs or speakers, in its column; nothing if neither is known."""
        return {f"{self.unit}s": members} if self.unit != "mixture" else {}

    def _effects(self, key: str, reference_row: Row, question: str) -> list[Compared]:
        """Each value of a key compared with the reference, over pairs of points with all other keys equal."""
        points = self.points.set_index(["point", "evaluation"], drop=False)
        points = points.loc[[row for row in self.rows]]
        others = [other for other in varying_keys(self.points) if other != key and not other.endswith("seed")]
        others += ["seed"] if "seed" in points else []
        reference = points.loc[[reference_row], key].iloc[0]
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
            row = {"kind": "effect", "question": question, "key": key, "label": value, "against_label": reference}
            row |= {"unit": f"{self.unit} and pair of trainings", "metric": self.metric}
            if pairs:
                found.append(self._effect(pairs, row))
            elif len(values) < MAX_POINTS_FOR_ALL_PAIRS:
                found.append(Compared(row | {"items": 0, "songs": 0, "matched_pairs": 0}, None, NEVER_MET))
        return found

    def _effect(self, pairs: list[tuple[Row, Row]], row: dict) -> Compared:
        # Units that are missing from a pair are left out, because pairs would have uneven weights
        differences = np.stack(
            [
                np.mean([(self.matrix[one] - self.matrix[other]).to_numpy() for one, other in independent], axis=0)
                for independent in independent_pairs(pairs)
            ],
            axis=1,
        )
        mean = differences.mean(axis=1)[:, None]
        described, _ = self.differences(mean, np.zeros_like(mean))[0]
        whole = np.isfinite(differences).all(axis=1)
        better = int((mean_of_scores(differences[whole]) > 0).sum()) if whole.any() else 0
        row |= described | {"matched_pairs": differences.shape[1], "pairs_better": better}
        few = statistics.TOO_FEW_PAIRS if differences.shape[1] < statistics.MIN_PAIRS else ""
        return Compared(row, statistics.mean_over_trainings(differences, self.clusters), few)


def independent_pairs(pairs: list[tuple[Row, Row]]) -> list[list[tuple[Row, Row]]]:
    """Pairs grouped by trainings: pairs that share a training, as two evaluations of it do, are one group."""
    groups: list[tuple[set[str], list[tuple[Row, Row]]]] = []
    for pair in pairs:
        trainings, members = {pair[0][0], pair[1][0]}, [pair]
        apart = []
        for known, others in groups:
            if known & trainings:
                trainings, members = trainings | known, others + members
            else:
                apart.append((known, others))
        groups = [*apart, (trainings, members)]
    return [members for _, members in groups]
