"""Groups of points that differ only in the seed: the score of a setting, averaged over its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.clustered import estimate_means
from separation.analysis.comparisons import MAX_POINTS_FOR_ALL_PAIRS, Comparisons, Row, baselines_for
from separation.analysis.families import FAMILIES, Compared
from separation.analysis.statistics import PooledSpread
from separation.analysis.sweep_tables import varying_keys
from separation.files.score_table import reference_label


class SeedGroups:
    """The groups of one sweep.

    Args:
        points: points.csv, with evaluations filled in.
        matrices: metric -> units x (point, evaluation).
        clusters: Songs or speakers of each unit.
        unit: What they are: song, speaker or mixture.
        losses: point -> lowest validation loss.
        oracle_shares: (point, evaluation) -> share of the gap to the oracle that it closes.

    Attributes:
        members: group -> its rows with scores, in the order of the points.
    """

    def __init__(
        self,
        points: pd.DataFrame,
        matrices: Mapping[str, pd.DataFrame],
        clusters: np.ndarray,
        unit: str,
        losses: Mapping[str, float],
        oracle_shares: Mapping[Row, float],
    ):
        self._points, self._matrices, self._clusters, self._losses = points, matrices, clusters, losses
        self._oracle_shares, self._unit = oracle_shares, unit
        known = set(next(iter(matrices.values())).columns)
        names = points["group"] if "group" in points else pd.Series([""] * len(points), index=points.index)
        self.members: dict[str, list[Row]] = {}
        for index, name in names.items():
            row = (points.loc[index, "point"], points.loc[index, "evaluation"])
            if row in known:
                self.members.setdefault(name or f"{row[0]}/{row[1]}", []).append(row)
        self._keys = [key for key in varying_keys(points) if not key.endswith("seed")]

    @property
    def several(self) -> bool:
        """Whether any setting was trained several times."""
        return any(len(members) > 1 for members in self.members.values())

    @property
    def best(self) -> str | None:
        """The setting with the lowest mean validation loss of those that were trained several times, if any."""
        known = {name: self.loss(name) for name, members in self.members.items() if len(members) > 1}
        known = {name: loss for name, loss in known.items() if np.isfinite(loss)}
        return min(known, key=known.get) if known else None

    def table(self) -> pd.DataFrame:
        """One row per group: `group`, `label`, `evaluation`, the swept keys, `seeds`, `validation_loss` (the mean over
        the seeds), for each metric `<metric>`, `<metric>_low`, `<metric>_high`, `<metric>_seed_spread`; the mean
        `oracle_share`; `unit`, what the intervals allow for; `best`; `network`, its point with the lowest validation
        loss. See `statistics.mean_over_trainings`."""
        rows = []
        columns = {metric: list(matrix.columns) for metric, matrix in self._matrices.items()}
        # Of all networks at once, which is much faster than one by one; settings trained once need no more
        alone = {metric: estimate_means(matrix.to_numpy(), self._clusters) for metric, matrix in self._matrices.items()}
        for name, members in self.members.items():
            point = self._first(members)
            row = {"group": name, "label": self.label(name), "evaluation": members[0][1]}
            row |= {key: point[key] for key in self._keys}
            row |= {"seeds": len(members), "validation_loss": self.loss(name)}
            for metric, matrix in self._matrices.items():
                values = matrix[members].to_numpy()
                found = (
                    statistics.mean_over_trainings(values, self._clusters)
                    if len(members) > 1
                    else alone[metric].column(columns[metric].index(members[0]))
                )
                interval = found.interval()
                row |= {metric: found.mean[0], f"{metric}_low": interval.low[0], f"{metric}_high": interval.high[0]}
                row |= {f"{metric}_seed_spread": statistics.spread_of_trainings(values)}
            row["oracle_share"] = float(np.mean([self._oracle_shares.get(member, np.nan) for member in members]))
            row["unit"] = self._unit if len(members) < 2 else f"{self._unit} and training"
            losses = {member[0]: self._losses.get(member[0], np.nan) for member in members}
            rows.append(row | {"best": name == self.best, "network": min(losses, key=losses.get)})
        return pd.DataFrame(rows)

    def compare(self, compared: Comparisons) -> tuple[list[Compared], dict[str, int]]:
        """Settings compared over their trainings, if any was trained several times.

        The best setting was chosen by validation losses of the same trainings whose test scores are compared, so that a
        lucky training helps it in both. Comparisons with it are therefore judged as part of all pairs of settings, and
        those with baselines as if each setting had been compared.

        Args:
            compared: The sweep's comparisons on one metric.

        Returns:
            Comparisons of kind `group` (against the best setting), `group_pair` (all other pairs of up to 20 settings)
            and `group_baseline` (the best setting against baselines), and the sizes of their families.
        """
        best = self.best
        if best is None:
            return [], {}
        names = list(self.members)
        pooled = PooledSpread.of([compared.matrix[members].to_numpy() for members in self.members.values()])
        pairs = [(name, best, "group") for name in names if name != best]
        if len(names) <= MAX_POINTS_FOR_ALL_PAIRS:
            pairs += [(*pair, "group_pair") for pair in combinations([name for name in names if name != best], 2)]
        found = [self._difference(compared, pooled, *pair) for pair in pairs]
        number = sum(len(members) > 1 for members in self.members.values())
        baselines = baselines_for(self._points, self.members[best][0], compared.matrix)
        found += [
            self._difference(compared, pooled, best, baseline, "group_baseline") for baseline in baselines.values()
        ]
        return found, {
            FAMILIES["group"]: number * (number - 1) // 2,
            FAMILIES["group_baseline"]: number * len(baselines),
        }

    def _difference(
        self, compared: Comparisons, pooled: PooledSpread | None, name: str, other: str | Row, kind: str
    ) -> Compared:
        """A setting minus another, or minus a baseline."""
        matrix, members = compared.matrix, self.members[name]
        others = self.members[other] if isinstance(other, str) else [other]
        first, second = matrix[members].to_numpy(), matrix[others].to_numpy()
        described, _ = compared.differences(first.mean(axis=1)[:, None], second.mean(axis=1)[:, None])[0]
        row = {"kind": kind, "question": statistics.SETTING, "unit": f"{self._unit} and training"}
        row |= {"point": name, "evaluation": members[0][1], "label": self.label(name)}
        row |= {"against": other if isinstance(other, str) else other[0], "against_evaluation": others[0][1]}
        row["against_label"] = self.label(other) if isinstance(other, str) else reference_label(other[0])
        few = min(len(members), len(others) if isinstance(other, str) else len(members)) < statistics.MIN_TRAININGS
        estimate = statistics.difference_over_trainings(first, second, self._clusters, pooled)
        return Compared(
            row | described | {"matched_pairs": len(members)}, estimate, statistics.TOO_FEW_TRAININGS if few else ""
        )

    def loss(self, name: str) -> float:
        """The mean of the seeds' lowest validation losses; NaN if one is missing."""
        return float(np.mean([self._losses.get(point, np.nan) for point, _ in self.members[name]]))

    def label(self, name: str) -> str:
        """The swept keys except the seed, with their values; the point's own label if only the seed is swept."""
        point = self._first(self.members[name])
        settings = [f"{key.rsplit('.', 1)[-1]}={point[key]}" for key in self._keys if point[key] != ""]
        return ", ".join(settings) or point["label"]

    def _first(self, members: list[Row]) -> pd.Series:
        same = (self._points["point"] == members[0][0]) & (self._points["evaluation"] == members[0][1])
        return self._points[same].iloc[0]
