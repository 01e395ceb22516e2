"""Stop requests by signals (preemption on a cluster, Ctrl-C), which a job handles at a safe moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

from separation.errors import UserError

#: signals that a cluster sends before preemption, and a terminal for Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(UserError):
    """The job stopped after a stop request; when run again, it resumes."""


class StopRequest:
    """Records stop signals while its block runs.

    A signal may arrive several times: a cluster sends it to all processes of a job, and a parent forwards it. Outside
    the main thread, where Python cannot receive signals, none is recorded.
    """

    def __init__(self) -> None:
        #: name of the signal; None before one arrives
        self.signal: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _record(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
