"""Means, medians and their intervals for scores that are not independent.

Scores of mixtures that share a song or a speaker are similar, so 48 mixtures of 8 songs carry less information than 48
independent ones. What makes units dependent are their members: the songs of a mixture, or its speakers. Two mixtures of
speakers are dependent if they share any speaker, even if no pair of speakers occurs twice.

Everything here is studentized: a mean is divided by its own standard error, which is computed from sums over whole
members, and compared with Student's t.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
# Eigenvalues are computed up to this number of members; with more, corrections for few members are negligible
MAX_MEMBERS_FOR_EIGENVALUES = 150
# Shares of the members' variance in the working models between none and all
WORKING_RATIOS = (0.0, 0.1, 1.0, 10.0, np.inf)
# Skewness of few values is underestimated; chosen by simulation, see benchmarks/false_verdicts.py
SKEWNESS_FACTOR, MAX_SKEWNESS_CORRECTION = 1.15, 1.75
# The interval of a median cannot leave the range of the members' values: with fewer members it covers too little
MIN_MEMBERS_FOR_MEDIAN = 8


@dataclass(frozen=True)
class Interval:
    """Means (or medians, or differences) with the ends of their intervals; three arrays of shape (num_columns,)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """Estimated means with what is needed for intervals and p-values.

    Attributes:
        mean: Shape (num_columns,).
        error: Standard errors under each working model, shape (num_models, num_columns); NaN where there is none.
        degrees: Degrees of freedom that go with them, same shape.
        stretch_low, stretch_high: Factors, at least 1, by which skewness widens the lower and the upper half of an
            interval; shape (num_columns,).
        members: Numbers of songs or speakers, shape (num_columns,).
        independent: The same, but those that always occur together count once, and a member of every unit not at all.
    """

    mean: np.ndarray
    error: np.ndarray
    degrees: np.ndarray
    stretch_low: np.ndarray
    stretch_high: np.ndarray
    members: np.ndarray
    independent: np.ndarray

    def column(self, index: int) -> Estimate:
        """The estimate of one column."""
        one = slice(index, index + 1)
        return Estimate(
            self.mean[one],
            self.error[:, one],
            self.degrees[:, one],
            self.stretch_low[one],
            self.stretch_high[one],
            self.members[one],
            self.independent[one],
        )

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Two-sided intervals: the widest of the working models'."""
        half = (-stdtrit(self.degrees, (1 - confidence) / 2) * self.error).max(axis=0)
        return Interval(self.mean, self.mean - half * self.stretch_low, self.mean + half * self.stretch_high)

    def p_value(self) -> np.ndarray:
        """Two-sided p-values of a mean of 0, shape (num_columns,): below 1 - confidence exactly where the interval of
        that confidence excludes 0; NaN where there is no standard error."""
        stretch = np.where(self.mean > 0, self.stretch_low, self.stretch_high)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.abs(self.mean) / (self.error * stretch)
        # Equal scores everywhere: a difference of 0 without any spread
        statistic = np.where((self.error == 0) & (self.mean == 0), 0.0, statistic)
        return (2 * stdtr(self.degrees, -statistic)).max(axis=0)


def memberships(clusters: Sequence[Hashable] | np.ndarray | pd.Series) -> sparse.csr_array:
    """The members of each unit as a matrix.

    Args:
        clusters: One entry per unit: a name or number, or a tuple of names (the songs or speakers of a mixture).

    Returns:
        Shape (num_units, num_members); a row has 1 at each of its members.
    """
    codes, names = pd.factorize(pd.Series(list(clusters), dtype=object))
    members = [tuple(dict.fromkeys(name)) if isinstance(name, tuple) else (name,) for name in names]
    columns, _ = pd.factorize(pd.Series([member for group in members for member in group], dtype=object))
    counts = np.array([len(group) for group in members], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    of_name = sparse.csr_array(
        (np.ones(len(columns)), columns, starts), shape=(len(members), columns.max(initial=-1) + 1)
    )
    return sparse.csr_array(of_name[codes]) if len(codes) else of_name


class Design:
    """Which units share which members; the number and sizes of members determine the small-sample corrections.

    The variance of a mean of N units is estimated from the sums U_m of its residuals over each member m, as
    V = sum of U_m^2 / N^2: the cluster-robust estimate if each unit has one member, and its extension to crossed
    members, such as speakers who occur in many pairs (A. C. Cameron, J. B. Gelbach, D. L. Miller: "Robust inference
    with multiway clustering", Journal of Business & Economic Statistics 29(2), 2011), without the subtraction that can
    make that estimate negative. V is biased for few or uneven members. R. M. Bell and D. F. McCaffrey ("Bias reduction
    in standard errors for linear regression with multi-stage samples", Survey Methodology 28(2), 2002) correct it, and
    give it degrees of freedom, under a working model of the scores. How similar the scores of one member are is
    unknown here, so that there are several working models, from "not at all" to "all spread is between members".
    With the matrix B = Z'Z - w w' / N of memberships Z and member sizes w, residual sums have the covariance
    ratio B^2 + B in a working model, so the eigenvalues of B give the corrections of all of them.

    Args:
        members: Result of `memberships`, for the units that have a score.
    """

    def __init__(self, members: sparse.csr_array):
        sizes = np.asarray(members.sum(axis=0)).ravel()
        self.matrix = sparse.csr_array(members[:, sizes > 0])
        self.sizes = sizes[sizes > 0]
        self.num_units, self.num_members = self.matrix.shape

    @cached_property
    def models(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Factor of the variance and degrees of freedom of each working model, and the number of independent members.

        The arrays are empty if the members leave no spread, as a single one does.
        """
        total = float(self.num_units)
        shared = sparse.csr_array(self.matrix.T @ self.matrix)
        if self.num_members <= MAX_MEMBERS_FOR_EIGENVALUES:
            values = np.linalg.eigvalsh(shared.toarray() - np.outer(self.sizes, self.sizes) / total)
            values = values[values > 1e-9 * max(self.sizes.max(initial=0.0), 1e-300)]
            trace, squares = values.sum(), np.square(values).sum()
        else:
            values = np.sort(shared.diagonal())[1:]
            trace = shared.diagonal().sum() - self.sizes @ self.sizes / total
            squares = (
                np.square(shared.data).sum()
                - 2 * self.sizes @ (shared @ self.sizes) / total
                + (self.sizes @ self.sizes / total) ** 2
            )
        if not len(values):
            return np.zeros(0), np.zeros(0), 1
        factors, degrees = [], []
        for ratio in WORKING_RATIOS:
            of_members, of_units = (1.0, 0.0) if np.isinf(ratio) else (ratio / values.mean(), 1.0)
            spread = of_members * values**2 + of_units * values
            truth = of_members * (self.sizes @ self.sizes) + of_units * total
            factors.append(truth / (of_members * squares + of_units * trace))
            degrees.append(spread.sum() ** 2 / np.square(spread).sum())
        return np.array(factors), np.array(degrees), len(values) + 1

    def estimate(self, values: np.ndarray) -> Estimate:
        """The means of columns without missing values, shape (num_units, num_columns)."""
        mean = values.mean(axis=0)
        sums = self.matrix.T @ (values - mean)
        squares = np.square(sums).sum(axis=0)
        factors, degrees, independent = self.models
        counts = (np.full(len(mean), self.num_members), np.full(len(mean), independent))
        if not len(factors):
            nothing = np.full((1, len(mean)), np.nan)
            ones = np.ones_like(mean)
            return Estimate(mean, nothing, nothing, ones, ones, *counts)
        error = np.sqrt(factors[:, None] * squares) / self.num_units
        stretch = self._stretch(sums, squares)
        return Estimate(
            mean,
            error,
            np.repeat(degrees[:, None], len(mean), axis=1),
            np.where(stretch < 0, 1 - stretch, 1.0),
            np.where(stretch > 0, 1 + stretch, 1.0),
            *counts,
        )

    def _stretch(self, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """The share by which skewness widens one half of an interval, negative for the lower half.

        The long tail of skewed scores is often missing from a few songs, which makes both mean and standard error too
        small. The end of the interval on that side is moved by Johnson's correction (N. J. Johnson: "Modified t tests
        and confidence intervals for asymmetrical populations", JASA 73(363), 1978), skewness (1 + 2 t^2) / 6 standard
        errors; the other end stays.
        """
        degrees = self.models[1].max()
        number = max(degrees + 1, 3.0)
        skewness = np.divide((sums**3).sum(axis=0), squares**1.5, out=np.zeros_like(squares), where=squares > 0)
        # from the skewness of a sample to that of the population, which the sample cannot reach
        correction = np.sqrt(number * (number - 1)) / max(number - 2, 1e-3)
        quantile = -stdtrit(degrees, (1 - CONFIDENCE) / 2)
        factor = SKEWNESS_FACTOR * min(correction, MAX_SKEWNESS_CORRECTION)
        return factor * skewness * (1 + 2 * quantile**2) / (6 * quantile)


def estimate_means(values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> Estimate:
    """The mean of each column over units that share members.

    Args:
        values: Shape (num_units, num_columns); values that are not finite count as missing.
        clusters: The member of each unit, or a tuple of its members; see `memberships`.
    """
    values = np.asarray(values, dtype=np.float64)
    num_columns, num_models = values.shape[1], 2 * len(WORKING_RATIOS)
    result = Estimate(
        np.full(num_columns, np.nan),
        np.full((num_models, num_columns), np.nan),
        np.full((num_models, num_columns), np.nan),
        np.ones(num_columns),
        np.ones(num_columns),
        np.zeros(num_columns, dtype=np.int64),
        np.zeros(num_columns, dtype=np.int64),
    )
    for columns, designs, known in _designs(values, clusters):
        found = [design.estimate(known) for design in designs]
        for name in ("mean", "members", "independent"):
            getattr(result, name)[columns] = getattr(found[0], name)
        for name in ("stretch_low", "stretch_high"):
            getattr(result, name)[columns] = np.maximum(*(getattr(one, name) for one in found))
        for name in ("error", "degrees"):
            shape = (len(WORKING_RATIOS), len(columns))
            parts = [np.broadcast_to(getattr(one, name), shape) for one in found]
            getattr(result, name)[:, columns] = np.concatenate(parts)
    return result


def interval_of_mean(
    values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray, *, confidence: float = CONFIDENCE
) -> Interval:
    """Means with their intervals; arguments as `estimate_means`. With one member there is no interval (NaN)."""
    return estimate_means(values, clusters).interval(confidence)


def interval_of_median(
    values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray, *, confidence: float = CONFIDENCE
) -> Interval:
    """Medians with their intervals; arguments as `estimate_means`, and `mean` of the result is the median.

    An interval holds the values at which the share of scores below does not differ from one half (R. S. Woodruff:
    "Confidence intervals for medians and other position measures", JASA 47(260), 1952); that share is a mean over
    units and its test is that of `estimate_means`. NaN below MIN_MEMBERS_FOR_MEDIAN members.
    """
    values = np.asarray(values, dtype=np.float64)
    middle, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    for columns, designs, known in _designs(values, clusters):
        middle[columns] = np.median(known, axis=0)
        ordered = np.sort(known, axis=0)
        found = []
        for design in designs:
            factors, degrees, independent = design.models
            if independent < MIN_MEMBERS_FOR_MEDIAN or not len(factors):
                continue
            width = (-stdtrit(degrees, (1 - confidence) / 2) * np.sqrt(factors)).max() / design.num_units
            found.append([_first_value(design, known, ordered, sign * width) for sign in (1.0, -1.0)])
        if found:
            low[columns] = np.min([one for one, _ in found], axis=0)
            high[columns] = np.max([one for _, one in found], axis=0)
    return Interval(middle, low, high)


def _first_value(design: Design, values: np.ndarray, ordered: np.ndarray, width: float) -> np.ndarray:
    """The least value of each column at which the share of values up to it, plus its half width, reaches one half."""
    first, last = np.zeros(values.shape[1], dtype=np.int64), np.full(values.shape[1], len(values) - 1)
    while (first < last).any():
        middle = (first + last) // 2
        below = (values <= np.take_along_axis(ordered, middle[None], axis=0)).astype(np.float64)
        share = below.mean(axis=0)
        spread = np.sqrt(np.square(design.matrix.T @ (below - share)).sum(axis=0))
        reached = share + width * spread >= 0.5
        first, last = np.where(reached, first, middle + 1), np.where(reached, middle, last)
    return np.take_along_axis(ordered, np.minimum(first, len(values) - 1)[None], axis=0)[0]


def _designs(values: np.ndarray, clusters: Sequence[Hashable] | np.ndarray):
    """The columns that have values for the same units, two designs of these units, and the values.

    Where units have different numbers of members (mixtures of one song and of several), it is unknown whether the
    effects of members add up or are averaged: the second design has the averages. Else both are the same.
    """
    if not values.size:
        return
    members, finite = memberships(clusters), np.isfinite(values)
    counts = np.diff(members.indptr)
    averaged = sparse.csr_array(sparse.diags_array(1 / np.maximum(counts, 1)) @ members)
    patterns, of_column = np.unique(finite, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        present = patterns[:, index]
        if present.any():
            columns = np.flatnonzero(of_column.ravel() == index)
            design = Design(members[present])
            mixed = len(np.unique(counts[present])) > 1
            designs = (design, Design(averaged[present]) if mixed else design)
            yield columns, designs, values[np.ix_(present, columns)]
