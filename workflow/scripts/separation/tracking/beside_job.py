"""Trackers beside a job: started with it, and given a few seconds at its end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from separation.files.layout import PointFolder
from separation.machine.run_id import RUN_VARIABLE

logger = logging.getLogger(__name__)

LIMIT = 5.0  # seconds that all trackers together may hold up the end of a job

_SCRIPTS = Path(__file__).resolve().parents[2]


@contextmanager
def trackers_beside(point: PointFolder, tracking: Mapping[str, Any]) -> Iterator[None]:
    """Feeds the configured trackers from the point's event log while the block runs.

    Whatever happens to a tracker, the block is not touched and its end is held up by at most LIMIT seconds; a tracker
    that cannot be reached costs one warning in a run of the workflow. A process that needs longer, on a busy machine,
    ends by itself some seconds later.

    Args:
        point: The point's folder.
        tracking: `mode`, `names` and each tracker's options, as config has them.
    """
    senders = {name: _start(point, name, tracking) for name in tracking["names"]}
    try:
        yield
    finally:
        deadline = time.monotonic() + LIMIT
        for sender in senders.values():
            sender.stdin.close()
        for name, sender in senders.items():
            _finish(name, sender, deadline)


def _start(point: PointFolder, name: str, tracking: Mapping[str, Any]) -> subprocess.Popen:
    run = os.environ.get(RUN_VARIABLE)
    asked = {
        "folder": str(point.path),
        "tracker": name,
        "mode": tracking["mode"],
        "options": tracking.get(name, {}),
        "down": str(Path(".snakemake") / "trackers" / run / name) if run else None,
        "attempt": 0,
    }
    paths = [str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "separation.tracking.sender", json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C ends the job; the sender then sees its input end
    )


def _finish(name: str, sender: subprocess.Popen, deadline: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        sender.wait(max(0.0, deadline - time.monotonic()))
    # not to its end: the process, or its child, may still hold the pipe
    os.set_blocking(sender.stdout.fileno(), False)
    told = (sender.stdout.read() or b"").decode(errors="replace").splitlines()
    sender.stdout.close()
    for line in told[:1]:
        logger.warning("%s", line)
        print(f"Warning: {line}", file=sys.stderr)
    if sender.returncode is None:
        logger.info("%s: still sending when the job ended", name)
    elif sender.returncode and not told:
        logger.warning("%s: the tracker's process ended with code %d; `make sync` sends what is missing", name,
                       sender.returncode)  # fmt: skip
