"""Record of what trackers have received: ARTIFACTS/<point>/state/trackers/<tracker>.json.

A run's key is written before it is first sent and is then kept: one point is one run, even after interruptions. Data is
recorded after the tracker has accepted it, so that nothing is lost and almost nothing is sent twice.
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
    """The data of a point that a tracker has received.

    Attributes:
        key: Key of the run on the tracker.
        url: Address of the run's page, if the tracker has returned one.
        created: Whether the run exists on the tracker.
        step, epoch: The last ones that were sent.
        finished: Whether the end of the training run was sent.
        described: Whether name, tags and parameters were sent.
        first_evaluation: Id of the evaluation whose metrics have no id in their names.
        scores: Digest of the scores that were sent, by evaluation.
        files: Digest of the file that was sent, by name.
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
    """The record of a point on a tracker; None if it does not exist or is not readable."""
    try:
        content = read_json(point.tracker_state(tracker))
        return Sent(**{key: value for key, value in content.items() if key in Sent.__dataclass_fields__})
    except (FileNotFoundError, json.JSONDecodeError, TypeError, AttributeError):
        return None


def save_sent(point: PointFolder, tracker: str, sent: Sent) -> None:
    """Writes the record of a point on a tracker."""
    content: Mapping[str, Any] = asdict(sent)
    write_json(point.tracker_state(tracker), content)
