"""Limits on the threads of numeric libraries.

With one thread, sums come out the same every time. Parallel jobs and processes use one
thread each, so that together they use no more processors than exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def thread_variables(count: int) -> dict[str, str]:
    """The environment variables that limit numeric libraries to `count` threads; each is read at the first import."""
    return dict.fromkeys(_VARIABLES, str(max(1, int(count))))


@contextmanager
def limited_torch_threads(count: int) -> Iterator[None]:
    """Limits torch to `count` threads while the block runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(count)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Limits torch, BLAS and OpenMP to `count` threads while the block runs."""
    from threadpoolctl import threadpool_limits

    with limited_torch_threads(count), threadpool_limits(limits=max(1, int(count))):
        yield


def single_threaded_workers(count: int) -> ThreadPoolExecutor:
    """A pool of `count` worker threads; in each, torch uses only one thread."""
    import torch

    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
