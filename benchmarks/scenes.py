"""Data for benchmarks: scenes of toy music, mixed by the workflow's own steps."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# one thread per process: the benchmarks compare work, not parallelism
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from separation.data import mix
from separation.data.fetch import fetch_source
from separation.data.organize import organize_source
from separation.data.resample import resample_source
from separation.files.yaml_reader import read_yaml
from separation.planning.specs import CACHED_KEYS

SAMPLE_RATE = 16_000
DURATION = 4.0
DATASET_CONFIG = {
    "sample_rate": SAMPLE_RATE,
    "num_channels": 1,
    "n_fft": 512,
    "hop_length": 128,
    "window_type": "sqrt_hann",
    "length": 400,
    "format": "rnn",
    "group_sources": ["bass", "drums", "other"],
    "group_names": ["accompaniment"],
    "ignore_sources": [],
    "source_labels": [],
    "output_type": "psa",
    "weight_type": ["magnitude"],
    "weight_threshold": None,
    "data_keys_for_training": ["mix_magnitude", "ideal_binary_mask", "weights"],
    "excerpt_selection_strategy": "random",
    "fraction_of_dataset": 1.0,
    "cache_kind": "features",
}


def make_scenes(folder: Path, count: int, sample_rate: int = SAMPLE_RATE) -> Mapping[str, Any]:
    """Renders the tiny_music source and mixes `count` scenes of 4 s; returns `folder` and `class` of the split."""
    recipe = copy.deepcopy(read_yaml(ROOT / "config/datasets/tiny_music.yml").value)
    recipe["sample_rate"] = sample_rate
    recipe["source"]["args"] |= {"songs": {"train": 4, "val": 1, "test": 1}, "song_duration": 3 * DURATION}
    recipe["event_parameters"]["event_duration"] = ["const", DURATION]
    fetched, organized, resampled = (folder / step / "manifest.json" for step in ("fetched", "organized", "resampled"))
    fetch_source({"source": recipe["source"]}, fetched, 2)
    organize_source({"organize": recipe["organize"]}, fetched, organized)
    resample_source({"sample_rate": sample_rate}, organized, resampled, 2)
    spec = {key: value for key, value in recipe.items() if key not in ("source", "organize")}
    train = {**spec["mixture_parameters"]["train"], "num_mixtures": count, "scene_duration": DURATION}
    mix.mix_dataset(
        {**spec, "mixture_parameters": {"train": train}}, "train", resampled, folder / "train" / "manifest.json", 2
    )
    return {"folder": str(folder / "train"), "class": "Scaper"}


def cache_spec(kind: str = "features", **changes: Any) -> dict[str, Any]:
    """The spec of a cache of the scenes, for populate_cache."""
    config = {**DATASET_CONFIG, **changes}
    keys = [key for key in config["data_keys_for_training"] if key != "weights"]
    return {
        "dataset_config": {key: config[key] for key in CACHED_KEYS},
        "keys": keys if kind == "features" else ["mix_audio", "source_audio"],
        "kind": kind,
    }


def nussl_dataset(split: Mapping[str, Any], *last: Any, **options: Any) -> Any:
    """nussl's dataset of the scenes, with the transforms of a cache followed by `last`."""
    from separation.nussl_compat import nussl

    transforms = nussl.datasets.transforms
    chain = [
        transforms.SumSources([DATASET_CONFIG["group_sources"]], DATASET_CONFIG["group_names"]),
        transforms.PhaseSensitiveSpectrumApproximation(),
        transforms.MagnitudeWeights(),
        transforms.ToSeparationModel(),
    ]
    parameters = nussl.STFTParams(*(DATASET_CONFIG[key] for key in ("n_fft", "hop_length", "window_type")))
    options |= {"stft_params": parameters, "transform": transforms.Compose([*chain, *last])}
    return nussl.datasets.Scaper(split["folder"], sample_rate=SAMPLE_RATE, **options)


def spread(values: list[float]) -> str:
    """Median, minimum and maximum of ratios, as text."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"
