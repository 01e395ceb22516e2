"""Shared by all metrics: ratios in decibels, silence, means without missing scores, and the order of estimates."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np

MAX_DB = 100.0  # dB, beyond the range of int16 audio
SILENCE_POWER = 1e-12  # mean power at full scale 1.0: -120 dB, below one step of 16 bits


def decibel(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """10 log10(signal / noise) of two energies, limited to +-MAX_DB; -MAX_DB without signal, at any noise."""
    ratio = np.divide(signal, noise, out=np.full(np.shape(signal), np.inf), where=np.asarray(noise) > 0)
    ratio = np.where(np.asarray(signal) > 0, ratio, 0.0)
    bound = 10 ** (MAX_DB / 10)
    return 10 * np.log10(np.clip(ratio, 1 / bound, bound))


def audible_channels(signal: np.ndarray) -> np.ndarray:
    """Which channels of a signal (..., channels, samples) are not silent; a constant is silence."""
    return np.var(signal, axis=-1) > SILENCE_POWER


def is_audible(signal: np.ndarray) -> bool:
    """Whether any channel of a signal (channels, samples) is not silent."""
    return bool(audible_channels(signal).any())


def nanmean(values: Any, axis: int | None = None) -> Any:
    """The mean of all values that are not NaN; NaN without a warning if there are none."""
    values = np.asarray(values, dtype=np.float64)
    count = (~np.isnan(values)).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def nanmedian(values: Any) -> float:
    """The median of all values that are not NaN, infinities included; NaN without a warning if there are none."""
    values = np.ravel(np.asarray(values, dtype=np.float64))
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else float("nan")


def best_order(pairs: np.ndarray) -> list[int]:
    """The estimate of each source in the order with the highest mean score, an assignment problem.

    Args:
        pairs: Score of each estimate as an estimate of each source: (sources, estimates), NaN where there is none. A
            silent source has no influence; an estimate without scores is used only where no other is left.

    Returns:
        For each source the index of its estimate.
    """
    known = pairs[np.isfinite(pairs)]
    worst = known.min() - 1000.0 if known.size else 0.0
    return best_assignment(np.where(np.isnan(pairs), worst, pairs))


def best_assignment(value: np.ndarray) -> list[int]:
    """The estimate of each source so that the sum of values is greatest: that of scipy.optimize.linear_sum_assignment.

    Args:
        value: Finite values, (sources, estimates), at least as many estimates as sources.
    """
    sources, estimates = value.shape
    # few orders are tried one by one: importing scipy.optimize takes longer than scoring a small test set
    if math.perm(estimates, sources) <= 24:
        orders = np.array(list(permutations(range(estimates), sources)))
        totals = value[np.arange(sources), orders].sum(axis=1)
        best = totals.max()
        near = totals >= best - 1e-9 * max(1.0, float(np.abs(value).max()))
        if near.sum() == 1:
            return orders[int(near.argmax())].tolist()
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(value, maximize=True)[1].tolist()
