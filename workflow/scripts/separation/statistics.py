"""Intervals and comparisons of scores, as plain functions on arrays.

Scores of mixtures cut from one song resemble each other, so that 48 mixtures of 8 songs say less than 48 independent
ones. All intervals here therefore resample whole clusters (songs), never single mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

CONFIDENCE = 0.95
NUM_RESAMPLES = 4000
# The bootstrapped means of that many columns are held in memory at once
COLUMNS_AT_ONCE = 500

NO_DIFFERENCE = "no difference shown"
BETTER = "better"
WORSE = "worse"
TOO_FEW = "too few songs to tell"
NOTHING_IN_COMMON = "no mixture in common"


@dataclass(frozen=True)
class Interval:
    """Means with their confidence intervals; three arrays of shape (num_columns,)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class PairedDifference:
    """What `paired_difference` found, as arrays of shape (num_columns,).

    `effect_size` is Cohen's d_z, the mean difference over the standard deviation of the differences of single items;
    `share_better` the share of items on which the first is better, `items` and `clusters` how many were compared.
    """

    difference: Interval
    effect_size: np.ndarray
    share_better: np.ndarray
    items: np.ndarray
    clusters: np.ndarray


def group_sums(values: np.ndarray, groups: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the finite values in each group.

    Args:
        values: shape (num_units, num_columns); what is not finite counts as missing.
        groups: shape (num_units,), integers below `num_groups`.

    Returns:
        sums and counts, both float64 of shape (num_groups, num_columns).
    """
    finite = np.isfinite(values)
    sums = np.zeros((num_groups, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, groups, np.where(finite, values, 0.0))
    np.add.at(counts, groups, finite)
    return sums, counts


def tail_probability(num_clusters: int, confidence: float = CONFIDENCE) -> float:
    """The quantile at which the lower end of a bootstrap interval is read.

    A plain percentile interval of few clusters is too narrow. Hesterberg's expanded percentile interval (What Teachers
    Should Know About the Bootstrap, The American Statistician 69(4), 2015) widens it as Student's t would:
    Phi(sqrt(n / (n - 1)) t_{alpha/2, n-1}).
    """
    if num_clusters < 2:
        raise ValueError(f"an interval needs at least 2 clusters, found {num_clusters}")
    degrees = num_clusters - 1
    return float(ndtr(np.sqrt(num_clusters / degrees) * stdtrit(degrees, (1 - confidence) / 2)))


def bootstrap_mean(
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Mean of each column with its cluster bootstrap interval.

    Clusters are drawn with replacement and all their units come with them. Columns are drawn alike, so that the
    intervals of points evaluated on the same items wobble together. A column with values in one cluster only has a
    mean and no interval (NaN).

    Args:
        values: shape (num_units, num_columns); what is not finite counts as missing.
        clusters: shape (num_units,), one integer per unit.
        seed: of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    names, groups = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = group_sums(values, groups, len(names))
    total = counts.sum(axis=0)
    mean = np.divide(sums.sum(axis=0), total, out=np.full(values.shape[1], np.nan), where=total > 0)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    # Points evaluated on other items have other clusters: each set of clusters is resampled for itself
    patterns, members = np.unique(counts > 0, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        present = patterns[:, index]
        num_clusters = int(present.sum())
        if num_clusters < 2:
            continue
        generator = np.random.default_rng(seed)
        weights = generator.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples)
        weights = weights.astype(np.float64)
        tail = tail_probability(num_clusters, confidence)
        columns = np.flatnonzero(members.ravel() == index)
        for start in range(0, len(columns), COLUMNS_AT_ONCE):
            some = columns[start : start + COLUMNS_AT_ONCE]
            means = (weights @ sums[np.ix_(present, some)]) / (weights @ counts[np.ix_(present, some)])
            low[some], high[some] = np.quantile(means, [tail, 1 - tail], axis=0)
    return Interval(mean, low, high)


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    items: np.ndarray,
    clusters: np.ndarray,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> PairedDifference:
    """Compares columns of scores unit by unit: `first` minus `second`.

    Args:
        first, second: shape (num_units, num_columns), or `second` of shape (num_units, 1); a unit is one source of
            one item, and only units with both scores are compared.
        items: shape (num_units,), which item a unit belongs to.
        clusters: shape (num_units,), which song(s) a unit belongs to.
        seed: of the resampling.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    interval = bootstrap_mean(differences, clusters, seed=seed, num_resamples=num_resamples, confidence=confidence)
    names, groups = np.unique(np.asarray(items), return_inverse=True)
    sums, counts = group_sums(differences, groups, len(names))
    of_items = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    num_items = (counts > 0).sum(axis=0)
    centred = np.where(counts > 0, of_items, 0.0)
    mean = np.divide(centred.sum(axis=0), num_items, out=np.full(len(num_items), np.nan), where=num_items > 0)
    squares = np.where(counts > 0, (centred - mean) ** 2, 0.0).sum(axis=0)
    deviation = np.sqrt(np.divide(squares, num_items - 1, out=np.full_like(mean, np.nan), where=num_items > 1))
    effect_size = np.divide(mean, deviation, out=np.full_like(mean, np.nan), where=deviation > 0)
    better = (np.where(counts > 0, of_items, 0.0) > 0).sum(axis=0)
    share_better = np.divide(better, num_items, out=np.full_like(mean, np.nan), where=num_items > 0)
    names, groups = np.unique(np.asarray(clusters), return_inverse=True)
    num_clusters = (group_sums(differences, groups, len(names))[1] > 0).sum(axis=0)
    return PairedDifference(interval, effect_size, share_better, num_items, num_clusters)


def verdict(difference: float, low: float, high: float) -> str:
    """The plain words for one difference: shown to be better, shown to be worse, or not shown to differ."""
    if not np.isfinite(difference):
        return NOTHING_IN_COMMON
    if not (np.isfinite(low) and np.isfinite(high)):
        return TOO_FEW
    if low > 0:
        return BETTER
    if high < 0:
        return WORSE
    return NO_DIFFERENCE


def oracle_share(score: np.ndarray, mixture: np.ndarray, oracle: np.ndarray) -> float:
    """How much of the way from the mixture to an oracle the estimates go: 0 at the mixture, 1 at the oracle.

    Args:
        score, mixture, oracle: shape (num_units,), one metric in dB; units that lack one of the three are left out.

    Returns:
        (mean score - mean mixture) / (mean oracle - mean mixture), or NaN where there is no gap to close.
    """
    finite = np.isfinite(score) & np.isfinite(mixture) & np.isfinite(oracle)
    if not finite.any():
        return float("nan")
    floor, ceiling = mixture[finite].mean(), oracle[finite].mean()
    if ceiling <= floor:
        return float("nan")
    return float((score[finite].mean() - floor) / (ceiling - floor))
