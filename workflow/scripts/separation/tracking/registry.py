"""The trackers that exist, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from separation.files.layout import PointFolder
from separation.tracking.comet_tracker import Comet
from separation.tracking.mlflow_tracker import Mlflow
from separation.tracking.sent import load_sent
from separation.tracking.tracker import Tracker, Unreachable
from separation.tracking.wandb_tracker import Wandb

# In the order in which results link to their pages. A client library is imported when its tracker is made, not here.
TRACKERS: dict[str, type[Tracker]] = {tracker.name: tracker for tracker in (Comet, Wandb, Mlflow)}


def make_tracker(name: str, options: Mapping[str, Any], patience: float) -> Tracker:
    """Makes a tracker, which imports its client library.

    Args:
        name: A key of TRACKERS.
        options: The tracker's section of config/config.yaml.
        patience: Longest time a single request may take, in seconds.

    Raises:
        Unreachable: The client library is not installed.
    """
    try:
        return TRACKERS[name](options, patience)
    except ImportError as missing:
        raise Unreachable(f"{missing.name or missing} is not installed; envs/extra.sh trackers installs it") from None


def page_url(point: PointFolder) -> str | None:
    """The address of a point's page on the first tracker that has one."""
    for name in TRACKERS:
        sent = load_sent(point, name)
        if sent is not None and sent.created and (sent.url or "").startswith("http"):
            return sent.url
    return None
