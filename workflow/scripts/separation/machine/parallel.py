"""Doing the same thing to many files with several processes, with results in order and progress in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import joblib

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 5.0
_SECONDS_BETWEEN_LINES = 30.0


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
    progress = Progress(len(arguments), what)
    results = []
    # a process of several works on one thread: together they are to use `workers` processors, not their square
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        calls = joblib.Parallel(n_jobs=max(1, min(workers, len(arguments) // share)), return_as="generator")(
            joblib.delayed(function)(*each) for each in arguments
        )
    for result in calls:
        results.append(result)
        progress.advance()
    return results


class Progress:
    """Tells how far long work has come: what is done, the rate, the time left.

    Lines go to the log every few seconds, and to standard error, which is the terminal of whoever started the workflow;
    where that is no terminal, as in a batch job, a line there comes every half minute.

    Args:
        total: how much there is to do.
        what: what is counted, in the plural.
    """

    def __init__(self, total: int, what: str):
        self.total, self.what, self.done = total, what, 0
        self._began = self._logged = self._shown = time.monotonic()
        # what is done first takes long, as the processes have to start: the rate is that of the rest
        self._first: tuple[float, int] | None = None
        self._every = _SECONDS_BETWEEN_REPORTS if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES

    def advance(self, count: int = 1) -> None:
        """Notes that `count` more are done."""
        self.done += count
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        last = self.done == self.total
        if last or now - self._logged > _SECONDS_BETWEEN_REPORTS:
            self._logged = now
            logger.info("%s", self.line(now))
        # what is over at once needs no line of its own
        if now - self._shown > self._every or (last and now - self._began > self._every):
            self._shown = now
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        """Such as `1200 of 5000 mixtures of train, shard 0002, 131.4 a second, 0:29 left`."""
        told = f"{self.done} of {self.total} {self.what}"
        since, before = self._first or (now, self.done)
        if self.done == before:
            return told
        rate = (self.done - before) / max(now - since, 1e-9)
        if self.done == self.total:
            return f"{told}, {rate:.1f} a second"
        hours, rest = divmod(round((self.total - self.done) / rate), 3600)
        left = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
        return f"{told}, {rate:.1f} a second, {left} left"
