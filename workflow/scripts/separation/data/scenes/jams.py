"""JAMS documents of scenes, the same that jams.JAMS.save writes, without building its objects."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from separation.nussl_compat import scaper


@functools.cache
def _empty() -> dict[str, Any]:
    """A document with one scaper annotation and no event, created by jams itself."""
    import jams

    document = jams.JAMS()
    annotation = jams.Annotation(namespace="scaper", duration=1.0)
    annotation.sandbox.scaper = {}
    document.annotations.append(annotation)
    document.file_metadata.duration = 1.0
    return json.loads(document.dumps())


def jams_text(events: Sequence[Mapping[str, Any]], sandbox: Mapping[str, Any]) -> str:
    """The JAMS document of one scene.

    Args:
        events: Values of the observations, ordered by event_time.
        sandbox: Content of the sandbox `scaper`, with at least `duration`.
    """
    empty, duration = _empty(), sandbox["duration"]
    annotation = empty["annotations"][0] | {
        "data": [observation(event) for event in events],
        "sandbox": {"scaper": sandbox},
        "duration": duration,
    }
    document = empty | {
        "annotations": [annotation],
        "file_metadata": empty["file_metadata"] | {"duration": duration},
    }
    # on one line: indentation would take longer than everything else
    return json.dumps(document, default=_plain) + "\n"


def observation(event: Mapping[str, Any]) -> dict[str, Any]:
    """One event as an observation of the namespace `scaper`, with its duration after time stretching."""
    stretch = event["time_stretch"] or 1.0
    return {
        "time": float(event["event_time"]),
        "duration": float(event["event_duration"] * stretch),
        "value": dict(event),
        "confidence": 1.0,
    }


def polyphony(events: Sequence[Mapping[str, Any]], duration: float) -> tuple[int, float]:
    """Maximum polyphony and its Gini coefficient, computed by scaper."""
    times = ((each["time"], each["duration"], each["value"]["role"]) for each in map(observation, events))
    return _polyphony(tuple(times), duration)


@functools.lru_cache(maxsize=1024)
def _polyphony(times: tuple[tuple[float, float, str], ...], duration: float) -> tuple[int, float]:
    data = [SimpleNamespace(time=time, duration=length, value={"role": role}) for time, length, role in times]
    intervals = np.array([[each.time, each.time + each.duration] for each in data])
    annotation = SimpleNamespace(
        data=data,
        duration=duration,
        namespace="scaper",
        to_interval_values=lambda: (intervals, [each.value for each in data]),
    )
    return scaper.util.max_polyphony(annotation), float(scaper.util.polyphony_gini(annotation))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is not a JSON type")
