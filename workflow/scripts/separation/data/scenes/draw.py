"""Draws scenes with scaper: song, time, level (snr relative to ref_db), pitch and tempo of each event."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from separation.data.scenes.activity import activity
from separation.data.scenes.mixture_plan import Plan
from separation.errors import UserError
from separation.experiment.ids import seed_from_text
from separation.nussl_compat import scaper

# parameters that the events of a coherent mixture share: everything except the level
SHARED = ("source_time", "event_time", "event_duration", "pitch_shift", "time_stretch")
ATTEMPTS = 200


@dataclass(frozen=True)
class Scene:
    """The events of one mixture.

    Attributes:
        events: Values of scaper's observations, ordered by event_time, the background first.
        specs: The distributions they were drawn from, as scaper's EventSpec: background and foreground.
        conditions: Mixing conditions, flat scalars.
    """

    events: list[dict[str, Any]]
    specs: tuple[list[Any], list[Any]]
    conditions: dict[str, Any]


def draw_scene(plan: Plan, index: int) -> Scene:
    """Draws the events of mixture number `index`.

    Excerpts in which a source is active for less than the plan's min_activity are drawn again. The number of the
    attempt is part of the seed.

    Raises:
        UserError: No attempt found excerpts in which every source is active enough.
    """
    coherent = plan.is_coherent(index)
    for attempt in range(ATTEMPTS):
        state = _random_state(plan, index, attempt)
        foreground = _foreground(plan, coherent, state)
        background = _background(plan, state)
        drawn = [_draw_event(plan, spec, state) for spec in (*background, *foreground)]
        events = drawn[len(background) :]
        if coherent and len({event["source_time"] for event in events}) > 1:
            continue  # one of the files is too short for the common start
        if plan.min_activity == 0 or all(_activity(event) >= plan.min_activity for event in events):
            break
    else:
        raise UserError(
            f"{ATTEMPTS} attempts found no excerpt for mixture {index} of {plan.split} in which each source is active"
            f" {plan.min_activity:.0%} of the time; use longer excerpts, other labels, or a lower value",
            key="min_activity",
        )
    # the order in a JAMS annotation
    drawn.sort(key=lambda event: event["event_time"])
    return Scene(drawn, (background, foreground), _conditions(plan, drawn, foreground, coherent))


def _random_state(plan: Plan, index: int, attempt: int) -> np.random.RandomState:
    """Random numbers of one attempt at one mixture, independent of all others; the type is the one scaper takes."""
    entropy = [plan.seed, seed_from_text(plan.split), index, attempt]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy)))


@functools.lru_cache(maxsize=4)
def _soundscape(duration: float, folder: str) -> Any:
    return scaper.Scaper(duration, folder, folder)


def folder_labels(plan: Plan) -> list[str]:
    """The labels that scaper finds in the folder of classes."""
    return list(_soundscape(plan.duration, plan.foreground).fg_labels)


def _draw_event(plan: Plan, spec: Any, state: np.random.RandomState) -> dict[str, Any]:
    """One event drawn by scaper: times, level (`snr`, dB relative to ref_db), pitch and tempo."""
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
    """One event per label, from one song at one time if coherent."""
    labels = plan.labels or _draw_labels(plan, state)
    common: dict[str, Any] = {}
    if coherent:
        shared_songs = plan.shared_songs(tuple(labels))
        songs = [shared_songs[state.randint(len(shared_songs))]] * len(labels)
        common = _common_values(plan, labels[0], songs[0], state)
    else:
        songs = _draw_songs(plan, labels, state)
    return [
        _spec(
            label,
            plan.songs[label][song],
            plan.event_parameters[None] | common | plan.event_parameters.get(label, {}),
        )
        for label, song in zip(labels, songs, strict=True)
    ]


def _draw_labels(plan: Plan, state: np.random.RandomState) -> tuple[str, ...]:
    """The classes of a mixture, drawn from the pool; all different unless labels may repeat."""
    pool, weights = plan.pool
    if plan.allow_repeated_label:
        indices = state.choice(len(pool), size=plan.num_sources, p=weights)
    elif weights is None:
        indices = state.permutation(len(pool))[: plan.num_sources]
    else:
        indices = state.choice(len(pool), size=plan.num_sources, replace=False, p=weights)
    return tuple(pool[index] for index in indices)


def _draw_songs(plan: Plan, labels: tuple[str, ...], state: np.random.RandomState) -> list[str]:
    """A song for each label; sources with the same label have different speakers, or different files."""
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
    """The background event, if the plan has one, from any file of any background label."""
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
    """The values shared by the events of a coherent mixture, drawn once: excerpt, time in the scene, pitch, tempo."""
    drawn = _draw_event(plan, _spec(label, plan.songs[label][song], plan.event_parameters[None]), state)
    return {name: None if drawn[name] is None else ("const", drawn[name]) for name in SHARED}


def _activity(event: dict[str, Any]) -> float:
    return activity(event["source_file"], event["source_time"], event["event_duration"])


def _conditions(plan: Plan, drawn: list[dict[str, Any]], foreground: list[Any], coherent: bool) -> dict[str, Any]:
    """Mixing conditions as flat scalars. Drawn classes are numbered, to avoid a column for each class."""
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
