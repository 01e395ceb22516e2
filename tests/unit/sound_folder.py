"""Folders of short recordings, for tests."""

import numpy as np
import soundfile

RATE = 8000
PITCHES = {"dog": 300, "cat": 800, "car": 120}


def tone(pitch, seconds=1.0, rate=RATE, seed=0):
    """A noisy tone, float (samples,)."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng([seed, pitch]).normal(size=len(time))
    return 0.3 * np.sin(2 * np.pi * pitch * time) * (1 + 0.2 * noise)


def write(path, audio, rate=RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype=subtype)
    return path


def write_classes(folder, *, count=10, classes=PITCHES):
    """Writes `class/file.wav`: `count` files of one second for each class."""
    for label, pitch in classes.items():
        for number in range(count):
            write(folder / label / f"{label}{number:02d}.wav", tone(pitch, seed=number))
    return folder


def write_songs(folder, *, count=5):
    """Writes `song/stem.wav`: `count` songs with one stem per class."""
    for number in range(count):
        for label, pitch in PITCHES.items():
            write(folder / f"song {number}" / f"{label}.wav", tone(pitch, seconds=2, seed=number))
    return folder


def recipe(**changes):
    """A recipe for these folders."""
    split = {"num_mixtures": 3, "scene_duration": 1.0, "num_sources": 2}
    return {
        "source": {"name": "sounds", "kind": "folder"},
        "organize": {"by": "class", "splits": {"train": 0.6, "val": 0.2, "test": 0.2}},
        "sample_rate": RATE,
        "mixture_parameters": {name: dict(split) for name in ("train", "val", "test")},
        "coherent": False,
        "event_parameters": {
            "source_time": ["uniform", 0, 10],
            "event_duration": ["const", 1],
            "snr": ["uniform", -3, 3],
        },
    } | changes
