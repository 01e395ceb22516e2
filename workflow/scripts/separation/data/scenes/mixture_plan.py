"""Plan of a split's mixtures: a recipe, checked against its source."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.data.audio.pcm import BITDEPTHS
from separation.data.manifests import by_split_and_class
from separation.data.scenes.distributions import check_event_parameters, distribution
from separation.data.scenes.rendering import Format
from separation.errors import UserError

# values of keys that a recipe omits
DEFAULTS: dict[str, Any] = {
    "num_channels": 1, "ref_db": -40.0, "bitdepth": 16, "seed": 0, "coherent": True, "allow_repeated_label": None,
    "background": None, "reverb": None, "min_activity": 0.25,
}  # fmt: skip
# keys that a split may override
OVERRIDES = (
    "coherent", "allow_repeated_label", "background", "reverb", "ref_db", "seed", "min_activity",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Everything that a process needs to mix any mixture of a split.

    Attributes:
        split: Name of the split.
        sample_rate: Rate in Hz.
        num_channels: Number of channels.
        duration: Length of a mixture in seconds.
        ref_db: Loudness of the background, or of an event of 0 dB, in LUFS.
        bitdepth: Bits per sample.
        seed: Seed of the random numbers.
        labels: One event per label; empty if `num_sources` classes are drawn for each mixture.
        num_sources: Number of events.
        allow_repeated_label: Whether drawn classes may repeat; None if the recipe does not set it.
        pool: The classes to draw from, and their probabilities; None for equal ones.
        coherent: Whether the events of a mixture come from the same song and time.
        incoherent_fraction: Share of incoherent mixtures in a coherent dataset.
        min_activity: Share of its excerpt in which each source must be active.
        event_parameters: Scaper distributions or None by label and parameter; the key None is for all other labels.
        background_labels: Classes of the background; empty for none.
        background_time: Distribution of the background's start in its file.
        reverb: Reverberance of the mixture from 0 to 1, or None.
        songs: Absolute paths of the resampled files by class and song.
        speakers: Speakers by path, where known.
        foreground: Absolute path of the folder of classes.
        folder: Folder of the mixtures.
    """

    split: str
    sample_rate: int
    num_channels: int
    duration: float
    ref_db: float
    bitdepth: int
    seed: int
    labels: tuple[str, ...]
    num_sources: int
    allow_repeated_label: bool | None
    pool: tuple[tuple[str, ...], tuple[float, ...] | None]
    coherent: bool
    incoherent_fraction: float
    min_activity: float
    event_parameters: dict[str | None, dict[str, Any]]
    background_labels: tuple[str, ...]
    background_time: tuple
    reverb: float | None
    songs: dict[str, dict[str, str]]
    speakers: dict[str, str]
    foreground: str
    folder: Path = field(compare=False)

    def is_coherent(self, index: int) -> bool:
        """Whether the events of mixture `index` share song and time. Incoherent mixtures are spread evenly."""
        before, after = (math.floor(count * self.incoherent_fraction + 1e-9) for count in (index, index + 1))
        return self.coherent and before == after

    @property
    def format(self) -> Format:
        """Format of the scenes."""
        return Format(self.sample_rate, self.num_channels, self.duration, self.ref_db)

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return {path: song for songs in self.songs.values() for song, path in songs.items()}

    @functools.cached_property
    def _sorted(self) -> dict[str, list[str]]:
        return {label: sorted(songs) for label, songs in self.songs.items()}

    def sorted_songs(self, label: str) -> list[str]:
        """The songs of a class, sorted."""
        return self._sorted[label]

    def shared_songs(self, labels: tuple[str, ...]) -> list[str]:
        """The songs that have all the labels, sorted."""
        return sorted(set.intersection(*(set(self.songs[label]) for label in labels)))

    def song_of(self, path: str) -> str:
        """The song of a file."""
        return self._names[path]

    def speaker_of(self, label: str, song: str) -> str:
        """The speaker or player of a file; the song if unknown."""
        return self.speakers.get(self.songs[label][song], song)


def make_plan(spec: dict[str, Any], split: str, source: dict[str, Any], resampled: Path, folder: Path) -> Plan:
    """Checks a recipe against the source and plans its mixtures.

    Args:
        spec: Keys of a recipe; see mix_dataset.
        split: Key of its mixture_parameters.
        source: Manifest of resample_source.
        resampled: Folder of that manifest.
        folder: Folder of the mixtures.

    Raises:
        UserError: A value is out of range, or the source lacks the split, a class, songs, or speakers.
    """
    if split not in spec["mixture_parameters"]:
        raise UserError(
            f"expected a split {split!r}, found {_listed(spec['mixture_parameters'])}", key="mixture_parameters"
        )
    parameters, key = spec["mixture_parameters"][split], f"mixture_parameters.{split}"
    spec = DEFAULTS | spec | {name: parameters[name] for name in OVERRIDES if name in parameters}
    events = _merge_events(spec["event_parameters"], parameters.get("event_parameters"))
    available = by_split_and_class(source["files"])
    if split not in available:
        raise UserError(f"the source has no split of this name, only {_listed(available)}", key=key)
    classes = available[split]
    background = spec["background"] or {}
    background_labels = tuple(background.get("labels") or ())
    labels, num_sources = tuple(parameters.get("labels") or ()), parameters.get("num_sources")
    if bool(labels) == bool(num_sources):
        raise UserError("expected either labels (one event each) or num_sources (drawn from all classes)", key=key)
    _check_classes(labels, classes, f"{key}.labels")
    _check_classes(background_labels, classes, "background.labels")
    pool = _pool(events, [label for label in classes if label not in background_labels])
    _check_repeated_labels(labels, num_sources, pool[0], spec, key)
    if spec["coherent"]:
        _check_shared_songs(labels, classes, key)
    fraction = parameters.get("incoherent_fraction", 0.0)
    _check_values(spec, fraction, key)
    if len({entry["sample_rate"] for entry in source["files"]} | {spec["sample_rate"]}) > 1:
        raise UserError(f"expected files of {spec['sample_rate']} Hz in {resampled}", key="sample_rate")
    used = {*(labels or pool[0]), *background_labels}
    plan = Plan(
        split=split,
        sample_rate=int(spec["sample_rate"]),
        num_channels=spec["num_channels"],
        duration=float(parameters["scene_duration"]),
        ref_db=float(spec["ref_db"]),
        bitdepth=spec["bitdepth"],
        seed=spec["seed"],
        labels=labels,
        num_sources=len(labels) or num_sources,
        allow_repeated_label=spec["allow_repeated_label"],
        pool=pool,
        coherent=spec["coherent"],
        incoherent_fraction=fraction,
        min_activity=spec["min_activity"],
        event_parameters=check_event_parameters(
            {name: value for name, value in events.items() if name not in ("label", "source_file")},
            list(classes),
            str(resampled / split),
        ),
        background_labels=background_labels,
        background_time=distribution(background.get("source_time") or ["const", 0]),
        reverb=spec["reverb"],
        songs={
            label: {song: str(resampled / path) for song, path in songs.items()}
            for label, songs in classes.items()
            if label in used
        },
        speakers={
            str(resampled / entry["path"]): entry["speaker"]
            for entry in source["files"]
            if entry["split"] == split and "speaker" in entry
        },
        foreground=str(resampled / split),
        folder=folder,
    )
    _check_repeats(plan, key)
    return plan


def _check_classes(names: Iterable[str], classes: Iterable[str], key: str) -> None:
    missing = [name for name in names if name not in classes]
    if missing:
        raise UserError(f"the source has no class {missing[0]!r}, only {_listed(classes)}", key=key)


def _check_repeated_labels(
    labels: tuple[str, ...], num_sources: int | None, pool: tuple[str, ...], spec: dict[str, Any], key: str
) -> None:
    """Raises UserError if labels repeat, or would have to, and the recipe does not allow it."""
    if spec["allow_repeated_label"]:
        return
    if len(set(labels)) < len(labels):
        raise UserError("duplicate label; set allow_repeated_label: true to allow it", key=f"{key}.labels")
    if num_sources and num_sources > len(pool):
        raise UserError(
            f"expected at most {len(pool)}, the classes of the source, or allow_repeated_label: true; "
            f"found {num_sources}",
            key=f"{key}.num_sources",
        )


def _check_shared_songs(labels: tuple[str, ...], classes: dict[str, dict[str, str]], key: str) -> None:
    """Raises UserError if coherent mixtures are impossible."""
    if not labels or len(set(labels)) < len(labels):
        raise UserError(
            "expected different labels, or coherent: false: classes drawn at random have no song in common", key=key
        )
    if not set.intersection(*(set(classes[label]) for label in labels)):
        raise UserError(f"no song has all of {_listed(labels)}", key=f"{key}.labels")


def _check_values(spec: dict[str, Any], incoherent_fraction: float, key: str) -> None:
    """Raises UserError if a value is out of range."""
    if not 0 <= incoherent_fraction <= 1:
        raise UserError(f"expected a share from 0 to 1, found {incoherent_fraction}", key=f"{key}.incoherent_fraction")
    if spec["bitdepth"] not in BITDEPTHS:
        raise UserError(f"expected one of {_listed(BITDEPTHS)}, found {spec['bitdepth']}", key="bitdepth")
    if spec["reverb"] is not None and not 0 <= spec["reverb"] <= 1:
        raise UserError(f"expected a reverberance from 0 to 1, found {spec['reverb']}", key="reverb")


def _merge_events(general: dict[str, Any], overrides: dict[str, Any] | None) -> dict[str, Any]:
    """event_parameters, overridden by those of a split."""
    overrides = overrides or {}
    by_label = {**(general.get("by_label") or {})}
    for label, parameters in (overrides.get("by_label") or {}).items():
        by_label[label] = {**(by_label.get(label) or {}), **(parameters or {})}
    return {**general, **overrides, "by_label": by_label}


def _pool(events: dict[str, Any], classes: list[str]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The classes that the distribution `event_parameters.label` draws from, and their probabilities."""
    key = "event_parameters.label"
    files = events.get("source_file")
    if files is not None and list(files) != ["choose", []]:
        raise UserError(f"expected [choose, []], found {files!r}", key="event_parameters.source_file")
    given = events.get("label")
    if given is None or list(given) == ["choose", []]:
        return tuple(sorted(classes)), None
    kinds = {"const": 2, "choose": 2, "choose_weighted": 3}
    if not isinstance(given, list | tuple) or len(given) != kinds.get(given[0]):
        raise UserError(f"expected a distribution of labels such as [choose, []], found {given!r}", key=key)
    names = tuple([given[1]] if given[0] == "const" else given[1])
    _check_classes(names, classes, key)
    weights = tuple(float(weight) for weight in given[2]) if given[0] == "choose_weighted" else None
    if weights and (len(weights) != len(names) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-6):
        raise UserError(f"expected {len(names)} probabilities with a sum of 1, found {given[2]!r}", key=key)
    return names, weights


def _check_repeats(plan: Plan, key: str) -> None:
    """Raises UserError if a mixture may need more sources of a label than it has speakers or files."""
    for label in plan.songs:
        times = plan.labels.count(label)
        if not plan.labels and plan.allow_repeated_label and label in plan.pool[0]:
            times = plan.num_sources
        speakers = {plan.speaker_of(label, song) for song in plan.songs[label]}
        if times > max(1, len(speakers)):
            raise UserError(
                f"a mixture may need {times} sources of class {label!r}, which has only "
                f"{len(speakers)} speakers or files in {plan.split}",
                key=key,
            )


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in names)
