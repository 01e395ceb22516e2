"""Intervals and comparisons of scores, as plain functions on arrays.

Scores of mixtures from one song are similar, so 48 mixtures of 8 songs carry less information than 48 independent
ones. All intervals here therefore resample whole clusters (songs), never single mixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

CONFIDENCE = 0.95
NUM_RESAMPLES = 4000
# Resamples of a median, which are slower than those of a mean
MEDIAN_RESAMPLES = 1000
# Columns whose bootstrapped means are held in memory at once
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
    """Result of `paired_difference`, as arrays of shape (num_columns,).

    `effect_size` is Cohen's d_z, the mean difference over the standard deviation of the differences of single items;
    `share_better` is the share of items on which the first is better, `items` and `clusters` are the numbers compared.
    """

    difference: Interval
    effect_size: np.ndarray
    share_better: np.ndarray
    items: np.ndarray
    clusters: np.ndarray


def mean_of_scores(values: ArrayLike) -> np.ndarray:
    """The mean of scores over items and sources, each with the same weight; every table uses it.

    Args:
        values: Scores of shape (num_units,) or (num_units, num_columns); NaN counts as missing.

    Returns:
        One mean, or one per column; NaN where all scores are missing.
    """
    values = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)


def group_sums(values: np.ndarray, groups: np.ndarray, num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the finite values in each group.

    Args:
        values: Shape (num_units, num_columns); values that are not finite count as missing.
        groups: Shape (num_units,), integers below `num_groups`.

    Returns:
        Sums and counts, both float64 of shape (num_groups, num_columns).
    """
    finite = np.isfinite(values)
    sums = np.zeros((num_groups, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, groups, np.where(finite, values, 0.0))
    np.add.at(counts, groups, finite)
    return sums, counts


def tail_probability(num_clusters: int, confidence: float = CONFIDENCE) -> float:
    """The quantile of the lower end of a bootstrap interval.

    A plain percentile interval is too narrow for few clusters. Hesterberg's expanded percentile interval (What Teachers
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

    Clusters are drawn with replacement, together with all their units. All columns use the same draws, so that the
    intervals of points evaluated on the same items are comparable. A column with values in only one cluster has a mean
    and no interval (NaN).

    Args:
        values: Shape (num_units, num_columns); values that are not finite count as missing.
        clusters: Shape (num_units,), one integer per unit.
        seed: Seed of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    names, groups = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = group_sums(values, groups, len(names))
    mean = mean_of_scores(np.where(np.isfinite(values), values, np.nan))
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    # Points evaluated on other items have other clusters: each set of clusters is resampled separately
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


def bootstrap_median(
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    seed: int,
    num_resamples: int = MEDIAN_RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Median of each column with its cluster bootstrap interval; arguments as `bootstrap_mean`.

    The `mean` of the result is the median.
    """
    values = np.asarray(values, dtype=np.float64)
    _, groups = np.unique(np.asarray(clusters), return_inverse=True)
    middle, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    drawn: dict[int, np.ndarray] = {}
    for column in range(values.shape[1]):
        finite = np.isfinite(values[:, column])
        if not finite.any():
            continue
        ordered = np.sort(values[finite, column])
        middle[column] = np.median(ordered)
        _, members = np.unique(groups[finite][np.argsort(values[finite, column], kind="stable")], return_inverse=True)
        num_clusters = int(members.max()) + 1
        if num_clusters < 2:
            continue
        if num_clusters not in drawn:
            draw = np.random.default_rng(seed).multinomial
            drawn[num_clusters] = draw(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples)
        medians = _resampled_medians(ordered, members, drawn[num_clusters])
        tail = tail_probability(num_clusters, confidence)
        low[column], high[column] = np.quantile(medians, [tail, 1 - tail])
    return Interval(middle, low, high)


def _resampled_medians(ordered: np.ndarray, clusters: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The median of each resample, shape (num_resamples,).

    Args:
        ordered: Units of shape (num_units,), ascending.
        clusters: Cluster of each unit, counted from 0.
        drawn: Counts of each cluster in each resample, shape (num_resamples, num_clusters).
    """
    if drawn.shape[1] > len(ordered) / 20:
        total = drawn.astype(np.float32)[:, clusters].cumsum(axis=1)
        half = total[:, -1:] / 2
        return (
            ordered[(total < half).sum(axis=1)] + ordered[np.minimum((total <= half).sum(axis=1), len(ordered) - 1)]
        ) / 2
    # Units of each cluster up to each position; a sum over clusters then counts the units of a resample
    counts = (clusters == np.arange(drawn.shape[1])[:, None]).cumsum(axis=1)
    half = (drawn @ counts[:, -1]) / 2

    def first(reaches: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The first unit of each resample that reaches the count, by bisection."""
        low, high = np.zeros(len(drawn), dtype=np.int64), np.full(len(drawn), len(ordered) - 1)
        while (low < high).any():
            middle = (low + high) // 2
            enough = reaches(np.einsum("rc,cr->r", drawn, counts[:, middle]))
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return low

    return (ordered[first(lambda total: total >= half)] + ordered[first(lambda total: total > half)]) / 2


def mean_over_seeds(
    values: np.ndarray, clusters: np.ndarray, *, confidence: float = CONFIDENCE
) -> tuple[float, float, float, float]:
    """The mean of a setting that was trained with several seeds, with an interval for its next training on other songs.

    Songs, which all seeds share, and seeds vary. Their variances are added, and the degrees of
    freedom are those of Welch and Satterthwaite (F. E. Satterthwaite: "An approximate distribution of estimates of
    variance components", Biometrics Bulletin 2(6), 1946).

    Args:
        values: Shape (num_units, num_seeds); units without a score for every seed are left out.
        clusters: Shape (num_units,), one integer or name per unit.

    Returns:
        Mean; lower and upper end of its interval, which covers only songs if there is one seed, and is NaN if there is
        one song; standard deviation of the seeds' means, NaN if there is one seed.
    """
    values, clusters = _complete(values, clusters)
    if not len(values):
        return (float("nan"),) * 4
    mean, parts = float(mean_of_scores(values.ravel())), [_cluster_variance(values.mean(axis=1), clusters)]
    of_seeds = values.mean(axis=0)
    spread = float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else float("nan")
    if len(of_seeds) > 1:
        parts.append((spread**2 / len(of_seeds), len(of_seeds) - 1))
    half = _half_width(parts, confidence)
    return mean, mean - half, mean + half, spread


def difference_over_seeds(
    first: np.ndarray, second: np.ndarray, clusters: np.ndarray, *, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Mean of `first` minus mean of `second`, two settings trained with several seeds each, and its interval.

    Songs are paired, seeds are not: seed 0 of one setting is unrelated to seed 0 of another. Variances are added
    as in `mean_over_seeds`.

    Args:
        first: Shape (num_units, num_seeds).
        second: Shape (num_units, any number of seeds).
        clusters: Shape (num_units,).
    """
    width = first.shape[1]
    both, clusters = _complete(np.concatenate([first, second], axis=1), clusters)
    if not len(both):
        return (float("nan"),) * 3
    one, other = both[:, :width], both[:, width:]
    difference = one.mean(axis=1) - other.mean(axis=1)
    parts = [_cluster_variance(difference, clusters)]
    for seeds in (one.mean(axis=0), other.mean(axis=0)):
        if len(seeds) > 1:
            parts.append((float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1))
    half = _half_width(parts, confidence)
    mean = float(mean_of_scores(difference))
    return mean, mean - half, mean + half


def _complete(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values, dtype=np.float64)
    whole = np.isfinite(values).all(axis=1)
    return values[whole], np.asarray(clusters)[whole]


def _cluster_variance(values: np.ndarray, clusters: np.ndarray) -> tuple[float, int]:
    """The variance of a mean of clustered units, by linearisation, and its degrees of freedom."""
    names, groups = np.unique(clusters, return_inverse=True)
    residuals = np.bincount(groups, values - values.mean(), minlength=len(names))
    if len(names) < 2:
        return float("nan"), 0
    return float(len(names) / (len(names) - 1) * np.square(residuals).sum() / len(values) ** 2), len(names) - 1


def _half_width(parts: Sequence[tuple[float, int]], confidence: float) -> float:
    total = sum(variance for variance, _ in parts)
    if not np.isfinite(total) or total == 0:
        return 0.0 if total == 0 else float("nan")
    degrees = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    return float(-stdtrit(degrees, (1 - confidence) / 2) * np.sqrt(total))


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
        first, second: Shape (num_units, num_columns), or `second` of shape (num_units, 1); a unit is one source of
            one item, and only units with both scores are compared.
        items: Item of each unit, shape (num_units,).
        clusters: Song or songs of each unit, shape (num_units,).
        seed: Seed of the resampling.
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
    """The verdict on one difference: shown to be better, shown to be worse, or not shown to differ."""
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
    """The share of the gap between mixture and oracle that the estimates close: 0 at the mixture, 1 at the oracle.

    Args:
        score, mixture, oracle: Shape (num_units,), one metric in dB; units without all three are left out.

    Returns:
        (mean score - mean mixture) / (mean oracle - mean mixture), or NaN if there is no gap.
    """
    finite = np.isfinite(score) & np.isfinite(mixture) & np.isfinite(oracle)
    if not finite.any():
        return float("nan")
    floor, ceiling = mean_of_scores(mixture[finite]), mean_of_scores(oracle[finite])
    if ceiling <= floor:
        return float("nan")
    return float((mean_of_scores(score[finite]) - floor) / (ceiling - floor))
