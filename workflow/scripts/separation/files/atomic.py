"""Atomic writes: readers never see an incomplete file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `target` (same suffix), and renames it to `target` when the block succeeds.

    The folder is created if missing. When the block raises, the temporary file is removed and `target` is
    unchanged. The content is flushed to disk before the rename, so after a power loss there is the old or the new file.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp creates private files; the umask decides who may read results
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def link_atomically(link: str | os.PathLike, target: str | os.PathLike) -> None:
    """Creates or replaces a symbolic link; its folder must exist."""
    link = Path(link)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)


def umask() -> int:
    """The umask of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(target: str | os.PathLike, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | os.PathLike, value: Any) -> None:
    """Writes `value` as JSON with sorted keys, atomically; NaN and infinities raise ValueError."""
    write_text(target, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(source: str | os.PathLike) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(source).read_text(encoding="utf-8"))


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
