"""Sends what trackers do not have yet: `make sync`, and the rules sync_<tracker>."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment.config import default_config, load_settings
from separation.tracking.payload import File, describe, unsent
from separation.tracking.sender import point_lock, send_unsent, sent_of
from separation.tracking.sent import link_of, load_sent, save_sent
from separation.tracking.tracker import Tracker, Unreachable, make_tracker
from separation.training.events import EVENTS_FILE, last_words, read_events

PATIENCE = 30.0  # seconds for one request


def sync_point(tracker: Tracker, folder: Path, extra: Iterable[File] = ()) -> bool:
    """Sends what a tracker does not have of a point; whether there was anything.

    Raises:
        Unreachable: the tracker has not taken everything; what it has taken is noted.
    """
    with point_lock(folder, tracker.name):
        return _sync(tracker, folder, extra)


def _sync(tracker: Tracker, folder: Path, extra: Iterable[File]) -> bool:
    sent, events = sent_of(folder, tracker), last_words(read_events(folder / EVENTS_FILE))
    if not events or not (folder / "config.yml").exists():
        return False
    batch = unsent(folder, events, sent, extra)
    if not batch:
        tracker.drop_archive(folder)
        return False
    sent.url = tracker.open(folder, describe(folder, events), sent) or sent.url
    sent.created = True
    save_sent(folder, tracker.name, sent)
    send_unsent(tracker, folder, sent, batch)
    tracker.close(sent.finished)
    save_sent(folder, tracker.name, sent)
    tracker.drop_archive(folder)
    return True


def sync_points(name: str, options: Mapping[str, Any], folders: Iterable[Path], extra: Iterable[File] = ()) -> dict:
    """Sends what a tracker does not have of several points.

    Returns:
        point -> the address of its page on the tracker, None where it has none.

    Raises:
        UserError: the tracker cannot be reached; what was sent before is not sent again.
    """
    extra, pages = list(extra), {}
    try:
        tracker = make_tracker(name, options, PATIENCE)
        for folder in folders:
            sync_point(tracker, folder, extra)
            known = load_sent(folder, name)
            pages[folder.name] = known.url if known is not None else link_of(folder)
    except Unreachable as problem:
        raise UserError(f"{problem}; nothing is lost, send it again at any time", key=name) from None
    return pages


def points_with_events(artifacts: Path) -> list[Path]:
    """The folders below ARTIFACTS that have an event log."""
    return sorted(path.parents[1] for path in artifacts.glob(f"*/{EVENTS_FILE}"))


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
        folders = points_with_events(settings.artifacts)
        if asked.points:
            known = {folder.name: folder for folder in folders}
            for point in asked.points:
                if point not in known:
                    raise UserError(f"{settings.artifacts} has no point of this id with an event log", key=point)
            folders = [known[point] for point in asked.points]
        for name in names:
            pages = sync_points(name, settings.tracking[name], folders)
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
