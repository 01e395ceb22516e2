"""Integrated loudness as scaper measures it, with the filters made once for a sample rate."""

from __future__ import annotations

import functools
import warnings

import numba
import numpy as np
import pyloudnorm

BLOCK = 0.4  # seconds
OVERLAP = 0.75
SHORTEST = 0.5  # seconds; what is shorter is repeated
SILENT = -70.0  # LUFS, the least that is given
CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)


def integrated_loudness(audio: np.ndarray, sample_rate: int) -> float:
    """The gated loudness of ITU-R BS.1770-4, as scaper.audio.get_integrated_lufs gives it (to 1e-9 LU).

    Args:
        audio: float64 (frames, channels), up to five channels.
        sample_rate: Hz.

    Returns:
        LUFS, at least -70.

    Raises:
        ValueError: no frames, or more than five channels.
    """
    frames, channels = audio.shape
    if not frames or channels > len(CHANNEL_GAINS):
        raise ValueError(f"expected some frames of up to five channels, found {frames} of {channels}")
    if frames / float(sample_rate) < SHORTEST:
        audio = np.tile(audio, (int(np.ceil(SHORTEST / (frames / float(sample_rate)))), 1))
        frames = len(audio)
    step = 1.0 - OVERLAP
    count = int(np.round((frames / sample_rate - BLOCK) / (BLOCK * step)) + 1)
    numbers = np.arange(count)
    starts = (BLOCK * (numbers * step) * sample_rate).astype(np.int64)
    stops = np.minimum((BLOCK * (numbers * step + 1) * sample_rate).astype(np.int64), frames)
    gains = np.array(CHANNEL_GAINS[:channels])[:, None]
    power = np.empty((channels, count))
    for channel in range(channels):
        energy = _weighted_energy(np.ascontiguousarray(audio[:, channel]), _sections(sample_rate))
        power[channel] = energy[stops] - energy[starts]
    power *= 1.0 / (BLOCK * sample_rate)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the mean of no block
        blocks = _level((gains * power).sum(axis=0))
        loud = blocks >= SILENT
        threshold = _level((gains * power[:, loud].mean(axis=1, keepdims=True)).sum()) - 10.0
        gated = (blocks > threshold) & (blocks > SILENT)
        loudness = _level((gains * np.nan_to_num(power[:, gated].mean(axis=1, keepdims=True))).sum())
    return float(max(loudness, SILENT))


def _level(power: np.ndarray) -> np.ndarray:
    return -0.691 + 10.0 * np.log10(power)


@numba.njit(cache=True)
def _weighted_energy(signal: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """The energy of the signal through two filters, summed up to each sample: (frames + 1,)."""
    (b0, b1, b2, _, a1, a2), (c0, c1, c2, _, d1, d2) = sections
    s1 = s2 = t1 = t2 = total = 0.0
    energy = np.empty(len(signal) + 1)
    energy[0] = 0.0
    for place in range(len(signal)):
        x = signal[place]
        # transposed direct form II, twice
        y = b0 * x + s1
        s1 = b1 * x - a1 * y + s2
        s2 = b2 * x - a2 * y
        z = c0 * y + t1
        t1 = c1 * y - d1 * z + t2
        t2 = c2 * y - d2 * z
        total += z * z
        energy[place + 1] = total
    return energy


@functools.cache
def _sections(sample_rate: int) -> np.ndarray:
    """The K-weighting of pyloudnorm as second-order sections."""
    stages = pyloudnorm.Meter(sample_rate, block_size=BLOCK)._filters.values()
    return np.array([[*(stage.passband_gain * stage.b), *stage.a] for stage in stages])
