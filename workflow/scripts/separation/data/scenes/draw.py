"""What a mixture is made of: scaper draws songs, times and levels of the events."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from separation.data.scenes.activity import activity
from separation.data.scenes.mixture_plan import Plan
from separation.errors import UserError
from separation.nussl_compat import scaper

# what the events of a coherent mixture have in common: all but their level
SHARED = ("source_time", "event_time", "event_duration", "pitch_shift", "time_stretch")
ATTEMPTS = 200


@dataclass(frozen=True)
class Scene:
    """One mixture, drawn.

    Attributes:
        events: values of scaper's observations in the order of their event_time, the background before others.
        specs: what they were drawn from, as scaper's EventSpec: of the background, of the foreground.
        conditions: flat scalars.
    """

    events: list[dict[str, Any]]
    specs: tuple[list[Any], list[Any]]
    conditions: dict[str, Any]


def draw_scene(plan: Plan, index: int) -> Scene:
    """Draws the events of mixture number `index`.

    Excerpts in which a label hardly sounds are drawn again, from a seed of the attempt's number.

    Raises:
        UserError: no attempt found excerpts in which each label sounds for the plan's min_activity.
    """
    coherent = plan.is_coherent(index)
    for attempt in range(ATTEMPTS):
        state = _random_state(plan, index, attempt)
        foreground = _foreground(plan, coherent, state)
        background = _background(plan, state)
        drawn = [_instantiated(plan, spec, state) for spec in (*background, *foreground)]
        events = drawn[len(background) :]
        if coherent and len({event["source_time"] for event in events}) > 1:
            continue  # one of the files was too short for the time of the others
        if plan.min_activity == 0 or all(_activity(event) >= plan.min_activity for event in events):
            break
    else:
        raise UserError(
            f"{ATTEMPTS} attempts found no excerpt for mixture {index} of {plan.split} in which each source sounds"
            f" {plan.min_activity:.0%} of the time; use longer excerpts, other labels, or a lower value",
            key="min_activity",
        )
    # as a JAMS annotation orders them
    drawn.sort(key=lambda event: event["event_time"])
    return Scene(drawn, (background, foreground), _conditions(plan, drawn, foreground, coherent))


def _random_state(plan: Plan, index: int, attempt: int) -> np.random.RandomState:
    """The random numbers of one attempt at one mixture, independent of all others (of the kind that scaper takes)."""
    split = int.from_bytes(hashlib.sha256(plan.split.encode()).digest()[:4], "big")
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([plan.seed, split, index, attempt])))


@functools.lru_cache(maxsize=4)
def _soundscape(duration: float, folder: str) -> Any:
    return scaper.Scaper(duration, folder, folder)


def folder_labels(plan: Plan) -> list[str]:
    """The labels that scaper finds in the folder of the classes."""
    return list(_soundscape(plan.duration, plan.foreground).fg_labels)


def _instantiated(plan: Plan, spec: Any, state: np.random.RandomState) -> dict[str, Any]:
    """The values that scaper draws for one event."""
    soundscape = _soundscape(plan.duration, plan.foreground)
    soundscape.random_state = state
    value = soundscape._instantiate_event(
        spec,
        isbackground=spec.role == "background",
        used_labels=[],
        used_source_files=[],
        disable_instantiation_warnings=True,
    )
    return value._asdict()


def _spec(label: str, file: str, parameters: dict[str, Any], role: str = "foreground") -> Any:
    return scaper.core.EventSpec(label=("const", label), source_file=("const", file), role=role, **parameters)


def _foreground(plan: Plan, coherent: bool, state: np.random.RandomState) -> list[Any]:
    """One event per label, of one song and time or of any."""
    labels = plan.labels or _drawn_labels(plan, state)
    common: dict[str, Any] = {}
    if coherent:
        shared_songs = plan.shared_songs(tuple(labels))
        songs = [shared_songs[state.randint(len(shared_songs))]] * len(labels)
        common = _common_values(plan, labels[0], songs[0], state)
    else:
        songs = _drawn_songs(plan, labels, state)
    return [
        _spec(
            label,
            plan.songs[label][song],
            plan.event_parameters[None] | common | plan.event_parameters.get(label, {}),
        )
        for label, song in zip(labels, songs, strict=True)
    ]


def _drawn_labels(plan: Plan, state: np.random.RandomState) -> tuple[str, ...]:
    """The classes of a mixture: any of the pool, all different where labels must not repeat."""
    pool, weights = plan.pool
    if plan.allow_repeated_label:
        return tuple(pool[place] for place in state.choice(len(pool), size=plan.num_sources, p=weights))
    if weights is None:
        return tuple(pool[place] for place in state.permutation(len(pool))[: plan.num_sources])
    return tuple(pool[place] for place in state.choice(len(pool), size=plan.num_sources, replace=False, p=weights))


def _drawn_songs(plan: Plan, labels: tuple[str, ...], state: np.random.RandomState) -> list[str]:
    """A song for each label; sources of one label are of different speakers, or of different files."""
    songs: list[str] = []
    taken: dict[str, set[str]] = {}
    for label in labels:
        choice = plan.sorted_songs(label)
        if label in taken:
            choice = [song for song in choice if plan.speaker_of(label, song) not in taken[label]]
        songs.append(choice[state.randint(len(choice))])
        taken.setdefault(label, set()).add(plan.speaker_of(label, songs[-1]))
    return songs


def _background(plan: Plan, state: np.random.RandomState) -> list[Any]:
    """The background event, where the plan has one: of any of its labels, from any of their files."""
    if not plan.background_labels:
        return []
    label = plan.background_labels[state.randint(len(plan.background_labels))]
    choice = plan.sorted_songs(label)
    parameters = {
        "source_time": plan.background_time,
        "event_time": ("const", 0),
        "event_duration": ("const", plan.duration),
        "snr": ("const", 0),
        "pitch_shift": None,
        "time_stretch": None,
    }
    return [_spec(label, plan.songs[label][choice[state.randint(len(choice))]], parameters, "background")]


def _common_values(plan: Plan, label: str, song: str, state: np.random.RandomState) -> dict[str, Any]:
    """What the events of a coherent mixture share, drawn once by scaper: excerpt, place in the scene, pitch, tempo."""
    drawn = _instantiated(plan, _spec(label, plan.songs[label][song], plan.event_parameters[None]), state)
    return {name: None if drawn[name] is None else ("const", drawn[name]) for name in SHARED}


def _activity(event: dict[str, Any]) -> float:
    return activity(event["source_file"], event["source_time"], event["event_duration"])


def _conditions(plan: Plan, drawn: list[dict[str, Any]], foreground: list[Any], coherent: bool) -> dict[str, Any]:
    """How a mixture was made, as flat scalars. Drawn classes are counted, lest each has a column of its own."""
    songs = [plan.song_of(spec.source_file[1]) for spec in foreground]
    events = [event for event in drawn if event["role"] == "foreground"]
    conditions: dict[str, Any] = {"coherent": coherent, "songs": "+".join(dict.fromkeys(songs))}
    if not plan.labels:
        conditions["labels"] = "+".join(event["label"] for event in events)
    for event in drawn:
        if event["role"] == "background":
            conditions["background"] = plan.song_of(event["source_file"])
    if coherent:
        conditions["source_time"] = float(events[0]["source_time"])
    labels = [event["label"] for event in events]
    for number, event in enumerate(events):
        label = event["label"]
        speaker = plan.speakers.get(event["source_file"])
        name = label if plan.labels and labels.count(label) == 1 else str(number)
        conditions[f"snr_{name}"] = float(event["snr"])
        if speaker is not None:
            conditions[f"speaker_{name}"] = speaker
        if not coherent:
            conditions[f"source_time_{name}"] = float(event["source_time"])
        for effect in ("pitch_shift", "time_stretch"):
            if event[effect] is not None:
                conditions[f"{effect}_{name}"] = float(event[effect])
    return conditions
