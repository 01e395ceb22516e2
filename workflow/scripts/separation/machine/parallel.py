"""Parallel calls in several processes, with results in order and progress in the log."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)

_INTERVAL = 5.0  # seconds between two lines in the log and on a terminal
_BATCH_INTERVAL = 30.0  # seconds between two lines on standard error that is not a terminal


def run_in_order(
    function: Callable[..., Any], arguments: Iterable[tuple], *, workers: int, share: int = 1, items: str
) -> list[Any]:
    """Calls `function(*arguments[i])` for each i and returns the results in order of the arguments.

    With one worker everything runs in this process. More workers are processes of joblib's loky: they import the
    function's module but not the running script, which works only inside a Snakemake job.

    Args:
        function: Function at the top level of an importable module; its result must not depend on earlier calls.
        arguments: Tuple of positional arguments per call, all picklable.
        workers: Maximum number of processes.
        share: Number of calls that justify starting a process; below two shares none is started.
        items: Name of the items in the log, in the plural.

    Raises:
        Exception: The error of the first call that fails.
    """
    arguments = list(arguments)
    progress = Progress(len(arguments), items)
    results = []
    processes = min(workers, len(arguments) // share)
    if processes > 1:
        import joblib

        # one thread per process: together they use `workers` processors, not the square of it
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            calls = joblib.Parallel(n_jobs=processes, return_as="generator")(
                joblib.delayed(function)(*each) for each in arguments
            )
    else:
        calls = itertools.starmap(function, arguments)
    for result in calls:
        results.append(result)
        progress.advance()
    return results


class Progress:
    """Progress of long work: items done, rate and time left.

    Lines go to the log and to standard error every few seconds; where standard error is not a terminal, as in a batch
    job, every half minute.

    Args:
        total: Number of items.
        items: Name of the items, in the plural.
    """

    def __init__(self, total: int, items: str):
        self.total, self.items, self.done = total, items, 0
        self._began = self._logged = self._shown = time.monotonic()
        # the first items take long because the processes have to start, so the rate is that of the rest
        self._first: tuple[float, int] | None = None
        self._interval = _INTERVAL if sys.stderr.isatty() else _BATCH_INTERVAL

    def advance(self, count: int = 1) -> None:
        """Counts `count` more items as done."""
        self.done += count
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        last = self.done == self.total
        if last or now - self._logged > _INTERVAL:
            self._logged = now
            logger.info("%s", self.line(now))
        # short work needs no line on standard error
        if now - self._shown > self._interval or (last and now - self._began > self._interval):
            self._shown = now
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        """The line to show, such as `1200 of 5000 mixtures of train, shard 0002, 131.4 a second, 0:29 left`."""
        line = f"{self.done} of {self.total} {self.items}"
        since, before = self._first or (now, self.done)
        if self.done == before:
            return line
        rate = (self.done - before) / max(now - since, 1e-9)
        if self.done == self.total:
            return f"{line}, {rate:.1f} a second"
        hours, rest = divmod(round((self.total - self.done) / rate), 3600)
        left = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
        return f"{line}, {rate:.1f} a second, {left} left"
