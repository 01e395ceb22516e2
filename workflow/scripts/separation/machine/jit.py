"""Compilation of numeric loops with numba, which is imported when one of them is called."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

_LOCK = threading.RLock()


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled for this machine when it is called; see `machine.jit_cache` for where the result is kept.

    The compiled function takes positional arguments and releases the GIL.
    """
    compiled: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if not compiled:
            with _LOCK:
                if not compiled:
                    from separation.machine.jit_cache import compile_cached

                    compiled.append(compile_cached(function))
        return compiled[0](*arguments)

    return call
