"""Integrated loudness as in scaper, with filters that are built once per sample rate."""

from __future__ import annotations

import functools
import math

import numpy as np

from separation.machine.jit import jit
from separation.nussl_compat import scaper

BLOCK = 0.4  # seconds
OVERLAP = 0.75
SHORTEST = 0.5  # seconds; shorter audio is repeated
SILENT = -70.0  # LUFS, the least result
SILENT_POWER = 10 ** ((SILENT + 0.691) / 10)
CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)


def integrated_loudness(audio: np.ndarray, sample_rate: int) -> float:
    """The gated loudness of ITU-R BS.1770-4, equal to scaper.audio.get_integrated_lufs within 1e-9 LU.

    Args:
        audio: Audio, float64 (frames, channels), up to five channels.
        sample_rate: Rate in Hz.

    Returns:
        LUFS, at least -70.

    Raises:
        ValueError: No frames, or more than five channels.
    """
    frames, channels = audio.shape
    if not frames or channels > len(CHANNEL_GAINS):
        raise ValueError(f"expected some frames of up to five channels, found {frames} of {channels}")
    if frames / float(sample_rate) < SHORTEST:
        audio = np.tile(audio, (int(np.ceil(SHORTEST / (frames / float(sample_rate)))), 1))
        frames = len(audio)
    bounds, starts, stops = _blocks(frames, sample_rate)
    power = np.zeros(len(starts))
    for signal, gain in zip(audio.T, CHANNEL_GAINS, strict=False):
        energy = _weighted_energy(signal, _sections(sample_rate), bounds)
        power += gain * (energy[stops] - energy[starts])
    power /= BLOCK * sample_rate
    loud = power[power >= SILENT_POWER]
    gated = loud[loud > loud.mean() / 10] if len(loud) else loud
    return max(-0.691 + 10.0 * math.log10(gated.mean()), SILENT) if len(gated) else SILENT


@functools.lru_cache(maxsize=64)
def _blocks(frames: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted bounds of the blocks in samples, and the indices of each block's start and stop among them."""
    step = 1.0 - OVERLAP
    count = int(np.round((frames / sample_rate - BLOCK) / (BLOCK * step)) + 1)
    numbers = np.arange(count)
    starts = (BLOCK * (numbers * step) * sample_rate).astype(np.int64)
    stops = np.minimum((BLOCK * (numbers * step + 1) * sample_rate).astype(np.int64), frames)
    bounds, indices = np.unique(np.concatenate((starts, stops)), return_inverse=True)
    return bounds, indices[:count], indices[count:]


def _weighted_energy(signal, sections, bounds):
    """Cumulative energy of the filtered signal at each of the bounds; the first is 0."""
    (b0, b1, b2, _, a1, a2), (c0, c1, c2, _, d1, d2) = sections
    s1 = s2 = t1 = t2 = total = 0.0
    energy = np.zeros(len(bounds))
    for number in range(1, len(bounds)):
        for sample in range(bounds[number - 1], bounds[number]):
            x = signal[sample]
            # transposed direct form II, twice; the sums in brackets do not depend on the previous output
            y = b0 * x + s1
            s1 = (b1 * x + s2) - a1 * y
            s2 = b2 * x - a2 * y
            z = c0 * y + t1
            t1 = (c1 * y + t2) - d1 * z
            t2 = c2 * y - d2 * z
            total += z * z
        energy[number] = total
    return energy


@functools.cache
def _sections(sample_rate: int) -> np.ndarray:
    """The K-weighting of pyloudnorm, scaper's meter, as second-order sections."""
    stages = scaper.audio.pyloudnorm.Meter(sample_rate, block_size=BLOCK)._filters.values()
    return np.array([[*(stage.passband_gain * stage.b), *stage.a] for stage in stages])


_weighted_energy = jit(_weighted_energy)
