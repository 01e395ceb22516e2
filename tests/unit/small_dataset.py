"""Dataset splits of a few seconds for tests: audio files and their manifest.json."""

import json

import numpy as np
import soundfile

from separation.data.items import Items
from separation.experiment.options import DatasetOptions

SAMPLE_RATE = 8000
LABELS = ("vocals", "bass", "drums", "other")
DATASET_CONFIG = {
    "sample_rate": SAMPLE_RATE,
    "num_channels": 1,
    "n_fft": 256,
    "hop_length": 64,
    "window_type": "sqrt_hann",
    "group_sources": ["drums", "bass", "other"],
    "group_names": ["accompaniment"],
}


def source_audio(label, rng, samples=SAMPLE_RATE):
    """One source in the range of its label: changing tones, or noise bursts; exact in int16, shape (samples,)."""
    time = np.arange(samples) / SAMPLE_RATE
    low, high = {"vocals": (400, 900), "bass": (60, 120), "drums": (0, 0), "other": (250, 1200)}.get(label, (200, 2000))
    sound = np.zeros(samples)
    for start in range(0, samples, samples // 8):
        part = slice(start, start + samples // 8)
        pitch = rng.uniform(low, high)
        note = sum(np.sin(2 * np.pi * pitch * k * time[part]) / k for k in (1, 2, 3))
        sound[part] = note if high else rng.normal(size=len(time[part])) * np.exp(-40 * (time[part] - time[start]))
        sound[part] *= rng.uniform(0.1, 1.0)
    sound *= 0.05 / np.sqrt(np.mean(sound**2))
    return np.round(sound * 32768) / 32768


def write_split(folder, *, items=3, labels=LABELS, seed=0, sample_rate=SAMPLE_RATE, name="test", audio=None):
    """Writes a split of `items` mixtures; the arguments of `Items` that name it.

    `audio`: function from an item's index to its arrays (samples,) or (samples, channels) by label, instead of
    `source_audio`.
    """
    rng = np.random.default_rng(seed)
    listed = []
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(items):
        item = f"{index:06d}"
        sources = audio(index) if audio else {label: source_audio(label, rng) for label in labels}
        paths = {label: f"{item}_events/foreground{k}_{label}.wav" for k, label in enumerate(sources)}
        (folder / f"{item}_events").mkdir(exist_ok=True)
        for label, path in paths.items():
            soundfile.write(folder / path, sources[label], sample_rate, subtype="PCM_16")
        mixture = sum(sources.values())
        soundfile.write(folder / f"{item}.wav", mixture, sample_rate, subtype="PCM_16")
        conditions = {"coherent": index % 2 == 0, "songs": [f"song{index}"], "snr_vocals": index - 1.5}
        listed.append({"name": item, "mixture": f"{item}.wav", "sources": paths, "conditions": conditions})
    channels = 1 if mixture.ndim == 1 else mixture.shape[1]
    manifest = {"format": 1, "split": name, "class": "Scaper", "sample_rate": sample_rate, "num_channels": channels}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "items": listed}))
    return {"folder": str(folder), "class": "Scaper", "dataset": "small", "split": name}


def open_items(split, config=DATASET_CONFIG):
    """The items of a split by a dataset_config, whose missing keys have the schema's defaults."""
    return Items(split, DatasetOptions.read(config))
