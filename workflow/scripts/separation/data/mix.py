"""The rules mix_dataset and mix_shard: mixtures with isolated sources and JAMS files, drawn by scaper."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.audio.pcm import pcm_file
from separation.data.manifests import finish_manifest, read_source_manifest, remove_strays, start_manifest
from separation.data.scenes.draw import draw_scene
from separation.data.scenes.jams import scene_document
from separation.data.scenes.mixture_plan import Plan, make_plan
from separation.data.scenes.rendering import render_event, with_reverb
from separation.errors import UserError
from separation.files.atomic import read_json, write_json
from separation.files.layout import MANIFEST, shard_records
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)

MIXTURES_PER_PROCESS = 300  # mixing them takes about as long as starting a process, which imports scaper


def mix_dataset(
    spec: dict[str, Any],
    split: str,
    resampled: Path,
    manifest: Path,
    workers: int = 1,
    shards: Sequence[Path] = (),
) -> None:
    """Mixes one split of a dataset into the folder of its manifest.

    Files of an item: `000000.wav` (the mixture), `000000_events/foreground0_<label>.wav` (the events, whose sum is the
    mixture, except for reverb) and `000000.jams`. A mixture depends only on the recipe, the split's name and its own
    number, not on the number of workers, shards or mixtures. nussl.datasets.Scaper reads the folder; it needs absolute
    paths in the JAMS files, as scaper writes them. The manifest has relative paths only.

    Args:
        spec: Keys of a recipe: sample_rate, mixture_parameters, event_parameters, and optionally those in
            mixture_plan.DEFAULTS.
        split: Key of mixture_parameters.
        resampled: Manifest of resample_source.
        manifest: Written last.
        workers: Number of processes.
        shards: Records of mix_shard for all mixtures of the split, in order; with them, nothing is mixed here.

    Raises:
        UserError: The source lacks audio that the recipe uses, or a source file is missing or changed.
    """
    source = read_source_manifest(resampled)
    plan = make_plan(spec, split, source, Path(resampled).resolve().parent, Path(manifest).resolve().parent)
    start_manifest(manifest)
    count = spec["mixture_parameters"][split]["num_mixtures"]
    if shards:
        items = [item for shard in shards for item in read_json(shard)["items"]]
        _check_complete(items, count, plan.folder)
    else:
        items = _mix(plan, range(count), workers)
    kept = [path for item in items for path in _files_of(item)]
    remove_strays(manifest, [*kept, *(Path(shard).relative_to(Path(manifest).parent).as_posix() for shard in shards)])
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
    if source.get("problems"):
        contents["counts"]["source_problems"] = source["problems"]
    finish_manifest(manifest, spec, contents)


def mix_shard(
    spec: dict[str, Any], split: str, resampled: Path, record: Path, mixtures: range, workers: int = 1
) -> None:  # fmt: skip
    """Mixes some mixtures of a split.

    Args:
        spec: As in mix_dataset.
        split: As in mix_dataset.
        resampled: As in mix_dataset.
        record: List of the mixtures, `shards/<number>.json` in the split's folder; written last.
        mixtures: Numbers of the mixtures.
        workers: As in mix_dataset.
    """
    source = read_source_manifest(resampled)
    manifest = Path(record).resolve().parents[1] / MANIFEST
    plan = make_plan(spec, split, source, Path(resampled).resolve().parent, manifest.parent)
    start_manifest(manifest)
    write_json(record, {"items": _mix(plan, mixtures, workers, part=Path(record).stem)})


def _mix(plan: Plan, numbers: range, workers: int, part: str = "") -> list[dict[str, Any]]:
    items = f"mixtures of {plan.split}" + (f", shard {part}" if part else "")
    return run_in_order(
        mix_item, [(plan, number) for number in numbers], workers=workers, share=MIXTURES_PER_PROCESS, items=items
    )


def _check_complete(items: list[dict[str, Any]], count: int, folder: Path) -> None:
    """Raises UserError if shards lack mixtures or files."""
    if [item["name"] for item in items] != [f"{number:06d}" for number in range(count)]:
        raise UserError(
            f"expected the records of {count} mixtures, found {len(items)}", file=shard_records(folder / MANIFEST)
        )
    for item in items:
        for path in _files_of(item):
            if not (folder / path).is_file():
                raise UserError(
                    "a mixed file is missing; delete the folder and run the workflow again", file=folder / path
                )


def _files_of(item: dict[str, Any]) -> list[str]:
    """The relative paths of all files of an item."""
    return [item["mixture"], item["jams"], *item["sources"].values()]


def mix_item(plan: Plan, index: int) -> dict[str, Any]:
    """Mixes mixture number `index` and writes its files.

    Returns:
        Its entry in the manifest; paths are relative to the folder.
    """
    name = f"{index:06d}"
    scene = draw_scene(plan, index)
    mixture, events, scale = _quantize([render_event(event, plan.format) for event in scene.events], plan)
    folder = str(plan.folder)
    os.makedirs(f"{folder}/{name}_events", exist_ok=True)
    audio, sources = {f"{name}.wav": mixture}, {}
    numbers = {"background": 0, "foreground": 0}
    labels = [event["label"] for event in scene.events]
    for position, (event, steps) in enumerate(zip(scene.events, events, strict=True)):
        label, role = event["label"], event["role"]
        path = f"{name}_events/{role}{numbers[role]}_{label}.wav"
        numbers[role] += 1
        repeated = labels.count(label) > 1
        sources[f"{label}::{labels[:position].count(label)}" if repeated else label] = path
        audio[path] = steps
    digests = {}
    # written in place: without a manifest, the next run writes all files again
    for path, steps in audio.items():
        content = pcm_file(steps, plan.sample_rate, plan.bitdepth)
        digests[path] = hashlib.sha256(content).hexdigest()
        _write(f"{folder}/{path}", content)
    _write(f"{folder}/{name}.jams", scene_document(scene, plan, name, list(sources.values()), scale).encode())
    return {
        "name": name,
        "mixture": f"{name}.wav",
        "jams": f"{name}.jams",
        "sources": sources,
        "frames": len(mixture),
        # audio only: JAMS files contain the folder's path
        "sha256": digests,
        "conditions": scene.conditions | {"turned_down_db": max(0.0, -20 * math.log10(scale))},
    }


def _quantize(audio: list[np.ndarray], plan: Plan) -> tuple[np.ndarray, list[np.ndarray], float]:
    """The mixture, the events, and their common gain, in whole steps of the bit depth.

    The sum of the events is exactly the mixture. The gain is below 1 if the mixture or an event would clip. Reverb
    is added to the mixture only.
    """
    # headroom for half a step of rounding per event
    limit = 1 - (len(audio) + 1) * 2.0 ** (1 - plan.bitdepth)
    peaks = [_peak(each) for each in audio]
    scale, mixture = 1.0, None
    # the mixture's peak is at most the sum of the events' peaks
    if plan.reverb is not None or sum(peaks) > limit:
        mixture = sum(audio)
        if plan.reverb is not None:
            mixture = with_reverb(_check_below_one(mixture), plan.sample_rate, plan.reverb)
        peak = max(_peak(mixture), *peaks)
        scale = 1.0 if peak <= limit else float(limit / peak)
    factor = scale * 2.0 ** (plan.bitdepth - 1)
    for each in audio:  # in place: allocating memory takes longer than the arithmetic
        np.rint(np.multiply(each, factor, out=each), out=each)
    # sums of whole numbers are exact
    return (sum(audio) if plan.reverb is None else np.rint(mixture * factor)), audio, scale


def _peak(audio: np.ndarray) -> float:
    return max(float(audio.max()), -float(audio.min()))


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)


def _check_below_one(mixture: np.ndarray) -> np.ndarray:
    if _peak(mixture) > 1:
        raise UserError("mixtures with reverb must not clip; use a lower ref_db", key="ref_db")
    return mixture
