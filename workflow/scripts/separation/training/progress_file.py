"""Progress file of a running training: state/progress.json in a point's folder, for `make status` and for people.

The file shows that a training run is alive. It is not a result: it is replaced every few seconds, and no rule needs it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from separation.files import atomic

#: least seconds between two writes
INTERVAL = 5.0
#: seconds after which the file of a running training counts as abandoned
STALE_AFTER = 120.0


@dataclass
class Progress:
    """Progress of a training run.

    Attributes:
        state: starting, training, validating, stopped (on request), failed or finished.
        epoch: Number of the running epoch, from 1; the last one if the run is finished.
        num_epochs: Maximum number of epochs.
        step, steps: Finished batches, and all batches, of this epoch.
        loss: Mean loss over this epoch so far.
        device: Device, such as cpu or cuda:0 (NVIDIA H200).
        seconds_left: Remaining seconds at the rate so far; None before the first estimate.
        host, pid: Host name and process id.
        updated: Time of writing, seconds since 1970.
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
    """Writes a training run's progress, at most every INTERVAL seconds.

    Args:
        path: File to write, PointFolder.progress.
        clock: Clock, in seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self._path, self._clock, self._next = path, clock, 0.0

    @property
    def due(self) -> bool:
        """Whether INTERVAL has passed since the last write."""
        return self._clock() >= self._next

    def write(self, progress: Progress) -> None:
        self._next = self._clock() + INTERVAL
        progress.host, progress.pid, progress.updated = socket.gethostname(), os.getpid(), time.time()
        atomic.write_json(self._path, asdict(progress))


def read_progress(path: Path) -> Progress | None:
    """The progress of a training run in its file; None if it is missing or has an older format."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Progress(**content)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_running(progress: Progress, now: float | None = None) -> bool:
    """Whether the job that wrote `progress` still runs.

    On this machine its process has to exist; for another host the file has to be recent.
    """
    if progress.state not in ("starting", "training", "validating"):
        return False
    if progress.host == socket.gethostname():
        try:
            os.kill(progress.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # the process exists and belongs to another user
        return True
    return (time.time() if now is None else now) - progress.updated < STALE_AFTER


def rough_duration(seconds: float) -> str:
    """A duration in text: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
