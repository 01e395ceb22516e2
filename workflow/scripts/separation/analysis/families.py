"""Families of comparisons: adjusted p-values, simultaneous intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from separation.analysis import statistics
from separation.analysis.clustered import Estimate

# Kind of comparison -> the family whose members are judged together
FAMILIES = {
    "best": "against the best network",
    "pair": "all pairs of networks",
    "baseline": "best network against baselines",
    "effect": "main effects",
    "group": "settings",
    "group_pair": "settings",
    "group_baseline": "best setting against baselines",
}


@dataclass(frozen=True)
class Compared:
    """One comparison before its family is judged.

    Attributes:
        row: Columns of comparisons.csv that are known already.
        estimate: The difference, one column; None if nothing was compared.
        no_verdict: The verdict if the comparison cannot be judged for a reason of its own, else "".
    """

    row: dict
    estimate: Estimate | None = None
    no_verdict: str = ""


def judge(found: Sequence[Compared], unit: str, sizes: dict[str, int] | None = None) -> list[dict]:
    """Rows of comparisons.csv with `family`, `p_value`, `p_adjusted`, `difference_low`, `difference_high`, `verdict`.

    p-values are adjusted by Holm's method, and verdicts follow them. Intervals are simultaneous: all of a family hold
    together with 95 %. Holm's method may show a difference whose interval just reaches 0; the interval then ends at 0,
    which is its bound under that method (O. Guilbaud: "Simultaneous confidence regions corresponding to Holm's
    step-down procedure and other closed-testing procedures", Biometrical Journal 50(5), 2008).

    Args:
        found: Comparisons of any number of families, by their row's `kind`.
        unit: What test data are counted in: song, speaker or mixture.
        sizes: Number of comparisons of a family, if it has members that are not listed.

    Returns:
        One row for each comparison, in their order.
    """
    rows: list[dict] = [{} for _ in found]
    families = [FAMILIES[one.row["kind"]] for one in found]
    for family in dict.fromkeys(families):
        members = [index for index, name in enumerate(families) if name == family]
        p_values = np.array([_p_value(found[index]) for index in members])
        intervals = sum(found[index].estimate is not None and not found[index].no_verdict for index in members)
        size = max((sizes or {}).get(family, 0), intervals)
        adjusted = statistics.holm(p_values, size)
        confidence = statistics.simultaneous_confidence(size)
        for index, p_value, p_adjusted in zip(members, p_values, adjusted, strict=True):
            judged = _judged(found[index], float(p_adjusted), confidence, unit)
            rows[index] = {"family": family} | found[index].row | {"p_value": p_value} | judged
    return rows


def _p_value(compared: Compared) -> float:
    estimate = compared.estimate
    if estimate is None or compared.no_verdict or estimate.independent[0] < statistics.MIN_MEMBERS:
        return float("nan")
    return float(estimate.p_value()[0])


def _judged(compared: Compared, p_adjusted: float, confidence: float, unit: str) -> dict:
    if compared.estimate is None:
        return {"p_adjusted": p_adjusted, "verdict": compared.no_verdict}
    estimate = compared.estimate
    mean = float(estimate.mean[0])
    interval = estimate.interval(confidence)
    low, high = float(interval.low[0]), float(interval.high[0])
    verdict = statistics.verdict(mean, p_adjusted, members=int(estimate.independent[0]), unit=unit)
    if compared.no_verdict and verdict != statistics.NOTHING_IN_COMMON:
        low, high, verdict = float("nan"), float("nan"), compared.no_verdict
    if verdict == statistics.BETTER:
        low = max(low, 0.0)
    if verdict == statistics.WORSE:
        high = min(high, 0.0)
    row = {"difference": mean, "difference_low": low, "difference_high": high}
    return row | {"p_adjusted": p_adjusted, "verdict": verdict}
