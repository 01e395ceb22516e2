"""Groups of points that differ only in the seed: the score of a setting, averaged over its seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.sweep_tables import varying_keys

Row = tuple[str, str]  # (point, evaluation): one column of a score matrix


class SeedGroups:
    """The groups of one sweep.

    Args:
        points: points.csv, with evaluations filled in.
        matrices: metric -> units x (point, evaluation).
        clusters: Song or songs of each unit.
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
        losses: Mapping[str, float],
        oracle_shares: Mapping[Row, float],
    ):
        self._points, self._matrices, self._clusters, self._losses = points, matrices, clusters, losses
        self._oracle_shares = oracle_shares
        known = set(next(iter(matrices.values())).columns)
        names = points["group"] if "group" in points else pd.Series([""] * len(points), index=points.index)
        self.members: dict[str, list[Row]] = {}
        for index, name in names.items():
            row = (points.loc[index, "point"], points.loc[index, "evaluation"])
            if row in known:
                self.members.setdefault(name or f"{row[0]}/{row[1]}", []).append(row)
        self._keys = [key for key in varying_keys(points) if not key.endswith("seed")]

    def table(self) -> pd.DataFrame:
        """One row per group: `group`, `label`, `evaluation`, the swept keys, `seeds`, `validation_loss` (the mean over
        the seeds), for each metric `<metric>`, `<metric>_low`, `<metric>_high`, `<metric>_seed_spread`; see
        `statistics.mean_over_seeds`; and the mean `oracle_share`."""
        rows = []
        for name, members in self.members.items():
            point = self._first(members)
            row = {"group": name, "label": self.label(name), "evaluation": members[0][1]}
            row |= {key: point[key] for key in self._keys}
            row |= {"seeds": len(members), "validation_loss": self.loss(name)}
            for metric, matrix in self._matrices.items():
                found = statistics.mean_over_seeds(matrix[members].to_numpy(), self._clusters)
                names = (metric, f"{metric}_low", f"{metric}_high", f"{metric}_seed_spread")
                row |= dict(zip(names, found, strict=True))
            row["oracle_share"] = float(np.mean([self._oracle_shares.get(member, np.nan) for member in members]))
            rows.append(row)
        return pd.DataFrame(rows)

    def compare(self, metric: str) -> list[dict]:
        """Each group compared with the one of the lowest mean validation loss, if any group has several seeds."""
        if all(len(members) < 2 for members in self.members.values()):
            return []
        known = {name: self.loss(name) for name in self.members if np.isfinite(self.loss(name))}
        if not known:
            return []
        best = min(known, key=known.get)
        matrix, rows = self._matrices[metric], []
        for name, members in self.members.items():
            if name == best:
                continue
            first, second = matrix[members].to_numpy(), matrix[self.members[best]].to_numpy()
            mean, low, high = statistics.difference_over_seeds(first, second, self._clusters)
            whole = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
            row = {"kind": "group", "label": self.label(name), "against_label": self.label(best), "metric": metric}
            row |= {"point": name, "against": best, "evaluation": members[0][1]}
            row |= {"against_evaluation": self.members[best][0][1], "matched_pairs": len(members)}
            row |= {"difference": mean, "difference_low": low, "difference_high": high}
            row |= self._items(matrix, whole, first.mean(axis=1) - second.mean(axis=1))
            rows.append(row | {"verdict": statistics.verdict(mean, low, high)})
        return rows

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

    def _items(self, matrix: pd.DataFrame, whole: np.ndarray, differences: np.ndarray) -> dict[str, float]:
        """The numbers of items and songs compared, the share of items on which the first is better, the effect size."""
        items = matrix.index.droplevel("source")[whole]
        means = pd.Series(differences[whole]).groupby(items.map("/".join)).mean()
        deviation = means.std()
        return {
            "items": len(means),
            "songs": len(np.unique(self._clusters[whole])),
            "share_better": float((means > 0).mean()) if len(means) else float("nan"),
            "effect_size": float(means.mean() / deviation) if deviation > 0 else float("nan"),
        }
