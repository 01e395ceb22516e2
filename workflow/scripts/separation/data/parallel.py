"""Doing the same thing to many files with several processes, with results in order and progress in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import joblib

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 5.0


def run_in_order(
    function: Callable[..., Any], arguments: Iterable[tuple], *, workers: int, share: int = 1, what: str
) -> list[Any]:
    """Calls `function(*arguments[i])` for each i and returns the results in order of the arguments.

    With one worker everything runs in this process. More workers are processes of joblib's loky: they import the
    function's module and never the script that runs, which a Snakemake job could not bear.

    Args:
        function: a function at the top level of an importable module; its result must not depend on calls before.
        arguments: one tuple of positional arguments per call, all of which can be pickled.
        workers: the greatest number of processes.
        share: the number of calls that are worth a process's start; for less than two shares none is started.
        what: what is counted, in the plural, for the log.

    Raises:
        whatever the first failing call raised.
    """
    arguments = list(arguments)
    started = reported = time.monotonic()
    results = []
    # a process of several works on one thread: together they are to use `workers` processors, not their square
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        calls = joblib.Parallel(n_jobs=max(1, min(workers, len(arguments) // share)), return_as="generator")(
            joblib.delayed(function)(*each) for each in arguments
        )
    for result in calls:
        results.append(result)
        now = time.monotonic()
        if now - reported > _SECONDS_BETWEEN_REPORTS or len(results) == len(arguments):
            reported = now
            rate = len(results) / max(now - started, 1e-9)
            logger.info("%d of %d %s, %.1f a second", len(results), len(arguments), what, rate)
    return results
