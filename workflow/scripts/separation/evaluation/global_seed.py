"""Seeding of numpy's global generator, which nussl and pystoi draw from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_LOCK = threading.RLock()


@contextmanager
def global_numpy_seed(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, alone among the threads, and restores its state afterwards."""
    with _LOCK:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
