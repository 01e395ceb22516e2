"""Listing of the files in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

AUDIO_SUFFIXES = frozenset([
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64",
    ".wv1", ".wv2", ".sph", ".m4a", ".aac", ".mp4", ".wma",
])  # fmt: skip


def is_audio(path: str | os.PathLike) -> bool:
    """Whether the name is that of an audio file."""
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def listing(folder: Path) -> list[list[Any]]:
    """Relative names and sizes in bytes of all files below a folder, sorted; the size of a dangling link is None."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            path = Path(parent) / name
            found.append([path.relative_to(folder).as_posix(), _size(path)])
    return found


def dated_listing(folder: Path) -> list[list[Any]]:
    """`listing` with the time of the last change of each file, in ns, as a third entry."""
    return [[name, size, (folder / name).stat().st_mtime_ns if size is not None else None]
            for name, size in listing(folder)]  # fmt: skip


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
