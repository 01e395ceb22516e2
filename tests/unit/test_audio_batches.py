"""Batches computed from stored audio are those of stored features, and those of nussl's own transforms."""

import json

import numpy as np
import pytest
import soundfile
import torch

from separation.batches import BatchLoader, plan_epoch
from separation.cache import DATASET_KEYS, populate_cache
from separation.data.items import Items
from separation.encoding import PCM_STEP, encode_audio, encoded_items, stored_arrays
from separation.feature_store import BatchOptions, FeatureStore
from separation.nussl_compat import nussl
from separation.training import train_point
from training_examples import SAMPLE_RATE, dataset_config, experiment

FEATURE_KEYS = ["mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights"]
AUDIO_KEYS = ["mix_audio", "source_audio"]
transforms = nussl.datasets.transforms


def write_split(folder, *, lengths=(5000, 3001, 640), channels=1, subtype="PCM_16", level=0.05):
    """Mixtures of noises, the second of which begins late; what is written is what 16 bits hold."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    items = []
    for index, samples in enumerate(lengths):
        sources = {name: level * rng.normal(size=(samples, channels)) for name in ("drums", "vocals")}
        sources["vocals"][: samples // 3] = 0
        if subtype == "PCM_16":
            sources = {name: np.round(audio * 32768) / 32768 for name, audio in sources.items()}
        paths = {name: f"{index}_{name}.wav" for name in sources}
        for name, audio in {**sources, "mixture": sum(sources.values())}.items():
            soundfile.write(folder / f"{index}_{name}.wav", audio, SAMPLE_RATE, subtype=subtype)
        items.append({"name": str(index), "mixture": f"{index}_mixture.wav", "sources": paths, "conditions": {}})
    manifest = {"format": 1, "split": "train", "sample_rate": SAMPLE_RATE, "num_channels": channels, "items": items}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return {"folder": str(folder), "class": "Scaper"}


def make_store(split, config):
    names = stored_arrays(config["cache_kind"], config["data_keys_for_training"])
    return FeatureStore.from_items(encoded_items(Items(split, config), config, names), config)


def nussl_items(split, config):
    """Every item as nussl's transforms give it to its networks, in double precision."""
    parameters = nussl.STFTParams(config["n_fft"], config["hop_length"], config["window_type"])
    approximation = {
        "psa": transforms.PhaseSensitiveSpectrumApproximation,
        "msa": transforms.MagnitudeSpectrumApproximation,
    }[config["output_type"]]

    def signal(array):
        return nussl.AudioSignal(
            audio_data_array=array.astype(np.float64), sample_rate=SAMPLE_RATE, stft_params=parameters
        )

    chain = transforms.Compose([approximation(), transforms.MagnitudeWeights(), transforms.GetAudio()])
    items = []
    for audio in map(Items(split, config).arrays, range(len(Items(split, config)))):
        sources = {name: signal(array) for name, array in audio.sources.items()}
        data = chain({"mix": signal(audio.mixture), "sources": sources})
        data["ideal_binary_mask"] = data["ideal_binary_mask"].astype(np.float64)
        items.append({key: value.numpy() for key, value in transforms.ToSeparationModel()(data).items()})
    return items


def assert_nearly_all_equal(ours, theirs, share=1e-4):
    """Masks may differ where sources are as loud as each other, to the precision of float32."""
    assert np.mean(np.asarray(ours) != np.asarray(theirs)) < share


@pytest.mark.parametrize("window_type", ["sqrt_hann", "hamming"])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(64, 32), (256, 64), (96, 25)])
@pytest.mark.parametrize(("output_type", "channels"), [("psa", 1), ("msa", 2)])
def test_excerpts_from_audio_are_frames_of_nussls_transforms_of_whole_files(
    tmp_path, n_fft, hop_length, output_type, channels, window_type
):
    config = dataset_config(
        n_fft=n_fft,
        hop_length=hop_length,
        window_type=window_type,
        output_type=output_type,
        num_channels=channels,
        data_keys_for_training=FEATURE_KEYS,
        cache_kind="audio",
    )
    split = write_split(tmp_path / "train", channels=channels)
    store, theirs = make_store(split, config), nussl_items(split, config)
    assert store.frames.tolist() == [len(item["mix_magnitude"]) for item in theirs]
    length = int(store.frames[2]) - 1
    # the beginning, the middle and the very end of the files
    items, starts = [0, 0, 0, 1, 2, 2], [0, 11, int(store.frames[0]) - length, 7, 0, 1]
    batch = store.excerpts(items, starts, length, BatchOptions.of(config))
    for row, (item, start) in enumerate(zip(items, starts, strict=True)):
        for key in FEATURE_KEYS:
            expected = theirs[item][key][start : start + length]
            if key == "ideal_binary_mask":
                assert_nearly_all_equal(batch[key][row], expected, 1e-3)
            else:
                peak = theirs[item][key].max()
                np.testing.assert_allclose(batch[key][row], expected, rtol=1e-3, atol=2e-6 * peak, err_msg=key)


def test_both_kinds_give_the_same_batches(tmp_path):
    split = write_split(tmp_path / "train", lengths=(5000, 3001, 4096, 4097, 640))
    config = dataset_config(data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS, weight_threshold=-40)
    stores = {kind: make_store(split, {**config, "cache_kind": kind}) for kind in ("features", "audio")}
    assert stores["features"].frames.tolist() == stores["audio"].frames.tolist()
    for epoch in range(5):
        plan = plan_epoch(
            stores["audio"].frames,
            length=40,
            seed=0,
            epoch=epoch,
            sample_strategy="random",
            excerpt_selection_strategy="random",
        )
        pairs = [BatchLoader(store, config, batch_size=2).load(plan) for store in stores.values()]
        for features, audio in zip(*pairs, strict=True):
            assert list(features) == list(audio) == FEATURE_KEYS + AUDIO_KEYS
            for key in ("mix_magnitude", "source_magnitudes"):
                assert features[key].shape == audio[key].shape
                np.testing.assert_allclose(audio[key], features[key], rtol=2**-10, atol=1e-8, err_msg=key)
            assert_nearly_all_equal(audio["ideal_binary_mask"], features["ideal_binary_mask"])
            # a bin at the threshold may fall on either side of it
            assert_nearly_all_equal(audio["weights"] > 0, features["weights"] > 0, 1e-3)
            both = (audio["weights"] > 0) & (features["weights"] > 0)
            np.testing.assert_allclose(audio["weights"][both], features["weights"][both], rtol=2**-10)
            for key in AUDIO_KEYS:
                assert torch.equal(audio[key], features[key])


@pytest.mark.parametrize("kind", ["features", "audio"])
@pytest.mark.parametrize("channels", [1, 2])
def test_waveforms_are_laid_out_as_nussls_getaudio_and_exact(tmp_path, kind, channels):
    config = dataset_config(data_keys_for_training=AUDIO_KEYS, cache_kind=kind, num_channels=channels)
    split = write_split(tmp_path / "train", channels=channels)
    store, theirs = make_store(split, config), nussl_items(split, config)
    assert set(store.arrays) == set(AUDIO_KEYS)
    batch = store.excerpts([1, 0, 2], [5, 40, 0], 30, BatchOptions.of(config))
    assert batch["mix_audio"].shape == (3, channels, 30 * 32)
    assert batch["source_audio"].shape == (3, channels, 30 * 32, 2)
    for row, (item, start) in enumerate([(1, 5), (0, 40), (2, 0)]):
        for key in AUDIO_KEYS:
            expected = theirs[item][key][:, start * 32 : (start + 30) * 32]
            np.testing.assert_array_equal(batch[key][row][:, : expected.shape[1]], expected)
            assert not batch[key][row][:, expected.shape[1] :].any()
    assert not batch["mix_audio"][2, :, 640:].any()


def test_nussls_filter_bank_and_loss_take_the_waveforms(tmp_path):
    config = dataset_config(data_keys_for_training=AUDIO_KEYS, cache_kind="audio", num_channels=2)
    store = make_store(write_split(tmp_path / "train", channels=2), config)
    batch = store.excerpts([0, 1], [60, 40], 40, BatchOptions.of(config))
    bank = nussl.ml.networks.modules.STFT(64, hop_length=16)
    spectrum = bank(batch["mix_audio"], direction="transform")
    estimates = bank(torch.stack([spectrum, spectrum], dim=-1), direction="inverse")
    assert estimates.shape == batch["source_audio"].shape
    loss = nussl.ml.train.loss.SISDRLoss()
    nearly = batch["source_audio"] + 0.01 * batch["mix_audio"].unsqueeze(-1)
    assert loss(nearly, batch["source_audio"]) < -30
    assert loss(estimates, batch["source_audio"]) > -10


def test_a_store_on_a_device_gives_the_batches_of_one_in_memory(tmp_path):
    config = dataset_config(data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS)
    split = write_split(tmp_path / "train")
    for kind in ("features", "audio"):
        store = make_store(split, {**config, "cache_kind": kind})
        there = store.on_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        assert there.device is not None and there.nbytes == store.nbytes
        for items, starts in (([0, 1], [3, 60]), ([2, 0], [0, 118]), ([2], [0])):
            ours = there.excerpts(items, starts, 40, BatchOptions.of(config))
            theirs = store.excerpts(items, starts, 40, BatchOptions.of(config))
            for key in theirs:
                if there.device.type == "cpu":
                    assert torch.equal(ours[key], theirs[key]), (kind, key)
                else:
                    torch.testing.assert_close(ours[key].cpu(), theirs[key], rtol=1e-3, atol=1e-6)


def test_16_bit_audio_is_kept_exactly_and_finer_or_louder_audio_within_its_step():
    rng = np.random.default_rng(0)
    coarse = (rng.integers(-32768, 32768, (2, 500)) / 32768).astype(np.float32)
    arrays, step = encode_audio(coarse, [coarse, coarse])
    assert step == PCM_STEP
    np.testing.assert_array_equal(arrays["mix_audio"].T * np.float32(step), coarse)
    for audio in (rng.normal(size=(1, 500)) * 1e-3, rng.normal(size=(1, 500)) * 30, coarse + coarse):
        audio = audio.astype(np.float32)
        arrays, step = encode_audio(audio, [audio / 2])
        peak = np.abs(audio).max()
        error = np.abs(arrays["source_audio"][..., 0].T * step - audio / 2).max()
        assert error <= step / 2 * (1 + 1e-6) <= peak / 65534 * (1 + 2e-6)
    with pytest.raises(OverflowError):
        encode_audio(np.full((1, 3), np.nan, np.float32), [coarse[:1, :3]])


def test_silence_has_a_batch(tmp_path):
    config = dataset_config(data_keys_for_training=FEATURE_KEYS, cache_kind="audio")
    store = make_store(write_split(tmp_path / "train", lengths=(700,), level=0), config)
    batch = store.excerpts([0], [0], 10, BatchOptions.of(config))
    assert not any(batch[key].any() for key in FEATURE_KEYS)


def test_a_training_from_cached_audio_ends_in_the_weights_of_one_from_the_mixtures(tmp_path):
    config = experiment(dataset={"cache_kind": "audio"}, num_epochs=2, num_workers=1)
    splits = {name: write_split(tmp_path / name) for name in ("train", "val")}
    spec = {
        "dataset_config": {key: value for key, value in config["dataset_config"].items() if key in DATASET_KEYS},
        "keys": AUDIO_KEYS,
        "kind": "audio",
    }
    caches = {name: tmp_path / "cache" / f"{name}.json" for name in splits}
    for name, manifest in caches.items():
        populate_cache(spec, splits[name], manifest)
    weights = []
    for folder, given in (("uncached", None), ("cached", caches)):
        train_point(config, folder=tmp_path / folder, splits=splits, caches=given)
        model = torch.load(tmp_path / folder / "checkpoints" / "latest.model.pth", weights_only=False)
        weights.append(model["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
