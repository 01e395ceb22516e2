"""Integrated loudness as scaper measures it, with the filters made once for a sample rate."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pyloudnorm

BLOCK = 0.4  # seconds
OVERLAP = 0.75
SHORTEST = 0.5  # seconds; what is shorter is repeated
SILENT = -70.0  # LUFS, the least that is given
CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)


def integrated_loudness(audio: np.ndarray, sample_rate: int) -> float:
    """The gated loudness of ITU-R BS.1770-4, as scaper.audio.get_integrated_lufs gives it, to the last bit.

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
    bounds = [(int(BLOCK * (n * step) * sample_rate), int(BLOCK * (n * step + 1) * sample_rate)) for n in range(count)]
    power = np.empty((channels, count))
    for channel in range(channels):
        weighted = audio[:, channel]
        for stage in _filters(sample_rate):
            weighted = stage.apply_filter(weighted)
        square = np.square(weighted)
        power[channel] = [(1.0 / (BLOCK * sample_rate)) * np.sum(square[start:stop]) for start, stop in bounds]
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # the mean of no block
        blocks = np.array([_level(power[:, block]) for block in range(count)])
        loud = blocks >= SILENT
        threshold = _level([np.mean(each[loud]) for each in power]) - 10.0
        gated = (blocks > threshold) & (blocks > SILENT)
        return float(max(_level(np.nan_to_num([np.mean(each[gated]) for each in power])), SILENT))


def _level(power: np.ndarray | list) -> np.floating:
    return -0.691 + 10.0 * np.log10(
        np.sum([gain * each for gain, each in zip(CHANNEL_GAINS[: len(power)], power, strict=True)])
    )


@functools.cache
def _filters(sample_rate: int) -> list:
    return list(pyloudnorm.Meter(sample_rate, block_size=BLOCK)._filters.values())
