"""Audio of some items of an evaluation, kept for listening."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.errors import UserError
from separation.files.atomic import write_json
from separation.files.layout import estimate_index

PEAK = 0.9  # full scale is 1.0
KEEP = ("none", "all", "worst")
WORST = 10  # items that `keep_estimates: worst` keeps


@dataclass(frozen=True)
class KeptItem:
    """One item to write; audio is (channels, samples) at full scale 1.0, sources in the order of `references`."""

    name: str
    sample_rate: int
    mixture: np.ndarray
    references: Mapping[str, np.ndarray]
    estimates: Mapping[str, np.ndarray]
    scores: Mapping[str, Mapping[str, float]]


def read_keep(keep: Any) -> str | int:
    """Checks test_config.keep_estimates: the items kept besides the best, the median and the worst.

    `none` (the default), `all`, `worst` (the WORST items with the lowest scores), or a number of items, taken at even
    distances from the best to the worst.

    Raises:
        UserError: Any other value.
    """
    if keep in KEEP or (isinstance(keep, int) and not isinstance(keep, bool) and keep >= 0):
        return keep
    raise UserError(f"expected {', '.join(KEEP)} or a number, found {keep!r}", key="test_config.keep_estimates")


def choose_items(means: Sequence[float], keep: str | int) -> dict[int, str]:
    """The items to keep, by index, with their roles.

    Args:
        means: Mean score of each item over its sources, in dB; NaN if it has none.
        keep: See `read_keep`.

    Returns:
        index -> "best", "median", "worst" or "other"; an item may have several roles ("best, worst"). Items with equal
        scores are ranked in their order.
    """
    ranked = sorted(
        (index for index, mean in enumerate(means) if not math.isnan(mean)), key=lambda index: -means[index]
    )
    roles: dict[int, list[str]] = {}
    if ranked:
        for role, index in (("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])):
            roles.setdefault(index, []).append(role)
    others: Iterable[int] = ()
    if keep == "all":
        others = range(len(means))
    elif keep == "worst":
        others = ranked[::-1][:WORST]
    elif isinstance(keep, int) and ranked:
        others = [ranked[int(rank)] for rank in np.linspace(0, len(ranked) - 1, min(keep, len(ranked))).round()]
    return {index: ", ".join(names) for index, names in ({other: ["other"] for other in others} | roles).items()}


def write_item(folder: Path, item: KeptItem) -> dict[str, Any]:
    """Writes `<item>/mixture.wav` and `<item>/<source>_{estimate,reference}.wav` into `folder`.

    The files of an item are int16 and share one gain, at which the loudest of them peaks at PEAK: nothing clips, and
    levels are comparable. NaN and infinite samples are written as silence.

    Returns:
        Entry of the index: `item`, `gain`, `mixture`, and `sources`: name -> `estimate`, `reference` (all paths
        relative to `folder`) and `scores` (null if a metric is undefined).
    """
    name = _file_name(item.name)
    files = {f"{name}/mixture.wav": item.mixture}
    sources = {}
    for source, reference in item.references.items():
        paths = {kind: f"{name}/{_file_name(source)}_{kind}.wav" for kind in ("estimate", "reference")}
        files[paths["estimate"]], files[paths["reference"]] = item.estimates[source], reference
        scores = {metric: value if math.isfinite(value) else None for metric, value in item.scores[source].items()}
        sources[source] = {**paths, "scores": scores}
    files = {path: np.nan_to_num(audio, nan=0.0, posinf=0.0, neginf=0.0) for path, audio in files.items()}
    loudest = max(float(np.abs(audio).max(initial=0.0)) for audio in files.values())
    gain = PEAK / loudest if loudest > 0 else 1.0
    (folder / name).mkdir(parents=True, exist_ok=True)
    for path, audio in files.items():
        soundfile.write(folder / path, audio.T * gain, item.sample_rate, subtype="PCM_16")
    return {"item": item.name, "gain": gain, "mixture": f"{name}/mixture.wav", "sources": sources}


def publish_estimates(written: Path, folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes the index of a folder of items and moves it to `folder`.

    The index lists the `items`: the entries of `write_item`, each with its `role`. Old content of `folder` is removed.
    """
    write_json(estimate_index(written), {"items": list(entries)})
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(written, folder)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)
