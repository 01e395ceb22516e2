"""Parts of the folder that the processes of a test session share."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@contextmanager
def timed(folder: Path, name: str) -> Iterator[None]:
    """Writes for the summary how long something took."""
    began = time.monotonic()
    yield
    with open(folder / "times", "a") as file:
        file.write(f"{time.monotonic() - began:7.1f}  {name}\n")


def made_once(folder: Path, name: str, make: Callable[[Path], str]) -> Path:
    """A part of the folder, made by the first process that needs it.

    Args:
        folder: Folder of all services.
        name: Name in it.
        make: Makes the path it is given; returns why that is impossible here, else "".
    """
    path, made = folder / name, folder / f"{name}.made"
    with FileLock(folder / f"{name}.lock"):
        if not made.exists():
            with timed(folder, name.replace("-", " ")):
                made.write_text(make(path))
    if why := made.read_text():
        pytest.skip(why)
    return path
