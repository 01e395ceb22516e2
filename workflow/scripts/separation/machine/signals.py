"""A job that is asked to stop, by a cluster's preemption or by Ctrl-C, stops at a moment that it chooses itself."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

from separation.errors import UserError

#: what a cluster sends before it takes a machine away, and what a terminal sends for Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(UserError):
    """The job stopped because it was asked to; run again, it goes on."""


class StopRequest:
    """Notes signals that ask to stop, for as long as its block lasts.

    They may come several times: a cluster sends them to all processes of a job, and a parent hands them on. Outside
    the main thread, where Python cannot receive signals, none is ever noted.
    """

    def __init__(self) -> None:
        #: the name of the signal, or None while none has come
        self.signal: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
