"""Activity of sources: the frames in which they are audible."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import soundfile

FRAME = 0.05  # seconds
BELOW_LOUDEST_DB = 40.0  # a frame further below the file's loudest frame counts as silent


def activity(path: str, start: float, duration: float) -> float:
    """The share of an excerpt in which the source is active.

    Args:
        path: Sound file.
        start: Start of the excerpt in seconds.
        duration: Length of the excerpt in seconds.

    Returns:
        Share of the 50 ms frames that are at most 40 dB below the file's loudest, 0 to 1; 0 for a silent file.
    """
    active = _active_frames_of(path)
    first = int(start / FRAME)
    excerpt = active[first : max(first + 1, round((start + duration) / FRAME))]
    return float(excerpt.mean()) if len(excerpt) else 0.0


@functools.lru_cache(maxsize=4096)
def _active_frames_of(path: str) -> np.ndarray:
    """Whether each frame of a file is active, bool (frames,)."""
    audio, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return active_frames(audio, sample_rate)


def overlap(sources: Sequence[np.ndarray], sample_rate: int) -> float:
    """The share of the active time in which at least two sources are active.

    Args:
        sources: Sources, each (channels, samples).
        sample_rate: Rate in Hz.

    Returns:
        Share of 50 ms frames, 0 to 1; NaN if no source is active. A frame is active if it is at most 40 dB below its
        source's loudest.
    """
    active = np.sum([active_frames(source.T, sample_rate) for source in sources], axis=0)
    return float((active > 1).sum() / (active > 0).sum()) if active.any() else float("nan")


def active_frames(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Whether each 50 ms frame of audio (samples, channels) is active, bool (frames,)."""
    length = max(1, round(FRAME * sample_rate))
    whole = len(audio) // length
    power = np.square(audio[: whole * length]).reshape(whole, -1).mean(axis=1) if whole else np.zeros(1)
    return power > max(power.max() * 10 ** (-BELOW_LOUDEST_DB / 10), 1e-12)
