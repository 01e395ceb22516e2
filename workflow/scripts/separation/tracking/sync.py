"""Sends new data to trackers: `make sync`, and the rules sync_<tracker>."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from separation.errors import UserError, nearest
from separation.experiment.config import default_config, load_settings
from separation.files.layout import PointFolder, logged_points
from separation.tracking.payload import File, description_of, unsent
from separation.tracking.registry import make_tracker
from separation.tracking.sender import load_or_create_sent, point_lock, send_unsent
from separation.tracking.sent import save_sent
from separation.tracking.tracker import Tracker, Unreachable
from separation.training.events import latest_events, read_events

PATIENCE = 30.0  # seconds for one request


def sync_points(
    name: str, options: Mapping[str, Any], points: Iterable[PointFolder], extra: Iterable[File] = ()
) -> dict[str, str | None]:
    """Sends new data of some points to a tracker.

    Args:
        name: Name of the tracker.
        options: The tracker's section of config/config.yaml.
        points: Folders of the points.
        extra: Files to send with every point besides its own.

    Returns:
        The address of each point's page, None if it has none, by point.

    Raises:
        UserError: The tracker cannot be reached; data that it has received is not sent again.
    """
    extra, pages = list(extra), {}
    try:
        tracker = make_tracker(name, options, PATIENCE)
        for point in points:
            with point_lock(point, tracker.name):
                pages[point.id] = _sync_point(tracker, point, extra)
    except Unreachable as error:
        raise UserError(f"{error}; no data is lost; run it again later", key=name) from None
    return pages


def _sync_point(tracker: Tracker, point: PointFolder, extra: Iterable[File]) -> str | None:
    """Sends new data of a point to a tracker; returns the address of its page."""
    sent, events = load_or_create_sent(point, tracker), latest_events(read_events(point.events))
    if not events or not point.config.exists():
        return sent.url
    batch = unsent(point, events, sent, extra)
    if batch:
        sent.url = tracker.open(point, description_of(point, events), sent) or sent.url
        sent.created = True
        save_sent(point, tracker.name, sent)
        send_unsent(tracker, point, sent, batch)
        tracker.close(sent.finished)
        save_sent(point, tracker.name, sent)
    tracker.drop_archive(point)
    return sent.url


def _find_points(ids: list[str], artifacts: Path) -> list[PointFolder]:
    """The points with these ids, or all that have an event log."""
    logged = {point.id: point for point in logged_points(artifacts)}
    for point in ids:
        if point not in logged:
            raise UserError(
                f"{artifacts} has no point with this id and an event log{nearest(point, logged)}", key=point
            )
    return [logged[point] for point in ids or logged]


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make sync`."""
    parser = argparse.ArgumentParser(prog="sync", description="Send new data to trackers.")
    parser.add_argument("points", nargs="*", help="ids of points; default: all that were trained here")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings(default_config(), os.environ)
        names = settings.tracking["names"]
        if not names:
            raise UserError(
                "no tracker is configured: set COMET_API_KEY, WANDB_API_KEY or MLFLOW_TRACKING_URI, or name trackers "
                "in config/config.yaml"
            )
        points = _find_points(options.points, settings.artifacts)
        for name in names:
            pages = sync_points(name, settings.tracking[name], points)
            print(f"{name}: {len(pages)} point{'' if len(pages) == 1 else 's'} up to date")
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a tracker's library may otherwise wait for its server
