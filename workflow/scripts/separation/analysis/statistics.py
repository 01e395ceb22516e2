"""Intervals and comparisons of scores, as plain functions on arrays.

Scores of mixtures cut from one song resemble each other, so that 48 mixtures of 8 songs say less than 48 independent
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
# of a median, whose resamples are not sums
MEDIAN_RESAMPLES = 1000
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
    mean = mean_of_scores(np.where(np.isfinite(values), values, np.nan))
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
        ordered: (num_units,), ascending.
        clusters: (num_units,), of each, from 0.
        drawn: (num_resamples, num_clusters), how often each cluster was drawn.
    """
    if drawn.shape[1] > len(ordered) / 20:
        total = drawn.astype(np.float32)[:, clusters].cumsum(axis=1)
        half = total[:, -1:] / 2
        return (
            ordered[(total < half).sum(axis=1)] + ordered[np.minimum((total <= half).sum(axis=1), len(ordered) - 1)]
        ) / 2
    # up to each unit, how many of each cluster there are: how many of a resample follows by one sum over the clusters
    counts = (clusters == np.arange(drawn.shape[1])[:, None]).cumsum(axis=1)
    half = (drawn @ counts[:, -1]) / 2

    def first(reaches: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """By bisection, in each resample the first unit up to which there are enough."""
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
    """The mean of one setting that was trained with several seeds: what its next training, on other songs, may reach.

    Two things vary: the songs, which all seeds share, and the seed. Their variances are added, and the degrees of
    freedom are those of Welch and Satterthwaite (F. E. Satterthwaite: "An approximate distribution of estimates of
    variance components", Biometrics Bulletin 2(6), 1946).

    Args:
        values: (num_units, num_seeds); a unit that lacks a seed is left out.
        clusters: (num_units,), one integer or name per unit.

    Returns:
        mean; lower and upper end of its interval, which counts the songs alone where there is one seed, and is NaN
        where there is one song; standard deviation of the seeds' means, NaN where there is one seed.
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

    Songs are paired, seeds are not: seed 0 of one setting has nothing to do with seed 0 of another. Variances are added
    as in `mean_over_seeds`.

    Args:
        first: (num_units, num_seeds); second: (num_units, any number of seeds).
        clusters: (num_units,).
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
    """The variance of a mean whose units come in clusters, by linearisation, and its degrees of freedom."""
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
    floor, ceiling = mean_of_scores(mixture[finite]), mean_of_scores(oracle[finite])
    if ceiling <= floor:
        return float("nan")
    return float((mean_of_scores(score[finite]) - floor) / (ceiling - floor))
