"""Promises of resampling: as exact as soxr, without delay, the same bytes however cut and on any processor."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soxr

from separation.data.audio.pcm import to_pcm
from separation.data.audio.resampling import resample

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
RATES = [
    (44100, 8000), (44100, 16000), (48000, 16000), (48000, 8000), (22050, 16000), (16000, 8000), (44100, 22050),
    (96000, 44100), (8000, 16000), (16000, 44100), (44100, 48000), (11025, 8000),
]  # fmt: skip


def _tones(rate, frequencies, seconds=1.0):
    """Tones that begin at time 0 with phases of their own, all together at a third of full scale."""
    time = np.arange(round(seconds * rate)) / rate
    phases = np.arange(len(frequencies))
    tones = [np.sin(2 * np.pi * f * time + p) for f, p in zip(frequencies, phases, strict=True)]
    return sum(tones) / 3 / len(frequencies)


@pytest.mark.parametrize(("source_rate", "sample_rate"), RATES)
def test_what_both_rates_can_hold_comes_out_as_if_sampled_at_the_new_one(source_rate, sample_rate):
    frequencies = np.linspace(0.01, 0.913, 40) * min(source_rate, sample_rate) / 2
    steps = resample(_tones(source_rate, frequencies)[:, None], source_rate, sample_rate)
    expected = 2**15 * _tones(sample_rate, frequencies)[:, None]
    assert steps.shape == expected.shape
    middle = slice(len(steps) // 4, -len(steps) // 4)  # before the first and after the last sample is silence
    error = np.abs(steps[middle] - expected[middle])
    assert error.max() < 0.51  # half a step is rounding
    by_soxr = to_pcm(soxr.resample(_tones(source_rate, frequencies), source_rate, sample_rate, quality="HQ"))[:, None]
    assert error.std() <= 1.01 * np.abs(by_soxr[middle] - expected[middle]).std()


@pytest.mark.parametrize(("source_rate", "sample_rate"), [pair for pair in RATES if pair[1] < pair[0]])
def test_nothing_is_left_of_what_the_new_rate_cannot_hold(source_rate, sample_rate):
    edge = sample_rate / 2
    for frequency in (1.0, 1.01, 1.3, source_rate / sample_rate - 0.1):
        tone = 3 * _tones(source_rate, [frequency * edge])
        steps = resample(tone[:, None], source_rate, sample_rate)
        assert not steps[len(steps) // 4 : -len(steps) // 4].any(), frequency


@pytest.mark.parametrize(("source_rate", "sample_rate"), [(44100, 8000), (48000, 16000), (8000, 44100)])
def test_samples_do_not_depend_on_where_the_signal_is_cut(source_rate, sample_rate):
    noise = np.random.default_rng(0).integers(-8000, 8000, (3 * source_rate, 1)).astype(np.int16)
    whole = resample(noise, source_rate, sample_rate)
    later = resample(noise[source_rate:], source_rate, sample_rate)
    around = sample_rate // 10  # what the cut silences
    np.testing.assert_array_equal(later[around:], whole[sample_rate + around :])
    shorter = resample(noise[: 2 * source_rate], source_rate, sample_rate)
    np.testing.assert_array_equal(shorter[:-around], whole[: 2 * sample_rate - around])


@pytest.mark.parametrize("num_channels", [2, 3, 6, 32])
def test_channels_are_as_if_alone(num_channels):
    noise = np.random.default_rng(1).normal(0, 0.1, (20000, num_channels)).astype(np.float32)
    together = resample(noise, 44100, 16000)
    assert together.shape == (7256, num_channels)
    for channel in range(num_channels):
        np.testing.assert_array_equal(together[:, channel], resample(noise[:, [channel]], 44100, 16000)[:, 0])


@pytest.mark.parametrize(("rates", "num_channels"), [((44100, 11127), 2), ((44100, 16000), 33)])
def test_what_would_take_large_tables_or_many_lanes_is_left_to_soxr(rates, num_channels):
    noise = np.random.default_rng(2).integers(-8000, 8000, (5000, num_channels)).astype(np.int16)
    expected = to_pcm(soxr.resample(noise / 2**15, *rates, quality="VHQ"))
    np.testing.assert_array_equal(resample(noise, *rates), expected)


def test_whole_steps_and_the_same_as_floating_point_give_the_same():
    steps = np.random.default_rng(2).integers(-(2**15), 2**15, (30000, 2)).astype(np.int16)
    np.testing.assert_array_equal(resample(steps, 22050, 8000), resample(steps / 2**15, 22050, 8000))


def test_what_would_leave_the_range_is_clipped():
    square = np.where(np.arange(8000) % 80 < 40, 1.0, -1.0)[:, None]
    steps = resample(square, 16000, 8000)
    assert steps.max() == 2**15 - 1
    assert steps.min() == -(2**15)


@pytest.mark.parametrize("frames", [0, 1, 2, 5, 100, 441, 442])
@pytest.mark.parametrize(("source_rate", "sample_rate"), [(44100, 8000), (8000, 44100), (8000, 8000), (8000, 7999)])
def test_files_of_any_length_get_the_nearest_number_of_frames(frames, source_rate, sample_rate):
    steps = resample(np.full((frames, 2), 0.25), source_rate, sample_rate)
    assert steps.shape == (int(frames * sample_rate / source_rate + 0.5), 2)
    if frames >= 441 and sample_rate >= source_rate - 1:
        assert abs(int(steps[len(steps) // 2, 0]) - 2**13) <= 1


_CHECKSUM = "7b6a540066a5ac80fa627408bc7474a68e7e65ebd27cc0fd7eeb9ea6c938f25c"
_PROGRAM = """
import hashlib, numpy
from separation.data.audio.resampling import resample
steps = (numpy.arange(60000) * 7919 % 65521 - 32760).astype(numpy.int16).reshape(-1, 2)
print(hashlib.sha256(b"".join(
    resample(steps, *rates).astype("<i2").tobytes() for rates in ((44100, 8000), (8000, 16000), (44100, 48000))
)).hexdigest())
"""


@pytest.mark.parametrize("processor", [None, "generic"])
def test_bytes_are_the_same_on_any_processor(processor, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "NUMBA_CACHE_DIR": str(tmp_path)}
    if processor:  # the least of its architecture: narrow vectors, few outputs at a time, on x86 no fused multiply-add
        environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == _CHECKSUM
