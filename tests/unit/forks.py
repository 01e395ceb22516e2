"""Calls in forks of the tests' process: new processes that need no imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess

import torch

#: longest wait for a fork, in seconds; a slow machine needs a small part of it
TIMEOUT = 200
# where torch has a GPU, forks of a process that has computed gradients cannot compute any
CONTEXT = multiprocessing.get_context("forkserver" if torch.cuda.is_available() else "fork")


@contextmanager
def forked(function: Callable, *arguments: object) -> Iterator[BaseProcess]:
    """Calls a function at the top level of a test module in a fork, which is killed when the block ends."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run(function: Callable, *calls: tuple) -> list[int]:
    """Calls a function with each tuple of arguments, in forks side by side.

    Returns:
        The exit codes of the forks, negative for a signal.

    Raises:
        TimeoutError: A fork is still running after TIMEOUT seconds.
    """
    with ExitStack() as stack:
        forks = [stack.enter_context(forked(function, *arguments)) for arguments in calls]
        for fork in forks:
            fork.join(TIMEOUT)
            if fork.exitcode is None:
                raise TimeoutError(f"a call of {function} is still running after {TIMEOUT} s")
        return [fork.exitcode for fork in forks]


def die() -> None:
    """Kills this process; no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)
