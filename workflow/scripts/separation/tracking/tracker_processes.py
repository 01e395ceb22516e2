"""Tracker processes beside a job: they start with it and get a few seconds at its end."""

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

MAX_DELAY_SECONDS = 5.0  # longest delay of the end of a job by all trackers together

# module that a tracker's process runs
SENDER = "separation.tracking.sender"

_SCRIPTS = Path(__file__).resolve().parents[2]


@contextmanager
def run_trackers(point: PointFolder, tracking: Mapping[str, Any]) -> Iterator[None]:
    """Feeds the configured trackers from the point's event log while the block runs.

    A tracker that fails never affects the block and delays its end by at most MAX_DELAY_SECONDS. An unreachable tracker
    costs one warning per run of the workflow. A sender that needs longer, on a busy machine, ends by itself some
    seconds later.

    Args:
        point: The point's folder.
        tracking: `mode`, `names`, and the options of each tracker, as in config/config.yaml.
    """
    senders = {name: _start(point, name, tracking) for name in tracking["names"]}
    try:
        yield
    finally:
        deadline = time.monotonic() + MAX_DELAY_SECONDS
        for sender in senders.values():
            sender.stdin.close()
        for name, sender in senders.items():
            _finish(name, sender, deadline)


def _start(point: PointFolder, name: str, tracking: Mapping[str, Any]) -> subprocess.Popen:
    run = os.environ.get(RUN_VARIABLE)
    request = {
        "folder": str(point.path),
        "tracker": name,
        "mode": tracking["mode"],
        "options": tracking.get(name, {}),
        "unreachable_marker": str(Path(".snakemake") / "trackers" / run / name) if run else None,
        "attempt": 0,
    }
    paths = [str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", SENDER, json.dumps(request)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C ends the job; the sender then reaches the end of its input
    )


def _finish(name: str, sender: subprocess.Popen, deadline: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        sender.wait(max(0.0, deadline - time.monotonic()))
    # read what is available: the process, or its child, may still hold the pipe
    os.set_blocking(sender.stdout.fileno(), False)
    lines = (sender.stdout.read() or b"").decode(errors="replace").splitlines()
    sender.stdout.close()
    for line in lines[:1]:
        logger.warning("%s", line)
        print(f"Warning: {line}", file=sys.stderr)
    if sender.returncode is None:
        logger.info("%s: still sending when the job ended", name)
    elif sender.returncode and not lines:
        logger.warning("%s: the tracker's process ended with code %d; run `make sync` to send the rest", name,
                       sender.returncode)  # fmt: skip
