"""Loops over samples and bins, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled for this machine, once: kept beside its file, or in numba's folder where that is read-only.

    It lets other threads run beside it.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in: it is compiled in each process
        return numba.njit(**options)(function)
