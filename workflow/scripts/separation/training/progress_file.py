"""How far a running training is: state/progress.json in a point's folder, for `make status` and for people.

The file is a sign of life, not a result: it is replaced every few seconds and never asked for by a rule.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from separation.files import atomic

#: seconds between two writings
INTERVAL = 5.0
#: seconds between two lines of a training on a terminal that it shares with others
LINE_INTERVAL = 30.0
#: a training whose file is older is not running any more, whatever it says
STALE_AFTER = 120.0


@dataclass
class Progress:
    """What a training says about itself.

    Attributes:
        state: starting, training, validating, stopped (asked to), failed or finished.
        epoch: the one that runs, from 1; in a finished training the last one.
        num_epochs: at most.
        step, steps: batches done, and batches, of this epoch.
        loss: mean over this epoch so far.
        device: on which it runs, such as cpu or cuda:0 (NVIDIA H200).
        seconds_left: at the rate so far, None before there is one.
        host, pid: where it runs.
        updated: when this was written, seconds since 1970.
    """

    state: str
    epoch: int
    num_epochs: int
    step: int
    steps: int
    loss: float | None
    device: str
    seconds_left: float | None
    host: str = ""
    pid: int = 0
    updated: float = 0.0


class ProgressFile:
    """Writes a training's progress, at most every INTERVAL seconds.

    Args:
        path: File to write, PointFolder.progress.
        clock: gives seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self._path, self._clock, self._next = path, clock, 0.0

    @property
    def due(self) -> bool:
        return self._clock() >= self._next

    def write(self, progress: Progress) -> None:
        self._next = self._clock() + INTERVAL
        progress.host, progress.pid, progress.updated = socket.gethostname(), os.getpid(), time.time()
        atomic.write_json(self._path, asdict(progress))


class TerminalLine:
    """Tells whoever started the workflow how far a training is: a line now and then on standard error.

    Args:
        name: of the training, with which each line begins.
    """

    def __init__(self, name: str):
        self._name, self._next = name, time.monotonic() + LINE_INTERVAL

    def tell(self, text: str) -> None:
        """Shows a line, unless the last one is not long ago."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)


def read_progress(path: Path) -> Progress | None:
    """What a training last wrote to `path`; None where it wrote nothing (or an older version did)."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Progress(**content)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_running(progress: Progress, now: float | None = None) -> bool:
    """Whether the training that wrote `progress` still runs: its process on this machine, a fresh file on another."""
    if progress.state not in ("starting", "training", "validating"):
        return False
    if progress.host == socket.gethostname():
        try:
            os.kill(progress.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's process, and alive
        return True
    return (time.time() if now is None else now) - progress.updated < STALE_AFTER


def duration(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
