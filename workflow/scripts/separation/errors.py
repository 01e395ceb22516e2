"""The error that a user's mistake leads to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake in what the user wrote or placed, told in one line and never as a traceback.

    Args:
        message: what is wrong, with what was expected and what was found.
        file: the file in which it stands.
        line: its line, counted from 1.
        key: the dotted key.
    """

    def __init__(
        self, message: str, *, file: str | Path | None = None, line: int | None = None, key: str | None = None
    ):
        self.message, self.file, self.line, self.key = message, file, line, key
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        subject = f"{key}: " if key else ""
        super().__init__(" ".join(f"{place}{subject}{message}".split()))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `name`; empty where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""
