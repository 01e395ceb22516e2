"""Sends what trackers do not have yet: `make sync`, and the rules sync_<tracker>."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from separation.errors import UserError
from separation.experiment.config import default_config, load_settings
from separation.files.layout import PointFolder, logged_points
from separation.tracking.payload import File, describe, unsent
from separation.tracking.registry import make_tracker
from separation.tracking.sender import point_lock, send_unsent, sent_of
from separation.tracking.sent import save_sent
from separation.tracking.tracker import Tracker, Unreachable
from separation.training.events import last_words, read_events

PATIENCE = 30.0  # seconds for one request


def sync_point(tracker: Tracker, point: PointFolder, extra: Iterable[File] = ()) -> bool:
    """Sends what a tracker does not have of a point; whether there was anything.

    Raises:
        Unreachable: the tracker has not taken everything; what it has taken is noted.
    """
    with point_lock(point, tracker.name):
        return _sync(tracker, point, extra)


def _sync(tracker: Tracker, point: PointFolder, extra: Iterable[File]) -> bool:
    sent, events = sent_of(point, tracker), last_words(read_events(point.events))
    if not events or not point.config.exists():
        return False
    batch = unsent(point, events, sent, extra)
    if not batch:
        tracker.drop_archive(point)
        return False
    sent.url = tracker.open(point, describe(point, events), sent) or sent.url
    sent.created = True
    save_sent(point, tracker.name, sent)
    send_unsent(tracker, point, sent, batch)
    tracker.close(sent.finished)
    save_sent(point, tracker.name, sent)
    tracker.drop_archive(point)
    return True


def sync_points(
    name: str, options: Mapping[str, Any], points: Iterable[PointFolder], extra: Iterable[File] = ()
) -> dict:
    """Sends what a tracker does not have of several points.

    Returns:
        point -> the address of its page on the tracker, None where it has none.

    Raises:
        UserError: the tracker cannot be reached; what was sent before is not sent again.
    """
    extra, pages = list(extra), {}
    try:
        tracker = make_tracker(name, options, PATIENCE)
        for point in points:
            sync_point(tracker, point, extra)
            pages[point.point] = sent_of(point, tracker).url
    except Unreachable as problem:
        raise UserError(f"{problem}; nothing is lost, send it again at any time", key=name) from None
    return pages


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make sync`."""
    parser = argparse.ArgumentParser(prog="sync", description="Sends trackers what they do not have yet.")
    parser.add_argument("points", nargs="*", help="ids of points; default, all that have been trained here")
    asked = parser.parse_args(arguments)
    try:
        settings = load_settings(default_config(), os.environ)
        names = settings.tracking["names"]
        if not names:
            raise UserError(
                "no tracker is configured: set COMET_API_KEY, WANDB_API_KEY or MLFLOW_TRACKING_URI, or name trackers "
                "in config/config.yaml"
            )
        points = logged_points(settings.artifacts)
        if asked.points:
            known = {point.point: point for point in points}
            for point in asked.points:
                if point not in known:
                    raise UserError(f"{settings.artifacts} has no point of this id with an event log", key=point)
            points = [known[point] for point in asked.points]
        for name in names:
            pages = sync_points(name, settings.tracking[name], points)
            print(f"{name}: {len(pages)} points are there")
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a tracker's library may otherwise wait for its server
