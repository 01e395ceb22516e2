"""Errors that users read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake in the user's files or settings, shown as one line and never as a traceback.

    Args:
        message: What is wrong, with the expected and the actual value.
        file: File with the mistake.
        line: Line in the file, counted from 1.
        key: Dotted key.
    """

    def __init__(
        self, message: str, *, file: str | Path | None = None, line: int | None = None, key: str | None = None
    ):
        self.message, self.file, self.line, self.key = message, file, line, key
        location = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        subject = f"{key}: " if key else ""
        super().__init__(" ".join(f"{location}{subject}{message}".split()))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `name`; empty if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""
