"""What a mixture is made of: scaper draws songs, times and levels, and makes the audio of each event."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from separation.data.excerpts import activity
from separation.errors import UserError
from separation.nussl_compat import scaper

if TYPE_CHECKING:
    from separation.data.mixing import Plan

PARAMETERS = ("source_time", "event_time", "event_duration", "snr", "pitch_shift", "time_stretch")
# what the events of a coherent mixture have in common: all but their level
SHARED = ("source_time", "event_time", "event_duration", "pitch_shift", "time_stretch")
OPTIONAL = {"event_time": ("const", 0.0), "pitch_shift": None, "time_stretch": None}
ATTEMPTS = 200


@dataclass(frozen=True)
class Scene:
    """One mixture before it is written.

    Attributes:
        jam: scaper's JAMS object.
        labels: of the events.
        audio: of the events, float64 (frames, channels), as long as the scene.
        conditions: flat scalars.
    """

    jam: Any
    labels: list[str]
    audio: list[np.ndarray]
    conditions: dict[str, Any]


def check_event_parameters(
    given: dict[str, Any], classes: list[str], foreground: str
) -> dict[str | None, dict[str, Any]]:
    """Reads the distributions of a recipe and lets scaper check each.

    Args:
        given: event_parameters of a recipe: parameter -> [distribution, ...] or null, and by_label: label -> the same.
        classes: the labels there are.
        foreground: folder of the classes.

    Returns:
        label -> parameter -> distribution tuple or None; the key None holds those of labels without their own.

    Raises:
        UserError: an unknown parameter or label, a parameter left out, or a distribution that scaper refuses.
    """
    by_label = given.get("by_label") or {}
    unknown = [label for label in by_label if label not in classes]
    if unknown:
        raise UserError(f"expected one of {', '.join(classes)}", key=f"event_parameters.by_label.{unknown[0]}")
    general = {key: value for key, value in given.items() if key != "by_label"}
    required = [name for name in PARAMETERS if name not in OPTIONAL and name not in general]
    if required:
        raise UserError(
            "expected a distribution such as [const, 0], found nothing", key=f"event_parameters.{required[0]}"
        )
    result = {None: OPTIONAL | _distributions(general, "event_parameters", classes[0], foreground)}
    for label, own in by_label.items():
        result[label] = _distributions(own or {}, f"event_parameters.by_label.{label}", label, foreground)
    return result


def _distributions(given: dict[str, Any], key: str, label: str, foreground: str) -> dict[str, Any]:
    harmless = {"source_time": ("const", 0), "event_duration": ("const", 1), "snr": ("const", 0), **OPTIONAL}
    result = {}
    for name, value in given.items():
        if name not in PARAMETERS:
            raise UserError(f"expected one of {', '.join(PARAMETERS)}", key=f"{key}.{name}")
        result[name] = _tuple(value)
        try:
            checker = scaper.Scaper(1.0, foreground, foreground)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                checker.add_event(
                    label=("const", label), source_file=("choose", []), **(harmless | {name: result[name]})
                )
        except (scaper.scaper_exceptions.ScaperError, TypeError, IndexError, AttributeError) as error:
            raise UserError(
                f"expected a distribution of scaper such as [uniform, 0, 1], found {value!r}: {error}",
                key=f"{key}.{name}",
            ) from error
    return result


def _tuple(value: Any) -> Any:
    """A distribution as scaper wants it, all numbers floats: recipes that spell them otherwise give the same files."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(
        [float(each) for each in part] if isinstance(part, list | tuple) else float(part) if _is_number(part) else part
        for part in value
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def draw_scene(plan: Plan, index: int) -> Scene:
    """Draws and makes the events of mixture number `index`.

    Excerpts in which a label hardly sounds are drawn again, from a seed of the attempt's number.

    Raises:
        UserError: no attempt found excerpts in which each label sounds for the plan's min_activity.
    """
    for attempt in range(ATTEMPTS):
        state = _random_state(plan, index, attempt)
        soundscape = _soundscape(plan)
        coherent = plan.is_coherent(index)
        songs = _add_events(soundscape, plan, coherent, state)
        soundscape.set_random_state(state)
        before = state.get_state()
        _, jam, _, _ = soundscape.generate(no_audio=True, disable_instantiation_warnings=True)
        drawn = [event.value for event in jam.annotations.search(namespace="scaper")[0].data]
        if coherent and len({event["source_time"] for event in drawn}) > 1:
            continue  # one of the files was too short for the time of the others
        if all(_activity(event) >= plan.min_activity for event in drawn):
            break
    else:
        raise UserError(
            f"{ATTEMPTS} attempts found no excerpt for mixture {index} of {plan.split} in which each source sounds"
            f" {plan.min_activity:.0%} of the time; use longer excerpts, other labels, or a lower value",
            key="min_activity",
        )
    # the same draws once more, now with audio
    state.set_state(before)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Soundscape audio is clipping")  # the writer turns it down
        _, jam, _, audio = soundscape.generate(disable_instantiation_warnings=True)
    labels = [event["label"] for event in drawn]
    return Scene(jam, labels, audio, _conditions(plan, drawn, songs, coherent))


def _random_state(plan: Plan, index: int, attempt: int) -> np.random.RandomState:
    """The random numbers of one attempt at one mixture, independent of all others (of the kind that scaper takes)."""
    split = int.from_bytes(hashlib.sha256(plan.split.encode()).digest()[:4], "big")
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([plan.seed, split, index, attempt])))


def _soundscape(plan: Plan) -> Any:
    soundscape = scaper.Scaper(plan.duration, plan.foreground, plan.foreground)
    soundscape.sr, soundscape.ref_db, soundscape.n_channels = plan.sample_rate, plan.ref_db, plan.num_channels
    return soundscape


def _add_events(soundscape: Any, plan: Plan, coherent: bool, state: np.random.RandomState) -> list[str]:
    """Adds one event per label, of one song and time or of any.

    Returns:
        the song of each event.
    """
    labels = plan.labels or tuple(
        sorted(plan.songs)[place] for place in state.permutation(len(plan.songs))[: plan.num_sources]
    )
    common: dict[str, Any] = {}
    if coherent:
        shared_songs = sorted(set.intersection(*(set(plan.songs[label]) for label in labels)))
        songs = [shared_songs[state.randint(len(shared_songs))]] * len(labels)
        common = _common_values(plan, labels[0], songs[0], state)
    else:
        songs = [sorted(plan.songs[label])[state.randint(len(plan.songs[label]))] for label in labels]
    for label, song in zip(labels, songs, strict=True):
        parameters = plan.event_parameters[None] | common | plan.event_parameters.get(label, {})
        soundscape.add_event(label=("const", label), source_file=("const", plan.songs[label][song]), **parameters)
    return songs


def _common_values(plan: Plan, label: str, song: str, state: np.random.RandomState) -> dict[str, Any]:
    """What the events of a coherent mixture share, drawn once by scaper: excerpt, place in the scene, pitch, tempo."""
    soundscape = _soundscape(plan)
    soundscape.add_event(
        label=("const", label), source_file=("const", plan.songs[label][song]), **plan.event_parameters[None]
    )
    soundscape.set_random_state(state)
    _, jam, _, _ = soundscape.generate(no_audio=True, disable_instantiation_warnings=True)
    drawn = jam.annotations.search(namespace="scaper")[0].data[0].value
    return {name: None if drawn[name] is None else ("const", drawn[name]) for name in SHARED}


def _activity(event: dict[str, Any]) -> float:
    return activity(event["source_file"], event["source_time"], event["event_duration"])


def _conditions(plan: Plan, drawn: list[dict[str, Any]], songs: list[str], coherent: bool) -> dict[str, Any]:
    """How a mixture was made, as flat scalars. Drawn classes are counted, lest each has a column of its own."""
    conditions: dict[str, Any] = {"coherent": coherent, "songs": "+".join(dict.fromkeys(songs))}
    if not plan.labels:
        conditions["labels"] = "+".join(event["label"] for event in drawn)
    if coherent:
        conditions["source_time"] = float(drawn[0]["source_time"])
    for number, event in enumerate(drawn):
        name = event["label"] if plan.labels else str(number)
        conditions[f"snr_{name}"] = float(event["snr"])
        if not coherent:
            conditions[f"source_time_{name}"] = float(event["source_time"])
        for effect in ("pitch_shift", "time_stretch"):
            if event[effect] is not None:
                conditions[f"{effect}_{name}"] = float(event[effect])
    return conditions
