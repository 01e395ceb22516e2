"""Mixes sources into scenes with scaper: per item a mixture, its isolated events and a JAMS file that says how."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.audio_files import SUBTYPES, quick_path, to_pcm, write_pcm
from separation.data.parallel import run_in_order
from separation.data.scenes import Scene, check_event_parameters, draw_scene
from separation.data.source_files import (
    by_split_and_class,
    finish_manifest,
    read_source_manifest,
    remove_strays,
    start_manifest,
)
from separation.errors import UserError
from separation.files import sha256_of

logger = logging.getLogger(__name__)

MIXTURES_PER_PROCESS = 30  # take as long as starting one, which imports scaper


@dataclass(frozen=True)
class Plan:
    """Everything that the mixtures of a split are made from; what a process needs to make any of them.

    Attributes:
        split, sample_rate (Hz), num_channels, duration (s), ref_db (LUFS of an event of 0 dB), bitdepth, seed: as in
            the recipe.
        labels: one event per label; empty where `num_sources` classes are drawn per mixture.
        num_sources: number of events.
        coherent: whether the events of a mixture come from one song and time.
        incoherent_fraction: share of the mixtures for which they do not all the same.
        min_activity: share of its excerpt in which each event sounds at least.
        event_parameters: label -> parameter -> scaper distribution or None; under None those of all other labels.
        songs: class -> song -> absolute path of the resampled file.
        foreground: absolute path of the folder of the classes.
        folder: where the files go.
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
    coherent: bool
    incoherent_fraction: float
    min_activity: float
    event_parameters: dict[str | None, dict[str, Any]]
    songs: dict[str, dict[str, str]]
    foreground: str
    folder: Path = field(compare=False)

    def is_coherent(self, index: int) -> bool:
        """Whether mixture `index` is of one song and time. Incoherent ones are spread evenly over the indices."""
        before, after = (math.floor(count * self.incoherent_fraction + 1e-9) for count in (index, index + 1))
        return self.coherent and before == after


def mix_dataset(spec: dict[str, Any], split: str, resampled: Path, manifest: Path, workers: int = 1) -> None:
    """Mixes one split of a dataset into the folder of its manifest.

    Per item: `000000.wav` (the mixture), `000000_events/foreground0_<label>.wav` (the events, which add up to the
    mixture) and `000000.jams`. A mixture depends on the recipe, the split's name and its number alone: neither the
    number of workers nor the number of mixtures changes it. nussl.datasets.Scaper reads the folder; for its sake the
    JAMS files hold absolute paths, as scaper writes them. The manifest holds none.

    Args:
        spec: sample_rate, mixture_parameters, event_parameters, and optionally num_channels (1), ref_db (-40), bitdepth
            (16), seed (0), coherent (true), min_activity (0.25), as a recipe has them.
        split: a key of mixture_parameters.
        resampled: the manifest of resample_source.
        manifest: written last.
        workers: number of processes.

    Raises:
        UserError: the recipe asks for what the source does not have, or a source file is missing or changed.
    """
    source = read_source_manifest(resampled)
    plan = make_plan(spec, split, source, Path(resampled).resolve().parent, Path(manifest).resolve().parent)
    start_manifest(manifest)
    count = spec["mixture_parameters"][split]["num_mixtures"]
    calls = [(plan, index) for index in range(count)]
    items = run_in_order(mix_item, calls, workers=workers, share=MIXTURES_PER_PROCESS, what=f"mixtures of {split}")
    remove_strays(
        manifest, [path for item in items for path in (item["mixture"], item["jams"], *item["sources"].values())]
    )
    contents = {
        "split": split,
        "sample_rate": plan.sample_rate,
        "num_channels": plan.num_channels,
        "class": "Scaper",
        "items": items,
        "counts": {
            "items": len(items),
            "incoherent": sum(not item["conditions"]["coherent"] for item in items),
            "turned_down": sum(item["conditions"]["turned_down_db"] > 0 for item in items),
        },
        "attribution": source["attribution"],
    }
    finish_manifest(manifest, spec, contents)


def make_plan(spec: dict[str, Any], split: str, source: dict[str, Any], resampled: Path, folder: Path) -> Plan:
    """Checks a recipe against the source and brings together what its mixtures need.

    Raises:
        UserError: a value is out of range, or the source lacks the split, a class, or songs.
    """
    if split not in spec["mixture_parameters"]:
        raise UserError(
            f"expected a split {split!r}, found {_listed(spec['mixture_parameters'])}", key="mixture_parameters"
        )
    parameters, key = spec["mixture_parameters"][split], f"mixture_parameters.{split}"
    available = by_split_and_class(source["files"])
    if split not in available:
        raise UserError(f"the source has no split of this name, only {_listed(available)}", key=key)
    classes = available[split]
    labels, num_sources = tuple(parameters.get("labels") or ()), parameters.get("num_sources")
    if bool(labels) == bool(num_sources):
        raise UserError("expected either labels (one event each) or num_sources (drawn from all classes)", key=key)
    missing = [label for label in labels if label not in classes]
    if missing:
        raise UserError(f"the source has no class {missing[0]!r}, only {_listed(classes)}", key=f"{key}.labels")
    if num_sources and num_sources > len(classes):
        raise UserError(
            f"expected at most {len(classes)}, the classes of the source, found {num_sources}", key=f"{key}.num_sources"
        )
    coherent = spec.get("coherent", True)
    if coherent and not labels:
        raise UserError("expected labels, or coherent: false: classes drawn at random have no song in common", key=key)
    if coherent and not set.intersection(*(set(classes[label]) for label in labels)):
        raise UserError(f"no song has all of {_listed(labels)}", key=f"{key}.labels")
    if len({entry["sample_rate"] for entry in source["files"]} | {spec["sample_rate"]}) > 1:
        raise UserError(f"expected files of {spec['sample_rate']} Hz in {resampled}", key="sample_rate")
    fraction = parameters.get("incoherent_fraction", 0.0)
    if not 0 <= fraction <= 1:
        raise UserError(f"expected a share from 0 to 1, found {fraction}", key=f"{key}.incoherent_fraction")
    if spec.get("bitdepth", 16) not in SUBTYPES:
        raise UserError(f"expected one of {_listed(SUBTYPES)}, found {spec['bitdepth']}", key="bitdepth")
    return Plan(
        split=split,
        sample_rate=int(spec["sample_rate"]),
        num_channels=spec.get("num_channels", 1),
        duration=float(parameters["scene_duration"]),
        ref_db=float(spec.get("ref_db", -40.0)),
        bitdepth=spec.get("bitdepth", 16),
        seed=spec.get("seed", 0),
        labels=labels,
        num_sources=len(labels) or num_sources,
        coherent=coherent,
        incoherent_fraction=fraction,
        min_activity=spec.get("min_activity", 0.25),
        event_parameters=check_event_parameters(spec["event_parameters"], list(classes), str(resampled / split)),
        songs={
            label: {song: str(resampled / path) for song, path in songs.items()}
            for label, songs in classes.items()
            if not labels or label in labels
        },
        foreground=str(resampled / split),
        folder=folder,
    )


def mix_item(plan: Plan, index: int) -> dict[str, Any]:
    """Makes mixture number `index` and writes its files.

    Returns:
        its entry of the manifest; paths are relative to the folder.
    """
    name = f"{index:06d}"
    scene = draw_scene(plan, index)
    mixture, events, scale = _quantised(scene, plan)
    (plan.folder / f"{name}_events").mkdir(parents=True, exist_ok=True)
    sources = {}
    for number, (label, event) in enumerate(zip(scene.labels, events, strict=True)):
        sources[label] = f"{name}_events/foreground{number}_{label}.wav"
        with quick_path(plan.folder / sources[label]) as path:
            write_pcm(path, event, plan.sample_rate, plan.bitdepth)
    with quick_path(plan.folder / f"{name}.wav") as path:
        write_pcm(path, mixture, plan.sample_rate, plan.bitdepth)
    with quick_path(plan.folder / f"{name}.jams") as path:
        path.write_text(_document(scene, plan, name, list(sources.values()), scale), encoding="utf-8")
    return {
        "name": name,
        "mixture": f"{name}.wav",
        "jams": f"{name}.jams",
        "sources": sources,
        "frames": len(mixture),
        # of the audio: a JAMS file differs with the place of its folder
        "sha256": {path: sha256_of(plan.folder / path) for path in (f"{name}.wav", *sources.values())},
        "conditions": scene.conditions | {"turned_down_db": max(0.0, -20 * math.log10(scale))},
    }


def _quantised(scene: Scene, plan: Plan) -> tuple[np.ndarray, list[np.ndarray], float]:
    """The mixture and the events in whole steps of the bit depth, so that the events add up to the mixture exactly.

    All are turned down by one factor where the mixture or an event would clip.
    """
    peak = max(np.abs(audio).max() for audio in (sum(scene.audio), *scene.audio))
    # room for half a step of rounding per event
    limit = 1 - (len(scene.audio) + 1) * 2.0 ** (1 - plan.bitdepth)
    scale = 1.0 if peak <= limit else float(limit / peak)
    events = [to_pcm(audio * scale, plan.bitdepth) for audio in scene.audio]
    return sum(events), events, scale


def _document(scene: Scene, plan: Plan, name: str, events: list[str], scale: float) -> str:
    """The JAMS file of a scene, completed by what scaper writes when it saves the audio itself."""
    noted = scene.jam.annotations.search(namespace="scaper")[0].sandbox.scaper
    # nussl.datasets.Scaper opens these as they stand: only an absolute path is right from any working directory
    mixture = str(plan.folder / f"{name}.wav")
    noted.audio_path = noted.soundscape_audio_path = mixture
    noted.isolated_events_audio_path = [str(plan.folder / event) for event in events]
    noted.isolated_events_path = str(plan.folder / f"{name}_events")
    noted.jams_path = str(plan.folder / f"{name}.jams")
    noted.save_isolated_events = noted.fix_clipping = True
    noted.peak_normalization_scale_factor = scale
    noted.ref_db_change = 20 * math.log10(scale)
    noted.ref_db_generated = plan.ref_db + noted.ref_db_change
    return scene.jam.dumps(indent=1) + "\n"


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names)
