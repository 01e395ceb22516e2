"""What is known of a point's runs on trackers: ARTIFACTS/<point>/state/trackers/<tracker>.json.

A run's key is written before a tracker hears of it for the first time, and is used ever after: one point is one run,
however often it was interrupted. What was sent is noted after the tracker has taken it, so that nothing is lost and
hardly anything is sent twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from separation.files.atomic import read_json, write_json
from separation.files.layout import PointFolder


@dataclass
class Sent:
    """What a tracker has of a point.

    Attributes:
        key: of the run on the tracker.
        url: of its page, once the tracker has told it.
        created: whether the tracker knows the run.
        step, epoch: the last ones that were sent.
        finished: whether the training's end was told.
        described: whether name, tags and parameters were sent.
        first_evaluation: the one whose scores have the plain names.
        scores: what was sent of each evaluation, as a digest.
        files: what was sent under each name, as a digest.
    """

    key: str
    url: str | None = None
    created: bool = False
    step: int = 0
    epoch: int = 0
    finished: bool = False
    described: bool = False
    first_evaluation: str | None = None
    scores: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def load_sent(point: PointFolder, tracker: str) -> Sent | None:
    """What a tracker has of a point, None where it never heard of it or the file is no longer readable."""
    try:
        content = read_json(point.tracker_state(tracker))
        return Sent(**{key: value for key, value in content.items() if key in Sent.__dataclass_fields__})
    except (FileNotFoundError, json.JSONDecodeError, TypeError, AttributeError):
        return None


def save_sent(point: PointFolder, tracker: str, sent: Sent) -> None:
    """Notes what a tracker has of a point."""
    content: Mapping[str, Any] = asdict(sent)
    write_json(point.tracker_state(tracker), content)
