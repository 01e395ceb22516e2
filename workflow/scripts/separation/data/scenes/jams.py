"""JAMS documents of scenes, the same that jams.JAMS.save writes, without building its objects."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import numpy as np

from separation.data.scenes.draw import Scene, folder_labels
from separation.data.scenes.mixture_plan import Plan
from separation.data.scenes.rendering import FADE
from separation.nussl_compat import scaper


def scene_document(scene: Scene, plan: Plan, name: str, events: list[str], scale: float) -> str:
    """The JAMS document of a scene, with the same fields that scaper writes.

    Args:
        scene: The events.
        plan: The plan they were drawn from.
        name: Name of the mixture.
        events: Relative paths of the events' audio.
        scale: Gain of the mixture and the events.
    """
    background, foreground = scene.specs
    greatest, gini = _polyphony(scene.events, plan.duration)
    labels = folder_labels(plan)
    repeated = True if plan.allow_repeated_label is None else plan.allow_repeated_label
    # nussl.datasets.Scaper opens these paths as written: only absolute ones work from any working directory
    mixture = str(plan.folder / f"{name}.wav")
    change = 20 * math.log10(scale)
    sandbox = {
        "duration": plan.duration,
        "original_duration": plan.duration,
        "fg_path": plan.foreground,
        "bg_path": plan.foreground,
        "fg_spec": foreground,
        "bg_spec": background,
        "fg_labels": labels,
        "bg_labels": labels,
        "protected_labels": [],
        "sr": plan.sample_rate,
        "ref_db": plan.ref_db,
        "n_channels": plan.num_channels,
        "fade_in_len": FADE,
        "fade_out_len": FADE,
        "n_events": len(foreground),
        "polyphony_max": greatest,
        "polyphony_gini": gini,
        "allow_repeated_label": repeated,
        "allow_repeated_source": True,
        "reverb": plan.reverb,
        "scaper_version": scaper.__version__,
        "soundscape_audio_path": mixture,
        "isolated_events_audio_path": [str(plan.folder / event) for event in events],
        "audio_path": mixture,
        "jams_path": str(plan.folder / f"{name}.jams"),
        "fix_clipping": True,
        "peak_normalization": False,
        "save_isolated_events": True,
        "isolated_events_path": str(plan.folder / f"{name}_events"),
        "disable_sox_warnings": True,
        "no_audio": False,
        "txt_path": None,
        "txt_sep": "\t",
        "disable_instantiation_warnings": True,
        "peak_normalization_scale_factor": scale,
        "ref_db_change": change,
        "ref_db_generated": plan.ref_db + change,
        "quick_pitch_time": False,
    }
    return _jams_text(scene.events, sandbox)


@functools.cache
def empty_document() -> dict[str, Any]:
    """A document with one scaper annotation and no event, as jams itself creates it."""
    origin = ("version", "corpus", "annotation_tools", "annotation_rules", "validation", "data_source")
    annotation = {
        "annotation_metadata": {
            "curator": {"name": "", "email": ""},
            "annotator": {},
            **dict.fromkeys(origin, ""),
        },
        "namespace": "scaper",
        "data": [],
        "sandbox": {"scaper": {}},
        "time": 0,
        "duration": 1.0,
    }
    about = {"title": "", "artist": "", "release": "", "duration": 1.0, "identifiers": {}}
    about["jams_version"] = metadata.version("jams")
    return {"annotations": [annotation], "file_metadata": about, "sandbox": {}}


def _jams_text(events: Sequence[Mapping[str, Any]], sandbox: Mapping[str, Any]) -> str:
    """The JAMS document of one scene.

    Args:
        events: Values of the observations, ordered by event_time.
        sandbox: Content of the sandbox `scaper`, with at least `duration`.
    """
    empty, duration = empty_document(), sandbox["duration"]
    annotation = empty["annotations"][0] | {
        "data": [_observation(event) for event in events],
        "sandbox": {"scaper": sandbox},
        "duration": duration,
    }
    document = empty | {
        "annotations": [annotation],
        "file_metadata": empty["file_metadata"] | {"duration": duration},
    }
    # on one line: indentation would take longer than everything else
    return json.dumps(document, default=_plain) + "\n"


def _observation(event: Mapping[str, Any]) -> dict[str, Any]:
    """One event as an observation of the namespace `scaper`, with its duration after time stretching."""
    stretch = event["time_stretch"] or 1.0
    return {
        "time": float(event["event_time"]),
        "duration": float(event["event_duration"] * stretch),
        "value": dict(event),
        "confidence": 1.0,
    }


def _polyphony(events: Sequence[Mapping[str, Any]], duration: float) -> tuple[int, float]:
    """Maximum polyphony and its Gini coefficient, computed by scaper."""
    times = ((each["time"], each["duration"], each["value"]["role"]) for each in map(_observation, events))
    return _cached_polyphony(tuple(times), duration)


@functools.lru_cache(maxsize=1024)
def _cached_polyphony(times: tuple[tuple[float, float, str], ...], duration: float) -> tuple[int, float]:
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
