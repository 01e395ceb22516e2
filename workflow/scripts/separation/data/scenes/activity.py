"""Where in a source file there is something to hear."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import soundfile

FRAME = 0.05  # seconds
BELOW_LOUDEST_DB = 40.0  # a frame further below the file's loudest frame counts as silent


def activity(path: str, start: float, duration: float) -> float:
    """The share of an excerpt in which the source sounds.

    Args:
        path: a sound file.
        start, duration: of the excerpt, in seconds.

    Returns:
        share of its frames of 50 ms, from 0 to 1, at most 40 dB below the file's loudest. A silent file has none.
    """
    sounding = _sounding(path)
    first = int(start / FRAME)
    excerpt = sounding[first : max(first + 1, round((start + duration) / FRAME))]
    return float(excerpt.mean()) if len(excerpt) else 0.0


@functools.lru_cache(maxsize=4096)
def _sounding(path: str) -> np.ndarray:
    """bool (frames,): whether each frame of the file sounds."""
    audio, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    return sounding_frames(audio, sample_rate)


def overlap(sources: Sequence[np.ndarray], sample_rate: int) -> float:
    """The share of the time in which something sounds that at least two sources do.

    Args:
        sources: each (channels, samples).
        sample_rate: in Hz.

    Returns:
        0 to 1 by frames of 50 ms, each sounding where it is at most 40 dB below its source's loudest; NaN where nothing
        sounds.
    """
    sounding = np.sum([sounding_frames(source.T, sample_rate) for source in sources], axis=0)
    return float((sounding > 1).sum() / (sounding > 0).sum()) if sounding.any() else float("nan")


def sounding_frames(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """bool (frames,): whether each frame of 50 ms of audio (samples, channels) sounds."""
    length = max(1, round(FRAME * sample_rate))
    whole = len(audio) // length
    power = np.square(audio[: whole * length]).reshape(whole, -1).mean(axis=1) if whole else np.zeros(1)
    return power > max(power.max() * 10 ** (-BELOW_LOUDEST_DB / 10), 1e-12)
