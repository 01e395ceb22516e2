"""Where compiled functions are kept: with the environment, so that all jobs and all clones that use it share them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import UserProvidedCacheLocator

#: folder of the compiled functions
FOLDER = Path(sys.prefix) / "var" / "cache" / "separation"


class EnvironmentLocator(UserProvidedCacheLocator):
    """Locator of numba's cache (NUMBA_CACHE_LOCATOR_CLASSES): one folder in the environment per content of a module.

    numba's own locators put the module's path or its folder into that of the cache: each clone would compile.
    """

    def __init__(self, py_func: Callable[..., Any], py_file: str):
        super().__init__(py_func, py_file)
        source = Path(py_file)
        self._cache_path = str(FOLDER / f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}")

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> EnvironmentLocator | None:
        """The locator; None if the environment is not writable."""
        found = cls(py_func, py_file)
        try:
            found.ensure_cache_path()
        except OSError:
            return None
        return found


#: the folder in NUMBA_CACHE_DIR, then the environment's, the module's, the user's
_LOCATORS = (
    "UserProvidedCacheLocator",
    f"{__name__}.EnvironmentLocator",
    "InTreeCacheLocator",
    "UserWideCacheLocator",
)


def compile_cached(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by numba, from the cache if possible.

    Where no folder is writable it is compiled in each process.
    """
    options = {"nogil": True, "error_model": "numpy"}
    before = numba.config.CACHE_LOCATOR_CLASSES
    numba.config.CACHE_LOCATOR_CLASSES = before or ",".join(_LOCATORS)
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
    finally:
        numba.config.CACHE_LOCATOR_CLASSES = before
