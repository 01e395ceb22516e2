"""Features and targets equal nussl's."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.signal import get_window

from separation.data.items import ItemAudio
from separation.errors import UserError
from separation.features.decode import BatchOptions
from separation.features.encoding import MAGNITUDE_SCALE, encode, encode_item, stored_arrays
from separation.features.spectra import (
    Targets,
    check_features,
    extract,
    loss_weights,
    stft,
    weight_floors,
    weight_gains,
    window,
)
from separation.features.store import FeatureStore
from separation.features.targets import fill_targets
from separation.nussl_compat import nussl
from training_examples import dataset_options

TRANSFORMS = {
    "psa": nussl.datasets.transforms.PhaseSensitiveSpectrumApproximation,
    "msa": nussl.datasets.transforms.MagnitudeSpectrumApproximation,
}


def make_audio(samples=5001, channels=1, sources=2, seed=0, level=0.05):
    rng = np.random.default_rng(seed)
    audio = {f"source{n}": level * rng.normal(size=(channels, samples)).astype(np.float32) for n in range(sources)}
    audio["source0"][:, : samples // 3] = 0  # silence at the beginning of one source
    return sum(audio.values()), audio


def make_store(items, options):
    """A store of the kind in `options`, from (mixture, sources) of each item."""
    names = stored_arrays(options.cache_kind, options.data_keys_for_training)
    encoded = [encode_item(ItemAudio("item", *item, {}), options, names) for item in items]
    return FeatureStore.from_items(encoded, dataclasses.replace(options, num_channels=items[0][0].shape[0]))


def nussl_features(mixture, sources, options):
    parameters = nussl.STFTParams(options.n_fft, options.hop_length, options.window_type)

    def signal(array):
        array = array.astype(np.float64)  # scipy computes in the precision of its input
        return nussl.AudioSignal(audio_data_array=array, sample_rate=options.sample_rate, stft_params=parameters)

    data = {"mix": signal(mixture), "sources": {name: signal(array) for name, array in sources.items()}}
    data = nussl.datasets.transforms.MagnitudeWeights()(TRANSFORMS[options.output_type]()(data))
    data["ideal_binary_mask"] = data["ideal_binary_mask"].astype(np.float64)
    return {key: value.numpy() for key, value in nussl.datasets.transforms.ToSeparationModel()(data).items()}


@pytest.mark.parametrize("window_type", ["sqrt_hann", "hann", "hamming"])
@pytest.mark.parametrize(("n_fft", "hop_length", "samples"), [(256, 64, 5001), (256, 128, 4096), (64, 32, 100)])
def test_stft_equals_nussls(window_type, n_fft, hop_length, samples):
    mixture, _ = make_audio(samples, channels=2)
    ours = stft(torch.from_numpy(mixture).double(), n_fft=n_fft, hop_length=hop_length, window_type=window_type)
    signal = nussl.AudioSignal(audio_data_array=mixture.astype(np.float64), sample_rate=8000)
    theirs = signal.stft(n_fft, hop_length, window_type)
    np.testing.assert_allclose(ours.permute(2, 1, 0).numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("window_type", ["hann", "hamming", "blackman", "blackmanharris"])
@pytest.mark.parametrize("window_length", [1, 2, 255, 256])
def test_windows_equal_those_of_scipy_bit_for_bit(window_type, window_length):
    np.testing.assert_array_equal(window(window_type, window_length), get_window(window_type, window_length))


@pytest.mark.parametrize("output_type", ["psa", "msa"])
@pytest.mark.parametrize(("channels", "sources"), [(1, 2), (2, 2), (1, 4)])
def test_features_equal_those_of_nussls_transforms(output_type, channels, sources):
    options = dataset_options(n_fft=128, hop_length=32, output_type=output_type)
    mixture, audio = make_audio(channels=channels, sources=sources)
    theirs = nussl_features(mixture, audio, options)
    ours = extract(mixture, audio, options)
    assert ours.sources == tuple(audio)
    np.testing.assert_allclose(ours.mix_magnitude, theirs["mix_magnitude"], atol=1e-7)
    np.testing.assert_allclose(ours.source_magnitudes, theirs["source_magnitudes"], atol=1e-7)
    np.testing.assert_array_equal(ours.ideal_binary_mask, theirs["ideal_binary_mask"].astype(bool))
    assert 0.1 < ours.ideal_binary_mask[..., 1].mean() < 1


def test_bins_with_equal_sources_belong_to_neither():
    options = dataset_options(output_type="msa")
    _, audio = make_audio()
    twins = {"one": audio["source1"], "two": audio["source1"].copy()}
    mixture = twins["one"] + twins["two"]
    assert nussl_features(mixture, twins, options)["ideal_binary_mask"].sum() == 0
    assert not extract(mixture, twins, options).ideal_binary_mask.any()


def test_stored_excerpts_equal_nussls_features_within_float16():
    options = dataset_options(
        data_keys_for_training=["mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights"]
    )
    items = [make_audio(samples, seed=samples) for samples in (5000, 3001)]
    keys = options.data_keys_for_training
    store = make_store(items, options)
    theirs = [nussl_features(*item, options) for item in items]
    batch = store.excerpts([1, 0], [10, 50], 30, BatchOptions.of(options))
    for row, (item, start) in enumerate([(1, 10), (0, 50)]):
        for key in keys:
            expected = theirs[item][key][start : start + 30]
            np.testing.assert_allclose(batch[key][row], expected, rtol=2**-10, atol=1e-9, err_msg=key)
    np.testing.assert_array_equal(batch["ideal_binary_mask"][0], theirs[1]["ideal_binary_mask"][10:40])


def test_very_quiet_audio_keeps_its_level():
    """At -40 dB, a third of unscaled magnitudes would be subnormal in float16 and up to 9 dB wrong."""
    options = dataset_options(data_keys_for_training=["mix_magnitude"])
    mixture, audio = make_audio(level=1e-4)
    features = extract(mixture, audio, options)
    store = make_store([(mixture, audio)], options)
    frames = len(features.mix_magnitude)
    stored = store.excerpts([0], [0], frames, BatchOptions.of(options))["mix_magnitude"][0].numpy()
    loud = features.mix_magnitude > features.mix_magnitude.max() / 1000
    error = 20 * np.log10(stored[loud] / features.mix_magnitude[loud])
    assert np.abs(error).max() < 0.02


@pytest.mark.parametrize("weight_type", [["magnitude"], ["equal"]])
@pytest.mark.parametrize("kind", ["features", "audio"])
def test_shorter_items_are_zero_padded(kind, weight_type):
    options = dataset_options(cache_kind=kind, weight_type=weight_type)
    store = make_store([make_audio(640)], options)
    frames = int(store.frames[0])
    batch = store.excerpts([0], [0], frames + 7, BatchOptions.of(options))
    assert batch["weights"].shape == (1, frames + 7, 33, 1)
    assert batch["ideal_binary_mask"].shape == (1, frames + 7, 33, 1, 2)
    assert batch["weights"][0, :frames].any()
    for values in batch.values():
        assert not values[0, frames:].any()


def test_bins_below_the_threshold_have_weight_0():
    magnitude = torch.tensor([1, 0.2, 0.09, 1e-5])
    gain = torch.from_numpy(weight_gains(np.array([1.3]), np.array([4])))

    def weigh(kind, threshold):
        floor = threshold and torch.from_numpy(weight_floors(np.array([1.0]), threshold))
        return loss_weights(magnitude, gain=gain, floor=floor, weight_type=[kind])

    assert (weigh("magnitude", -20) > 0).tolist() == [True, True, False, False]
    assert weigh("equal", -80).tolist() == [1, 1, 1, 0]
    assert weigh("equal", None).tolist() == [1, 1, 1, 1]


def test_audio_far_above_full_scale_is_an_error():
    mixture, audio = make_audio(level=100 * 65504 / MAGNITUDE_SCALE)
    with pytest.raises(OverflowError):
        encode(extract(mixture, audio, dataset_options()), ["mix_magnitude"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"data_keys_for_training": ["mix_magnitude", "assignments"]}, "data_keys_for_training"),
        ({"data_keys_for_training": ["weights"]}, "data_keys_for_training"),
        ({"output_type": "irm"}, "output_type"),
        ({"weight_type": ["loudness"]}, "weight_type"),
        ({"weight_type": ["threshold"]}, "weight_threshold"),
        ({"format": "cnn"}, "format"),
    ],
)
def test_unknown_features_are_an_error_that_names_the_key(change, key):
    with pytest.raises(UserError, match=rf"^dataset_config\.{key}: "):
        check_features(dataset_options(**change))


@pytest.mark.parametrize("precision", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("num_sources", [1, 2, 3])
@pytest.mark.parametrize("output_type", ["psa", "msa"])
def test_targets_on_cpu_and_gpu_are_equal(precision, num_sources, output_type):
    generator = torch.Generator().manual_seed(num_sources)
    spectra = torch.randn(1 + num_sources, 2, 30, 33, dtype=precision, generator=generator)
    spectra[0] = spectra[1:].sum(dim=0)
    spectra[:, :, :5] = 0
    spectra[1:, :, 5:10] = spectra[1, :, 5:10]  # as loud as each other
    spectra[0, :, 10:15] = 0
    targets = Targets(spectra[0], spectra[1:], output_type)
    expected = [targets.mix_magnitude(), targets.source_magnitudes(), targets.ideal_binary_mask()]
    found = [
        np.full((30, 33, 2), 9, np.float32),
        *(np.full((30, 33, 2, num_sources), 9, kind) for kind in (np.float32, np.float32)),
    ]
    fill_targets(torch.view_as_real(spectra).flatten(-2).numpy(), output_type == "psa", *found)
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs.movedim((-2, -1, -3), (0, 1, 2)).float(), rtol=1e-5, atol=1e-6)
    mask = expected[2].movedim((-2, -1, -3), (0, 1, 2)).float()
    assert np.array_equal(found[2], mask)
