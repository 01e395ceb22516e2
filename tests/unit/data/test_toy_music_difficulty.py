"""Toy music is a separation task: ideal masks separate it, fixed masks do not.

The slow form builds all songs of the recipe's training and test splits: half a minute on one core.
"""

import json

import numpy as np
import pytest
import soundfile
from scipy.signal import istft, stft

from separation.data import mix
from tiny_source import build_source, mixing_spec, recipe

SAMPLE_RATE, N_FFT, HOP_LENGTH = 8000, 256, 64
# songs, seconds of each, and mixtures (the first ones of the recipe), per split
FEW = {"train": 4, "test": 4}, 10.0, {"train": 12, "test": 12}
ALL = recipe("toy_music")["source"]["args"]["songs"], 30.0, {"train": 48, "test": 48}


def _stft(audio):
    return stft(audio, window="hann", nperseg=N_FFT, noverlap=N_FFT - HOP_LENGTH)[2]


def _istft(spectrogram, frames):
    return istft(spectrogram, window="hann", nperseg=N_FFT, noverlap=N_FFT - HOP_LENGTH)[1][..., :frames]


def _si_sdr(estimate, reference):
    """Scale-invariant SDR in dB (J. Le Roux et al.: "SDR - half-baked or well done?", ICASSP 2019, eq. 5)."""
    target = (estimate @ reference) / (reference @ reference) * reference
    return 10 * np.log10((target @ target) / np.square(estimate - target).sum())


def _items(manifest):
    """The vocals and the accompaniment of each mixture: (2, frames)."""
    for item in json.loads(manifest.read_text())["items"]:
        audio = {label: soundfile.read(manifest.parent / path)[0] for label, path in item["sources"].items()}
        yield np.stack([audio["vocals"], audio["bass"] + audio["drums"] + audio["other"]])


def _mean_si_sdr(estimates, sources):
    return np.mean([_si_sdr(estimate, source) for estimate, source in zip(estimates, sources, strict=True)])


@pytest.fixture(
    scope="module",
    params=[pytest.param(FEW, id="few songs"), pytest.param(ALL, id="all songs", marks=pytest.mark.slow)],
)
def scores(request, tmp_path_factory):
    """Mean SI-SDR in dB over both sources of each test mixture, by method."""
    songs, song_duration, mixtures = request.param
    folder = tmp_path_factory.mktemp("toy_music")
    args = {"songs": {split: songs[split] for split in mixtures}, "song_duration": song_duration}
    resampled = build_source(folder / "source", name="toy_music", args=args)[2]
    spec = mixing_spec("toy_music")
    for split, number in mixtures.items():
        spec["mixture_parameters"][split]["num_mixtures"] = number
        mix.mix_dataset(spec, split, resampled, folder / split / "manifest.json")

    energy, shares = 0, []
    for sources in _items(folder / "train" / "manifest.json"):
        power = np.abs(_stft(sources)) ** 2
        energy = energy + power.sum(axis=-1)
        shares.append((power / (power.sum(axis=0) + 1e-12)).mean(axis=-1))
    fixed_masks = {
        "energy_ratio": (energy / energy.sum(axis=0))[..., None],
        "mean_share": np.mean(shares, axis=0)[..., None],
    }

    scores = {name: [] for name in ("mixture", "ideal_binary_mask", *fixed_masks)}
    for sources in _items(folder / "test" / "manifest.json"):
        magnitudes, mixture = np.abs(_stft(sources)), sources.sum(axis=0)
        masks = {"ideal_binary_mask": magnitudes == magnitudes.max(axis=0), **fixed_masks}
        scores["mixture"].append(_mean_si_sdr([mixture, mixture], sources))
        for name, mask in masks.items():
            estimates = _istft(mask * _stft(mixture), len(mixture))
            scores[name].append(_mean_si_sdr(estimates, sources))
    return {name: np.array(values) for name, values in scores.items()}


def _improvement(scores, name):
    return (scores[name] - scores["mixture"]).mean()


def test_vocals_and_accompaniment_are_about_equally_loud(scores):
    assert len(scores["mixture"]) in (12, 48)
    assert abs(scores["mixture"].mean()) < 1


def test_an_ideal_mask_separates_well(scores):
    assert _improvement(scores, "ideal_binary_mask") > 10


@pytest.mark.parametrize("mask", ["energy_ratio", "mean_share"])
def test_a_fixed_mask_does_not_separate(scores, mask):
    assert 0 < _improvement(scores, mask) < 4
