"""A small dataset split and a small experiment, for tests of features, cache and training."""

import json
from pathlib import Path

import numpy as np
import soundfile

from separation.experiment.options import DatasetOptions, PointOptions

SAMPLE_RATE = 8000


def write_split(folder: Path, *, count: int = 6, seconds: float = 0.8, seed: int = 0, uneven: bool = False) -> dict:
    """Writes mixtures of a gliding tone with vibrato ("vocals") and clicks ("drums"), and returns {"folder", "class"}.

    With `uneven`, items differ in length.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    items = []
    for index in range(count):
        samples = int(SAMPLE_RATE * seconds * (1 + 0.13 * index if uneven else 1))
        time = np.arange(samples) / SAMPLE_RATE
        pitch = rng.uniform(300, 900) * (1 + 0.03 * np.sin(2 * np.pi * 5 * time + rng.uniform(0, 6)))
        vocals = 0.1 * np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
        clicks = (rng.random(samples) < 0.002) * rng.normal(0, 1, samples)
        drums = np.convolve(clicks, rng.normal(0, 0.1, 200) * np.exp(-np.arange(200) / 40))[:samples]
        audio = {"vocals": vocals, "drums": drums, "mixture": vocals + drums}
        for name, values in audio.items():
            soundfile.write(folder / f"{index:06d}_{name}.wav", values.astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
        items.append(
            {
                "name": f"{index:06d}",
                "mixture": f"{index:06d}_mixture.wav",
                "sources": {name: f"{index:06d}_{name}.wav" for name in ("vocals", "drums")},
                "frames": samples,
                "conditions": {"coherent": True},
            }
        )
    manifest = {"format": 1, "split": folder.name, "sample_rate": SAMPLE_RATE, "num_channels": 1, "items": items}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return {"folder": str(folder), "class": "Scaper"}


def dataset_config(**changes) -> dict:
    """A complete dataset_config with small spectra."""
    return {
        "sample_rate": SAMPLE_RATE,
        "num_channels": 1,
        "n_fft": 64,
        "hop_length": 32,
        "window_type": "sqrt_hann",
        "length": 40,
        "format": "rnn",
        "group_sources": [],
        "group_names": None,
        "ignore_sources": [],
        "source_labels": [],
        "output_type": "psa",
        "weight_type": ["magnitude"],
        "weight_threshold": None,
        "data_keys_for_training": ["mix_magnitude", "ideal_binary_mask", "weights"],
        "excerpt_selection_strategy": "random",
        "fraction_of_dataset": 1.0,
        "cache_kind": "features",
        **changes,
    }


def dataset_options(**changes) -> DatasetOptions:
    """The options of `dataset_config(**changes)`."""
    return DatasetOptions.read(dataset_config(**changes))


def experiment(*, dataset: dict | None = None, dropout: float = 0.0, seed: int = 0, **changes) -> dict:
    """A resolved deep clustering experiment of a few thousand weights; `changes` go to train_config."""
    config = dataset_config(**(dataset or {}))
    frequencies = config["n_fft"] // 2 + 1
    modules = {
        "mix_magnitude": {},
        "log_spectrogram": {"class": "AmplitudeToDB"},
        "normalization": {"class": "BatchNorm"},
        "recurrent_stack": {
            "class": "RecurrentStack",
            "args": {
                "num_features": frequencies,
                "hidden_size": 8,
                "num_layers": 2 if dropout else 1,
                "bidirectional": True,
                "dropout": dropout,
                "rnn_type": "lstm",
            },
        },
        "embedding": {
            "class": "Embedding",
            "args": {
                "num_features": frequencies,
                "hidden_size": 16,
                "embedding_size": 4,
                "activation": ["sigmoid", "unit_norm"],
            },
        },
    }
    connections = [
        ["log_spectrogram", ["mix_magnitude"]],
        ["normalization", ["log_spectrogram"]],
        ["recurrent_stack", ["normalization"]],
        ["embedding", ["recurrent_stack"]],
    ]
    return {
        "info": {"name": "example", "seed": seed, "experiment_key": "dpcl-example-s0-0123456789ab"},
        "dataset_config": config,
        "train_config": {
            "class": "Trainer",
            "batch_size": 2,
            "curriculum_learning": [],
            "data_parallel": False,
            "device": "cpu",
            "initial_length": None,
            "learning_rate": 0.01,
            "learning_rate_decay": 0.5,
            "loss_function": [["dpcl", "embedding", 1.0]],
            "num_epochs": 4,
            "num_workers": 0,
            "optimizer": "adam",
            "patience": 1,
            "sample_strategy": "random",
            "weight_decay": 0.0,
            **changes,
        },
        "model_config": {
            "class": "SeparationModel",
            "modules": modules,
            "connections": connections,
            "output": ["embedding"],
        },
        "algorithm_config": {"class": "DeepClustering", "args": {}},
        "test_config": {},
    }


def point_options(**changes) -> PointOptions:
    """The options of `experiment(**changes)`."""
    return PointOptions.read(experiment(**changes))
