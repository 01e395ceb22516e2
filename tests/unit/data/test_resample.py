"""Resampling: exact below half the new rate, silent above it, without delay, and the same bytes on every machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from separation.data import resample
from separation.data.resample import resample_audio, resample_shard, resample_source
from separation.errors import UserError
from tiny_source import bytes_below, write_source

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
RATES = [
    (44100, 8000), (44100, 16000), (48000, 16000), (22050, 16000), (16000, 8000), (96000, 44100), (8000, 16000),
    (16000, 44100), (44100, 48000), (44100, 11127),
]  # fmt: skip


def _tone(rate, frequency, phase=0.0):
    """A second of a tone of amplitude 0.9 from time 0, float (samples, 1)."""
    return 0.9 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate + phase)[:, None]


def _noise(rate, seconds=0.5, channels=2):
    return np.random.default_rng(rate).normal(0, 0.1, (round(seconds * rate), channels))


def _middle(audio):
    """The audio without its ends, where the signal begins and stops abruptly."""
    return audio[len(audio) // 4 : -len(audio) // 4]


@pytest.mark.parametrize(("source_rate", "sample_rate"), RATES)
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.6, 0.9])
def test_tones_below_half_the_new_rate_are_kept_without_delay(source_rate, sample_rate, fraction):
    frequency = fraction * min(source_rate, sample_rate) / 2
    steps = resample_audio(_tone(source_rate, frequency), source_rate, sample_rate)
    sine, cosine = (2**15 * _tone(sample_rate, frequency, phase) for phase in (0, np.pi / 2))
    assert steps.shape == sine.shape
    basis = _middle(np.concatenate((sine, cosine), axis=1))
    (gain, quadrature), *_ = np.linalg.lstsq(basis, _middle(steps[:, 0]))
    assert abs(20 * np.log10(gain)) < 0.01  # soxr's roll-off at the edge of its passband
    assert abs(quadrature) < 1e-5
    assert np.abs(_middle(steps[:, 0]) - gain * basis[:, 0]).max() < 0.6  # half a step is the rounding


@pytest.mark.parametrize(("source_rate", "sample_rate"), [pair for pair in RATES if pair[1] < pair[0]])
def test_tones_above_half_the_new_rate_vanish(source_rate, sample_rate):
    for ratio in (1.01, 1.3, source_rate / sample_rate - 0.1):
        tone = _tone(source_rate, ratio * sample_rate / 2)
        assert not _middle(resample_audio(tone, source_rate, sample_rate)).any(), ratio


@pytest.mark.parametrize(("source_rate", "sample_rate"), RATES)
def test_samples_agree_with_librosa(source_rate, sample_rate):
    noise = _noise(source_rate)
    steps = resample_audio(noise, source_rate, sample_rate)
    by_librosa = librosa.resample(noise.T, orig_sr=source_rate, target_sr=sample_rate, res_type="soxr_vhq").T
    assert np.abs(steps - 2**15 * by_librosa[: len(steps)]).max() <= 1
    assert 0 <= len(by_librosa) - len(steps) <= 1  # librosa rounds up


@pytest.mark.parametrize("frames", [0, 1, 2, 5, 100, 441, 442])
@pytest.mark.parametrize(("source_rate", "sample_rate"), [(44100, 8000), (8000, 44100), (8000, 8000), (8000, 7999)])
def test_the_number_of_frames_is_rounded_to_the_nearest(frames, source_rate, sample_rate):
    steps = resample_audio(np.full((frames, 2), 0.25), source_rate, sample_rate)
    assert steps.shape == (int(frames * sample_rate / source_rate + 0.5), 2)


def test_samples_beyond_full_scale_are_clipped():
    square = np.where(np.arange(8000) % 80 < 40, 1.0, -1.0)[:, None]
    steps = resample_audio(square, 16000, 8000)
    assert (steps.min(), steps.max()) == (-(2**15), 2**15 - 1)


def test_samples_at_the_same_rate_are_rounded_to_the_nearest_step(tmp_path):
    steps_of_16_bits = np.array([0.4, 0.6, -0.4, -0.6, 1000.49, -1000.49, 40000.0, -40000.0])
    organized = write_source(tmp_path / "organized", [("a", steps_of_16_bits / 32768, 8000)])
    resample_source({"sample_rate": 8000}, organized, tmp_path / "resampled/manifest.json")
    audio, _ = soundfile.read(tmp_path / "resampled/train/song/a.wav", dtype="int16")
    assert audio.tolist() == [0, 1, 0, -1, 1000, -1000, 32767, -32768]


@pytest.fixture(scope="module")
def organized(tmp_path_factory):
    rates = (44100, 48000, 8000, 16000, 22050)
    files = [(f"file{number}", _noise(rate, 0.2 + number / 10), rate) for number, rate in enumerate(rates)]
    return write_source(tmp_path_factory.mktemp("organized"), files)


@pytest.fixture(scope="module")
def resampled(organized, tmp_path_factory):
    manifest = tmp_path_factory.mktemp("resampled") / "manifest.json"
    resample_source({"sample_rate": 16000}, organized, manifest)
    return manifest


def test_bytes_are_the_same_with_1_and_2_workers(organized, resampled, tmp_path, monkeypatch):
    monkeypatch.setattr(resample, "SECONDS_PER_PROCESS", 0)
    resample_source({"sample_rate": 16000}, organized, tmp_path / "manifest.json", workers=2)
    assert bytes_below(tmp_path) == bytes_below(resampled.parent)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bytes_are_the_same_with_any_number_of_shards(organized, resampled, tmp_path, count):
    records = [tmp_path / "shards" / f"{number:04d}.json" for number in range(count)]
    for number, record in enumerate(records):
        resample_shard({"sample_rate": 16000}, organized, record, number, count)
    resample_source({"sample_rate": 16000}, organized, tmp_path / "manifest.json", shards=records)
    written = bytes_below(tmp_path)
    assert {path for path in written if path.startswith("shards/")} == {f"shards/{each.name}" for each in records}
    assert {path: content for path, content in written.items() if not path.startswith("shards/")} == bytes_below(
        resampled.parent
    )


def test_missing_records_of_shards_stop_the_run(organized, tmp_path):
    record = tmp_path / "shards" / "0000.json"
    resample_shard({"sample_rate": 16000}, organized, record, 0, 2)
    with pytest.raises(UserError, match="expected the records of 5 files, found 2"):
        resample_source({"sample_rate": 16000}, organized, tmp_path / "manifest.json", shards=[record])


_CHECKSUM = """
import hashlib, numpy
from separation.data.resample import resample_audio
audio = numpy.random.default_rng(0).normal(0, 0.1, (30000, 2))
pairs = (44100, 8000), (8000, 16000), (44100, 48000)
print(hashlib.sha256(b"".join(resample_audio(audio, *pair).tobytes() for pair in pairs)).hexdigest())
"""


def test_bytes_are_the_same_with_and_without_vector_instructions():
    checksums = set()
    for enabled in ("1", "0"):
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "SOXR_USE_SIMD32": enabled, "SOXR_USE_SIMD64": enabled}
        command = [sys.executable, "-c", _CHECKSUM]
        checksums.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(checksums) == 1


def test_channels_are_averaged_or_kept(tmp_path):
    left, right = np.full(4000, 0.5), np.full(4000, -0.25)
    manifest = write_source(tmp_path / "organized", [("a", np.stack([left, right], axis=1), 8000)])
    resample_source({"sample_rate": 8000}, manifest, tmp_path / "mono/manifest.json")
    audio, _ = soundfile.read(tmp_path / "mono/train/song/a.wav", always_2d=True)
    assert audio.shape == (4000, 1)
    assert np.abs(audio - 0.125).max() < 2**-15
    resample_source({"sample_rate": 8000, "num_channels": 2}, manifest, tmp_path / "stereo/manifest.json")
    audio, _ = soundfile.read(tmp_path / "stereo/train/song/a.wav", always_2d=True)
    assert audio.shape == (4000, 2)
    with pytest.raises(UserError, match="num_channels: expected a file of 4 channels, found 2"):
        resample_source({"sample_rate": 8000, "num_channels": 4}, manifest, tmp_path / "four/manifest.json")


def test_an_interrupted_run_leaves_no_manifest_and_the_next_one_the_same_bytes(organized, tmp_path, monkeypatch):
    manifest = tmp_path / "manifest.json"
    resample_source({"sample_rate": 8000}, organized, manifest)
    before = bytes_below(tmp_path)

    def interrupted(entry, *options):
        if entry["class"] == "file3":
            raise KeyboardInterrupt
        return original(entry, *options)

    original = resample.resample_file
    monkeypatch.setattr(resample, "resample_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resample_source({"sample_rate": 8000}, organized, manifest)
    assert not manifest.exists()
    monkeypatch.undo()
    resample_source({"sample_rate": 8000}, organized, manifest)
    assert bytes_below(tmp_path) == before


def test_the_manifest_lists_the_new_files(organized, resampled):
    old, new = (json.loads(manifest.read_text())["files"] for manifest in (organized, resampled))
    assert [entry["path"] for entry in new] == [entry["path"] for entry in old]
    for entry in new:
        info = soundfile.info(resampled.parent / entry["path"])
        assert (info.samplerate, info.frames, info.channels) == (16000, entry["frames"], 1) and "sha256" not in entry
