"""Batches computed from stored audio equal those of stored features and of nussl's transforms."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch

from separation.data.items import Items
from separation.experiment.options import DatasetOptions, PointOptions
from separation.features.cache import open_cache, populate_cache
from separation.features.decode import BatchOptions
from separation.features.encoding import PCM_STEP, encode_audio, encoded_items, stored_arrays
from separation.features.store import FeatureStore, Remix
from separation.nussl_compat import nussl
from separation.planning.specs import CACHED_KEYS
from separation.training.batches import BatchLoader, plan_epoch
from separation.training.loop import train_point
from training_examples import SAMPLE_RATE, dataset_config, dataset_options, experiment

FEATURE_KEYS = ["mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights"]
AUDIO_KEYS = ["mix_audio", "source_audio"]
transforms = nussl.datasets.transforms


def write_split(folder, *, lengths=(5000, 3001, 640), channels=1, subtype="PCM_16", level=0.05):
    """Writes mixtures of two noises, the second of which begins late; PCM_16 audio is rounded first."""
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


def make_store(split, options):
    names = stored_arrays(options.cache_kind, options.data_keys_for_training)
    return FeatureStore.from_items(encoded_items(Items(split, options), options, names), options)


def nussl_items(split, options):
    """Every item after nussl's transforms, in double precision."""
    parameters = nussl.STFTParams(options.n_fft, options.hop_length, options.window_type)
    approximation = {
        "psa": transforms.PhaseSensitiveSpectrumApproximation,
        "msa": transforms.MagnitudeSpectrumApproximation,
    }[options.output_type]

    def signal(array):
        return nussl.AudioSignal(
            audio_data_array=array.astype(np.float64), sample_rate=SAMPLE_RATE, stft_params=parameters
        )

    chain = transforms.Compose([approximation(), transforms.MagnitudeWeights(), transforms.GetAudio()])
    items = []
    for audio in map(Items(split, options).arrays, range(len(Items(split, options)))):
        sources = {name: signal(array) for name, array in audio.sources.items()}
        data = chain({"mix": signal(audio.mixture), "sources": sources})
        data["ideal_binary_mask"] = data["ideal_binary_mask"].astype(np.float64)
        items.append({key: value.numpy() for key, value in transforms.ToSeparationModel()(data).items()})
    return items


def assert_nearly_all_equal(ours, theirs, share=1e-4):
    """Masks may differ where sources are equally loud within the precision of float32."""
    assert np.mean(np.asarray(ours) != np.asarray(theirs)) < share


@pytest.mark.parametrize("window_type", ["sqrt_hann", "hamming"])
@pytest.mark.parametrize(("n_fft", "hop_length"), [(64, 32), (256, 64), (96, 25)])
@pytest.mark.parametrize(("output_type", "channels"), [("psa", 1), ("msa", 2)])
def test_excerpts_from_audio_equal_frames_of_nussls_transforms_of_whole_files(
    tmp_path, n_fft, hop_length, output_type, channels, window_type
):
    options = dataset_options(
        n_fft=n_fft,
        hop_length=hop_length,
        window_type=window_type,
        output_type=output_type,
        num_channels=channels,
        data_keys_for_training=FEATURE_KEYS,
        cache_kind="audio",
    )
    split = write_split(tmp_path / "train", channels=channels)
    store, theirs = make_store(split, options), nussl_items(split, options)
    assert store.frames.tolist() == [len(item["mix_magnitude"]) for item in theirs]
    length = int(store.frames[2]) - 1
    # start, middle and end of the files
    items, starts = [0, 0, 0, 1, 2, 2], [0, 11, int(store.frames[0]) - length, 7, 0, 1]
    batch = store.excerpts(items, starts, length, BatchOptions.of(options))
    for row, (item, start) in enumerate(zip(items, starts, strict=True)):
        for key in FEATURE_KEYS:
            expected = theirs[item][key][start : start + length]
            if key == "ideal_binary_mask":
                assert_nearly_all_equal(batch[key][row], expected, 1e-3)
            else:
                peak = theirs[item][key].max()
                np.testing.assert_allclose(batch[key][row], expected, rtol=1e-3, atol=2e-6 * peak, err_msg=key)


def test_both_kinds_of_cache_give_the_same_batches(tmp_path):
    split = write_split(tmp_path / "train", lengths=(5000, 3001, 4096, 4097, 640))
    options = dataset_options(data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS, weight_threshold=-40)
    stores = {kind: make_store(split, dataclasses.replace(options, cache_kind=kind)) for kind in ("features", "audio")}
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
        pairs = [BatchLoader(store, options, batch_size=2).load(plan) for store in stores.values()]
        for features, audio in zip(*pairs, strict=True):
            assert list(features) == list(audio) == FEATURE_KEYS + AUDIO_KEYS
            for key in ("mix_magnitude", "source_magnitudes"):
                assert features[key].shape == audio[key].shape
                np.testing.assert_allclose(audio[key], features[key], rtol=2**-10, atol=1e-8, err_msg=key)
            assert_nearly_all_equal(audio["ideal_binary_mask"], features["ideal_binary_mask"])
            # a bin at the threshold may be on either side of it
            assert_nearly_all_equal(audio["weights"] > 0, features["weights"] > 0, 1e-3)
            both = (audio["weights"] > 0) & (features["weights"] > 0)
            np.testing.assert_allclose(audio["weights"][both], features["weights"][both], rtol=2**-10)
            for key in AUDIO_KEYS:
                assert torch.equal(audio[key], features[key])


@pytest.mark.parametrize("kind", ["features", "audio"])
@pytest.mark.parametrize("channels", [1, 2])
def test_waveforms_are_exact_and_have_the_layout_of_nussls_getaudio(tmp_path, kind, channels):
    options = dataset_options(data_keys_for_training=AUDIO_KEYS, cache_kind=kind, num_channels=channels)
    split = write_split(tmp_path / "train", channels=channels)
    store, theirs = make_store(split, options), nussl_items(split, options)
    assert set(store.arrays) == {"mix_remainder", "source_audio"}
    batch = store.excerpts([1, 0, 2], [5, 40, 0], 30, BatchOptions.of(options))
    assert batch["mix_audio"].shape == (3, channels, 30 * 32)
    assert batch["source_audio"].shape == (3, channels, 30 * 32, 2)
    for row, (item, start) in enumerate([(1, 5), (0, 40), (2, 0)]):
        for key in AUDIO_KEYS:
            expected = theirs[item][key][:, start * 32 : (start + 30) * 32]
            np.testing.assert_array_equal(batch[key][row][:, : expected.shape[1]], expected)
            assert not batch[key][row][:, expected.shape[1] :].any()
    assert not batch["mix_audio"][2, :, 640:].any()


def test_nussls_filter_bank_and_loss_accept_the_waveforms(tmp_path):
    options = dataset_options(data_keys_for_training=AUDIO_KEYS, cache_kind="audio", num_channels=2)
    store = make_store(write_split(tmp_path / "train", channels=2), options)
    batch = store.excerpts([0, 1], [60, 40], 40, BatchOptions.of(options))
    bank = nussl.ml.networks.modules.STFT(64, hop_length=16)
    spectrum = bank(batch["mix_audio"], direction="transform")
    estimates = bank(torch.stack([spectrum, spectrum], dim=-1), direction="inverse")
    assert estimates.shape == batch["source_audio"].shape
    loss = nussl.ml.train.loss.SISDRLoss()
    nearly = batch["source_audio"] + 0.01 * batch["mix_audio"].unsqueeze(-1)
    assert loss(nearly, batch["source_audio"]) < -30
    assert loss(estimates, batch["source_audio"]) > -10


def test_a_store_on_a_device_gives_the_same_batches_as_one_in_memory(tmp_path):
    options = dataset_options(data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS)
    split = write_split(tmp_path / "train")
    for kind in ("features", "audio"):
        store = make_store(split, dataclasses.replace(options, cache_kind=kind))
        there = store.on_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        assert there.device is not None and there.nbytes == store.nbytes
        for items, starts in (([0, 1], [3, 60]), ([2, 0], [0, 118]), ([2], [0])):
            ours = there.excerpts(items, starts, 40, BatchOptions.of(options))
            theirs = store.excerpts(items, starts, 40, BatchOptions.of(options))
            for key in theirs:
                if there.device.type == "cpu":
                    assert torch.equal(ours[key], theirs[key]), (kind, key)
                else:
                    torch.testing.assert_close(ours[key].cpu(), theirs[key], rtol=1e-3, atol=1e-6)


def test_16_bit_audio_is_stored_exactly_and_other_audio_within_its_step():
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


def test_a_mixture_far_from_the_sum_of_its_sources_is_stored_exactly(tmp_path):
    rng = np.random.default_rng(0)
    coarse = (rng.integers(-32768, 32768, (3, 2, 2000)) / 32768).astype(np.float32)
    mixture, *sources = coarse
    arrays, _ = encode_audio(mixture, sources)
    parts = [arrays["source_audio"][..., source] for source in range(2)]
    remainder = arrays["mix_audio"].astype(int) - parts[0] - parts[1]
    assert remainder.min() < -32768 and remainder.max() > 32767
    folder = tmp_path / "train"
    split = write_split(folder, lengths=(2000,), channels=2)
    soundfile.write(folder / "0_mixture.wav", mixture.T, SAMPLE_RATE, subtype="PCM_16")
    for name, audio in zip(("drums", "vocals"), sources, strict=True):
        soundfile.write(folder / f"0_{name}.wav", audio.T, SAMPLE_RATE, subtype="PCM_16")
    options = dataset_options(data_keys_for_training=AUDIO_KEYS, cache_kind="audio", num_channels=2)
    batch = make_store(split, options).excerpts([0], [0], 40, BatchOptions.of(options))
    np.testing.assert_array_equal(batch["mix_audio"][0], mixture[:, : 40 * 32])
    np.testing.assert_array_equal(batch["source_audio"][0], np.stack([one[:, : 40 * 32] for one in sources], axis=-1))


def test_mixtures_that_are_sums_need_one_byte_per_sample_and_others_two(tmp_path, monkeypatch):
    monkeypatch.setattr("separation.features.fill_cache.SHARD_ITEMS", 2)
    split = write_split(tmp_path / "train", lengths=(3000, 2000, 1000, 800))
    noise = 0.1 * np.random.default_rng(1).normal(size=(1000, 1))
    soundfile.write(tmp_path / "train" / "2_mixture.wav", noise, SAMPLE_RATE, subtype="PCM_16")
    config = dataset_config(data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS, cache_kind="audio")
    spec = {"dataset_config": {key: config[key] for key in CACHED_KEYS}, "keys": AUDIO_KEYS}
    options = DatasetOptions.read(config)
    manifest = tmp_path / "cache" / "train.json"
    populate_cache({**spec, "kind": "audio"}, split, manifest)
    arrays = [shard["arrays"]["mix_remainder"] for shard in json.loads(manifest.read_text())["shards"]]
    assert [(array["dtype"], array["bytes"]) for array in arrays] == [("int8", 5000), ("int16", 2 * 1800)]
    cached, computed = open_cache(manifest), make_store(split, options)
    for store in (cached, cached.in_memory()):
        # across two shards, past the end, and inside
        for items, starts in (([1, 2, 3], [30, 0, 0]), ([0, 1], [80, 0]), ([3, 0], [20, 3])):
            ours = store.excerpts(items, starts, 40, BatchOptions.of(options))
            theirs = computed.excerpts(items, starts, 40, BatchOptions.of(options))
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def remixed(items, starts, gains, chosen):
    return Remix(*(np.array(values) for values in (chosen, items, starts, gains)))


def test_a_remix_is_the_sum_of_its_new_sources_and_of_the_residual_noise(tmp_path):
    split = write_split(tmp_path / "train", lengths=(5000, 3001, 4000), channels=2)
    hum = np.round(np.tile(0.02 * np.sin(np.arange(5000) / 5)[:, None], 2) * 32768) / 32768
    path = tmp_path / "train" / "0_mixture.wav"
    soundfile.write(path, soundfile.read(path)[0] + hum, SAMPLE_RATE, subtype="PCM_16")
    options = dataset_options(
        data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS, cache_kind="audio", num_channels=2, weight_threshold=-40
    )
    store, items = make_store(split, options), Items(split, options)
    audio = [items.arrays(index) for index in range(3)]
    remix = remixed([[2, 1], [0, 0]], [[10, 50], [0, 0]], [[0.5, 2.0], [9.0, 9.0]], [True, False])
    batch = store.excerpts([0, 1], [7, 20], 40, BatchOptions.of(options), remix)
    plain = store.excerpts([0, 1], [7, 20], 40, BatchOptions.of(options))
    assert all(torch.equal(batch[key][1], plain[key][1]) for key in batch)

    def cut(array, start):
        return array[:, start * 32 : (start + 40) * 32]

    drums, vocals = 0.5 * cut(audio[2].sources["drums"], 10), 2 * cut(audio[1].sources["vocals"], 50)
    np.testing.assert_allclose(batch["source_audio"][0], np.stack([drums, vocals], axis=-1), atol=1e-7)
    np.testing.assert_allclose(batch["mix_audio"][0], drums + vocals + cut(hum.T, 7), atol=1e-6)
    # features equal those of a file with the new mixture, except at its ends
    new = tmp_path / "new"
    new.mkdir()
    whole = {"drums": 0.5 * audio[2].sources["drums"][:, 320:], "vocals": 2 * audio[1].sources["vocals"][:, 1600:]}
    whole = {name: array[:, : 40 * 32] for name, array in whole.items()}
    whole["mixture"] = whole["drums"] + whole["vocals"] + cut(hum.T, 7)
    for name, array in whole.items():
        soundfile.write(new / f"{name}.wav", array.T, SAMPLE_RATE, subtype="FLOAT")
    entry = {"name": "0", "mixture": "mixture.wav", "sources": {name: f"{name}.wav" for name in ("drums", "vocals")}}
    manifest = {"format": 1, "split": "train", "sample_rate": SAMPLE_RATE, "num_channels": 2, "items": [entry]}
    (new / "manifest.json").write_text(json.dumps(manifest))
    theirs = nussl_items({"folder": str(new), "class": "Scaper"}, options)[0]
    inner = slice(2, 38)
    for key in ("mix_magnitude", "source_magnitudes"):
        expected = theirs[key][inner]
        np.testing.assert_allclose(batch[key][0][inner], expected, rtol=1e-3, atol=2e-6 * expected.max())
    assert_nearly_all_equal(batch["ideal_binary_mask"][0][inner], theirs["ideal_binary_mask"][inner], 1e-3)
    # weights equal those of the excerpt as a whole mixture
    magnitude = batch["mix_magnitude"][0]
    expected = torch.sqrt(magnitude / magnitude.mean() / 2) * (magnitude >= magnitude.max() * 0.01)
    np.testing.assert_allclose(batch["weights"][0], expected, rtol=1e-4, atol=1e-6)


def test_a_remix_may_be_longer_than_its_item(tmp_path):
    options = dataset_options(data_keys_for_training=FEATURE_KEYS + AUDIO_KEYS, cache_kind="audio")
    store = make_store(write_split(tmp_path / "train", lengths=(640, 5000)), options)
    remix = remixed([[1, 0]], [[100, 0]], [[1.0, 1.0]], [True])
    batch = store.excerpts([0], [0], 40, BatchOptions.of(options), remix)
    long = store.excerpts([1], [100], 40, BatchOptions.of(options))
    assert torch.equal(batch["source_audio"][..., 0], long["source_audio"][..., 0])
    torch.testing.assert_close(batch["mix_audio"][..., 700:], long["source_audio"][..., 700:, 0])
    assert batch["mix_magnitude"][0, 30:].any() and batch["weights"][0, 30:].any()
    there = store.on_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    on_device = there.excerpts([0], [0], 40, BatchOptions.of(options), remix)
    for key in batch:
        torch.testing.assert_close(on_device[key].cpu(), batch[key], rtol=1e-3, atol=1e-6)


def test_a_remix_changes_the_losses_and_the_number_of_workers_does_not(tmp_path):
    splits = {name: write_split(tmp_path / name, lengths=(5000, 3001, 4096, 4097)) for name in ("train", "val")}

    def losses(remix, num_workers):
        config = experiment(dataset={"cache_kind": "audio", "remix": remix}, num_epochs=3, num_workers=num_workers)
        folder = tmp_path / f"{bool(remix)}_{num_workers}"
        train_point(PointOptions.read(config), folder=folder, splits=splits)
        with open(folder / "history.csv", newline="") as file:
            return [(row["train_loss"], row["validation_loss"]) for row in csv.DictReader(file)]

    remix = {"probability": 0.5, "gain": [-3, 3]}
    assert losses(remix, 0) == losses(remix, 2)
    assert losses(None, 0) == losses(None, 2) != losses(remix, 0)


def test_silence_gives_a_batch(tmp_path):
    options = dataset_options(data_keys_for_training=FEATURE_KEYS, cache_kind="audio")
    store = make_store(write_split(tmp_path / "train", lengths=(700,), level=0), options)
    batch = store.excerpts([0], [0], 10, BatchOptions.of(options))
    assert not any(batch[key].any() for key in FEATURE_KEYS)


def test_cached_audio_and_mixtures_train_the_same_weights(tmp_path):
    config = experiment(dataset={"cache_kind": "audio"}, num_epochs=2, num_workers=1)
    splits = {name: write_split(tmp_path / name) for name in ("train", "val")}
    spec = {
        "dataset_config": {key: value for key, value in config["dataset_config"].items() if key in CACHED_KEYS},
        "keys": AUDIO_KEYS,
        "kind": "audio",
    }
    caches = {name: tmp_path / "cache" / f"{name}.json" for name in splits}
    for name, manifest in caches.items():
        populate_cache(spec, splits[name], manifest)
    weights = []
    for folder, given in (("uncached", None), ("cached", caches)):
        train_point(PointOptions.read(config), folder=tmp_path / folder, splits=splits, caches=given)
        model = torch.load(tmp_path / folder / "checkpoints" / "latest.model.pth", weights_only=False)
        weights.append(model["state_dict"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
