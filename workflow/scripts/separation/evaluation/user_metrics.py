"""Scores by the user's own metrics; docs/metrics.md describes how to write one."""

from __future__ import annotations

import functools
import json
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas

from separation.errors import UserError
from separation.evaluation.metrics import ItemScores, usable_estimates
from separation.experiment.metric_definitions import user_metric_definition
from separation.experiment.testers import Tester, UserMetric, read_testers
from separation.experiment.user_classes import find_extras
from separation.experiment.user_metrics import find_user_metrics

logger = logging.getLogger(__name__)

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Any]


def all_testers(testers: Sequence[Any], extras: str | None, sample_rate: int | None = None) -> list[Tester]:
    """test_config.testers with the user's own metrics in the folder `extras`; see `read_testers`."""
    return read_testers(testers, sample_rate, find_user_metrics(find_extras(extras), testers))


def definitions_of(testers: Sequence[Tester]) -> dict[str, dict[str, str]]:
    """The definitions of the user's own metrics among the testers, by column."""
    own = [tester.user_metric for tester in testers if tester.user_metric is not None]
    return {metric.column: vars(user_metric_definition(metric)) for metric in own}


def score_user_metrics(
    item: str,
    sources: Mapping[str, np.ndarray],
    estimates: Sequence[np.ndarray],
    mixture: np.ndarray,
    result: ItemScores | None,
    *,
    testers: Sequence[Tester],
    sample_rate: int,
) -> ItemScores:
    """Adds the scores of the user's own metrics to those of an item.

    A metric gets the estimates in the order that the first built-in tester found, or, with compute_permutation, in the
    order whose mean score is best in the metric's direction. An estimate with NaN or infinite samples has no score;
    the metric gets silence instead of it.

    Args:
        item: Name of the item, for messages.
        sources: name -> true source: (channels, samples).
        estimates: Estimates (channels, samples), in the algorithm's order.
        mixture: Mixture (channels, samples).
        result: Scores of the built-in testers; None if there are none.
        testers: All testers.
        sample_rate: Sample rate in Hz.

    Raises:
        UserError: A metric fails or returns something other than one number, or one per source; or the number of
            estimates does not fit.
    """
    references = np.stack([np.asarray(source, dtype=np.float64) for source in sources.values()])
    guesses = np.stack([np.asarray(estimate, dtype=np.float64) for estimate in estimates])
    mixture = np.asarray(mixture, dtype=np.float64)
    usable = usable_estimates(references, guesses, mixture)
    guesses = np.where(usable[:, None, None], guesses, 0.0)
    scores = {name: dict(result.scores[name]) if result else {} for name in sources}
    assignment = result.assignment if result else None
    for tester in testers:
        if tester.user_metric is None:
            continue
        metric = _metric(tester.user_metric, json.dumps(tester.args, sort_keys=True))
        count, found = len(references), len(guesses)
        if found < count or (found > count and assignment is None and not tester.compute_permutation):
            raise UserError(
                f"expected {count} estimates, as many as sources, found {found}",
                key="algorithm_config.args.num_sources",
            )
        orders = [tuple(assignment.values()) if assignment else tuple(range(count))]
        if tester.compute_permutation:
            orders = list(permutations(range(found), count))

        def scored(order: Sequence[int], metric: Metric = metric, tester: Tester = tester) -> np.ndarray:
            order = list(order)
            if not usable[order].any():
                return np.full(len(references), np.nan)
            values = _call(metric, tester.user_metric, item, references, guesses[order], mixture, sample_rate)
            return np.where(usable[order], values, np.nan)

        values = [scored(order) for order in orders]
        sign = 1.0 if tester.user_metric.higher_is_better else -1.0
        means = [sign * float(np.nanmean(value)) if np.isfinite(value).any() else -np.inf for value in values]
        best = int(np.argmax(means))
        assignment = assignment or dict(zip(sources, orders[best], strict=True))
        for name, value in zip(sources, values[best], strict=True):
            scores[name][tester.user_metric.column] = float(value)
    broken = tuple(name for name, estimate in assignment.items() if not usable[estimate])
    return ItemScores(scores, assignment, broken)


def report_missing(table: pandas.DataFrame, testers: Sequence[Tester]) -> None:
    """Logs how many scores the user's own metrics lack, one line per metric.

    Raises:
        UserError: A metric has no score at all.
    """
    for tester in testers:
        if tester.user_metric is None:
            continue
        metric = tester.user_metric
        missing = table[table[metric.column].isna()]
        if len(missing) == len(table):
            raise UserError(
                f"{metric.name} returned NaN, which means no score, for all {len(table)} sources", file=metric.file
            )
        if len(missing):
            first = missing.iloc[0]
            logger.warning(
                "%s: no score (NaN) for %d of %d sources, such as %s of item %s",
                *(metric.name, len(missing), len(table), first["source"], first["item"]),
            )


@functools.cache
def _metric(metric: UserMetric, args: str) -> Metric:
    """The metric, ready to be called; `args` is JSON."""
    # it imports torch, which scores of finished estimates do not need
    from separation.training.user_modules import load_file

    found, arguments = getattr(load_file(metric.file), metric.name), json.loads(args)
    if not metric.is_class:
        return functools.partial(found, **arguments)
    try:
        made = found(**arguments)
    except Exception as error:
        raise UserError(
            f"cannot be made with {arguments}: {_cause(error, metric)}",
            file=metric.file,
            key=f"test_config.testers.{metric.name}",
        ) from error
    if not callable(made):
        raise UserError(f"the metric {metric.name} cannot be called", file=metric.file)
    return made


def _call(
    metric: Metric,
    described: UserMetric,
    item: str,
    references: np.ndarray,
    estimates: np.ndarray,
    mixture: np.ndarray,
    sample_rate: int,
) -> np.ndarray:
    """The scores of a metric, one for each source."""
    name, count = described.name, len(references)
    try:
        # copies: a metric that changes its input must not change the other scores
        returned = metric(references.copy(), estimates.copy(), mixture.copy(), sample_rate)
    except Exception as error:
        raise UserError(f"{name} failed on item {item}: {_cause(error, described)}", file=described.file) from error
    expected = f"expected {name} to return one number, or one for each of the {count} sources"
    try:
        values = np.asarray(returned, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{expected}, found {type(returned).__name__} on item {item}", file=described.file) from error
    if values.shape not in ((), (count,)):
        raise UserError(f"{expected}, found the shape {values.shape} on item {item}", file=described.file)
    if np.isinf(values).any():
        raise UserError(
            f"expected {name} to return finite numbers, or NaN for no score, found {values.tolist()} on item {item}",
            file=described.file,
        )
    return np.broadcast_to(values, (count,))


def _cause(error: Exception, metric: UserMetric) -> str:
    """An exception in a few words, with its line in the user's file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(metric.file.resolve())
    ]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}{where}"
