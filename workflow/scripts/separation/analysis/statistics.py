"""Comparisons of scores and the words of their verdicts, as plain functions on arrays.

Two questions are kept apart. Is this trained network better on data like these? Its scores vary with the songs or
speakers of the test set. Is this setting better when it is trained again? Its scores vary with the training as well,
which only several trainings of it can show.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from separation.analysis.clustered import CONFIDENCE, Estimate, estimate_means

# With fewer songs (speakers, mixtures) or matched pairs of trainings, no verdict is given
MIN_MEMBERS = 5
MIN_PAIRS = 3
# Fewer trainings of a setting show too little of how far seeds differ
MIN_TRAININGS = 3

NO_DIFFERENCE = "no difference shown"
BETTER = "better"
WORSE = "worse"
NOTHING_IN_COMMON = "no mixture in common"
TOO_FEW_PAIRS = "too few pairs of trainings to tell"
TOO_FEW_TRAININGS = "too few trainings to tell"

# What a comparison is about
NETWORK = "network"
SETTING = "setting"


def too_few(unit: str) -> str:
    """The verdict on fewer than MIN_MEMBERS songs, speakers or mixtures."""
    return f"too few {unit}s to tell"


@dataclass(frozen=True)
class PairedDifference:
    """Result of `paired_difference`; arrays have shape (num_columns,).

    `effect_size` is Cohen's d_z, the mean difference over the standard deviation of the differences of single items;
    `share_better` is the share of items on which the first is better, `items` is the number compared.
    """

    estimate: Estimate
    effect_size: np.ndarray
    share_better: np.ndarray
    items: np.ndarray


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


def paired_difference(
    first: np.ndarray, second: np.ndarray, items: np.ndarray, clusters: Sequence[Hashable] | np.ndarray
) -> PairedDifference:
    """Compares columns of scores unit by unit: `first` minus `second`.

    Args:
        first, second: Shape (num_units, num_columns), or `second` of shape (num_units, 1); a unit is one source of
            one item, and only units with both scores are compared.
        items: Item of each unit, shape (num_units,).
        clusters: Song of each unit, or a tuple of its songs or speakers; see `clustered.memberships`.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    names, groups = np.unique(np.asarray(items), return_inverse=True)
    sums, counts = group_sums(differences, groups, len(names))
    of_items = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    num_items = (counts > 0).sum(axis=0)
    known = np.where(counts > 0, of_items, 0.0)
    mean = np.divide(known.sum(axis=0), num_items, out=np.full(len(num_items), np.nan), where=num_items > 0)
    squares = np.where(counts > 0, (known - mean) ** 2, 0.0).sum(axis=0)
    deviation = np.sqrt(np.divide(squares, num_items - 1, out=np.full_like(mean, np.nan), where=num_items > 1))
    effect_size = np.divide(mean, deviation, out=np.full_like(mean, np.nan), where=deviation > 0)
    share_better = np.divide((known > 0).sum(axis=0), num_items, out=np.full_like(mean, np.nan), where=num_items > 0)
    return PairedDifference(estimate_means(differences, clusters), effect_size, share_better, num_items)


def mean_over_trainings(values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> Estimate:
    """The mean over several trainings, as an estimate for the next training on other songs.

    Songs, which all trainings share, and trainings vary. Their variances are added, and the degrees of freedom are
    those of F. E. Satterthwaite ("An approximate distribution of estimates of variance components", Biometrics
    Bulletin 2(6), 1946), but no more than those of the trainings: with few trainings, their spread may look small by
    chance, and the approximation then trusts it too much.

    Args:
        values: Shape (num_units, num_trainings); units without a score of every training are left out. A training may
            also be a pair of trainings, with the difference of their scores.
        clusters: Song of each unit, or a tuple; see `clustered.memberships`.

    Returns:
        An estimate of one column. With one training, it covers songs alone.
    """
    values, clusters = _complete(values, clusters)
    return _with_trainings(estimate_means(values.mean(axis=1)[:, None], clusters), [values], None)


@dataclass(frozen=True)
class PooledSpread:
    """The variance between trainings of one setting, averaged over settings, and its degrees of freedom."""

    variance: float
    degrees: int

    @classmethod
    def of(cls, settings: Sequence[np.ndarray]) -> PooledSpread | None:
        """Pools settings of shape (num_units, num_trainings) each; None if none was trained several times."""
        known = [values[np.isfinite(values).all(axis=1)].mean(axis=0) for values in settings if values.shape[1] > 1]
        known = [means for means in known if np.isfinite(means).all()]
        degrees = sum(len(means) - 1 for means in known)
        if not degrees:
            return None
        return cls(sum(float(np.square(means - means.mean()).sum()) for means in known) / degrees, degrees)


def difference_over_trainings(
    first: np.ndarray,
    second: np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray,
    pooled: PooledSpread | None = None,
) -> Estimate:
    """Mean of `first` minus mean of `second`, two settings that were each trained several times.

    Songs are paired, trainings are not: seed 0 of one setting is unrelated to seed 0 of another. Variances are added
    as in `mean_over_trainings`. With `pooled`, a setting's variance between trainings is its own or that of all
    settings of the sweep, whichever is larger: three trainings alone often look more alike than they are.

    Args:
        first: Shape (num_units, num_trainings).
        second: Shape (num_units, any number of trainings); one training is a fixed reference, such as a baseline.
        clusters: Song of each unit, or a tuple; see `clustered.memberships`.
        pooled: Spread of all settings of the sweep.
    """
    width = first.shape[1]
    both, clusters = _complete(np.concatenate([first, second], axis=1), clusters)
    one, other = both[:, :width], both[:, width:]
    difference = (one.mean(axis=1) - other.mean(axis=1))[:, None]
    return _with_trainings(estimate_means(difference, clusters), [one, other], pooled)


def spread_of_trainings(values: np.ndarray) -> float:
    """The standard deviation of the trainings' means, NaN for one training; `values` as in `mean_over_trainings`."""
    values, _ = _complete(values, np.zeros(len(values)))
    return float(values.mean(axis=0).std(ddof=1)) if values.shape[1] > 1 and len(values) else float("nan")


def _complete(values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> tuple[np.ndarray, list[Hashable]]:
    values = np.asarray(values, dtype=np.float64)
    whole = np.isfinite(values).all(axis=1)
    return values[whole], [cluster for cluster, kept in zip(clusters, whole, strict=True) if kept]


def _with_trainings(of_songs: Estimate, trainings: list[np.ndarray], pooled: PooledSpread | None) -> Estimate:
    several = [values for values in trainings if values.shape[1] > 1 and len(values)]
    if not several:
        return of_songs
    own = [float(values.mean(axis=0).var(ddof=1)) for values in several]
    if pooled is None:
        parts = [(one / values.shape[1], values.shape[1] - 1) for one, values in zip(own, several, strict=True)]
    else:
        larger = [max(one, pooled.variance) / values.shape[1] for one, values in zip(own, several, strict=True)]
        parts = [(sum(larger), pooled.degrees)]
    variance = np.square(of_songs.error)
    total = variance + sum(part for part, _ in parts)
    terms = variance**2 / of_songs.degrees + sum(part**2 / degrees for part, degrees in parts)
    limit = float(sum(degrees for _, degrees in parts))
    degrees = np.divide(total**2, terms, out=np.full_like(total, limit), where=terms > 0)
    degrees = np.where(np.isnan(total), np.nan, np.minimum(degrees, limit))
    share = np.divide(variance, total, out=np.zeros_like(total), where=total > 0).max(axis=0)
    low, high = (1 + (stretch - 1) * share for stretch in (of_songs.stretch_low, of_songs.stretch_high))
    return Estimate(of_songs.mean, np.sqrt(total), degrees, low, high, of_songs.members, of_songs.independent)


def holm(p_values: ArrayLike, num_comparisons: int | None = None) -> np.ndarray:
    """p-values adjusted for a family of comparisons (S. Holm: "A simple sequentially rejective multiple test
    procedure", Scandinavian Journal of Statistics 6(2), 1979).

    The probability of at least one adjusted value below 0.05 is at most 0.05 if nothing in the family differs, whatever
    the dependence between comparisons.

    Args:
        p_values: Shape (num_comparisons,); NaN is no comparison.
        num_comparisons: Size of the family, if it has members that are not listed.

    Returns:
        The same shape, NaN where the p-value is.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    size = max(num_comparisons or 0, len(known))
    adjusted = np.full(len(p_values), np.nan)
    steps = np.minimum(1.0, (size - np.arange(len(order))) * p_values[order])
    adjusted[order] = np.maximum.accumulate(steps) if len(steps) else steps
    return adjusted


def simultaneous_confidence(num_comparisons: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each of several intervals that all hold together with probability `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(num_comparisons, 1)


def verdict(difference: float, p_adjusted: float, *, members: int, unit: str = "song") -> str:
    """The verdict on one difference: shown to be better, shown to be worse, or not shown to differ.

    Args:
        difference: Positive where the first is better; NaN if nothing was compared.
        p_adjusted: The p-value, adjusted for its family; see `holm`.
        members: Number of independent songs, speakers or mixtures that the scores come from.
        unit: What was counted: song, speaker or mixture.
    """
    if not np.isfinite(difference):
        return NOTHING_IN_COMMON
    if members < MIN_MEMBERS or not np.isfinite(p_adjusted):
        return too_few(unit)
    if p_adjusted >= 1 - CONFIDENCE:
        return NO_DIFFERENCE
    return BETTER if difference > 0 else WORSE


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
