"""Compilation of numeric loops with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any]) -> Any:
    """The function compiled for this machine. The result is cached beside its file, or in numba's folder.

    The compiled function releases the GIL.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable folder for the cache: compile in each process
        return numba.njit(**options)(function)
