import json

import numpy as np
import pytest
import soundfile

from separation.errors import UserError
from separation.nussl_compat import scaper
from small_dataset import DATASET_CONFIG, LABELS, SAMPLE_RATE, open_items, source_audio, write_split

PLAIN = {**DATASET_CONFIG, "group_sources": [], "group_names": None}


def read(folder, label, item="000000"):
    position = LABELS.index(label)
    return soundfile.read(folder / f"{item}_events/foreground{position}_{label}.wav", dtype="float32")[0]


def generate_scene(path, sounds, events, *, sample_rate, random_state=0):
    """Generates a scene of 1 s with scaper; `events` holds arguments of add_event besides the usual ones."""
    scene = scaper.Scaper(1.0, str(sounds), str(sounds), random_state=random_state)
    scene.sr, scene.ref_db = sample_rate, -30
    usual = {
        "source_file": ("choose", []),
        "source_time": ("const", 0),
        "event_time": ("const", 0),
        "event_duration": ("const", 1.0),
        "pitch_shift": None,
        "time_stretch": None,
    }
    for event in events:
        scene.add_event(**usual | event)
    scene.generate(f"{path}.wav", f"{path}.jams", save_isolated_events=True)


def test_a_group_is_the_sum_of_its_members_audio(tmp_path):
    item = open_items(write_split(tmp_path), DATASET_CONFIG)[0]
    assert list(item.sources) == ["accompaniment", "vocals"]
    expected = read(tmp_path, "drums") + read(tmp_path, "bass") + read(tmp_path, "other")
    assert np.array_equal(item.sources["accompaniment"].audio_data[0], expected)
    assert np.array_equal(item.sources["vocals"].audio_data[0], read(tmp_path, "vocals"))


def test_the_order_of_sources_does_not_depend_on_the_manifest(tmp_path):
    reordered = [LABELS, LABELS[::-1], ("drums", "vocals", "other", "bass")]
    rng = np.random.default_rng(0)
    split = write_split(tmp_path, audio=lambda i: {label: source_audio(label, rng) for label in reordered[i]})
    assert [list(item.sources) for item in open_items(split, PLAIN)] == [["bass", "drums", "other", "vocals"]] * 3


def test_source_labels_set_the_order_and_other_sources_are_an_error(tmp_path):
    split = write_split(tmp_path)
    items = open_items(split, {**DATASET_CONFIG, "source_labels": ["vocals", "accompaniment"]})
    assert list(items[0].sources) == ["vocals", "accompaniment"]
    with pytest.raises(UserError, match=r"source_labels.*accompaniment"):
        open_items(split, {**DATASET_CONFIG, "source_labels": ["vocals"]})[0]


def test_groups_without_names_are_named_after_their_members(tmp_path):
    config = {**PLAIN, "group_sources": [["vocals", "other"], ["bass", "drums"]]}
    assert list(open_items(write_split(tmp_path), config)[0].sources) == ["bass+drums", "vocals+other"]


def test_an_ignored_source_is_dropped_and_stays_audible_in_the_mixture(tmp_path):
    split = write_split(tmp_path)
    item = open_items(split, {**PLAIN, "ignore_sources": ["drums"]})[0]
    assert list(item.sources) == ["bass", "other", "vocals"]
    rest = sum(source.audio_data for source in item.sources.values())
    assert np.allclose(item.mixture.audio_data - rest, read(tmp_path, "drums"), atol=1e-6)


def test_sources_of_one_label_are_numbered_and_a_single_one_keeps_its_name(tmp_path):
    rng = np.random.default_rng(0)
    names = ("car::0", "car_horn::0", "car::1")
    split = write_split(tmp_path, items=1, audio=lambda i: {name: source_audio(name, rng) for name in names})
    assert list(open_items(split, PLAIN)[0].sources) == ["car::0", "car::1", "car_horn"]


def test_signals_have_sample_rate_and_stft_parameters_of_the_config(tmp_path):
    item = open_items(write_split(tmp_path), DATASET_CONFIG)[0]
    for signal in (item.mixture, *item.sources.values()):
        assert signal.sample_rate == SAMPLE_RATE
        assert tuple(signal.stft_params) == (256, 64, "sqrt_hann")
    assert item.mixture.stft().shape == (129, SAMPLE_RATE // 64 + 1, 1)


def test_conditions_are_flat_scalars(tmp_path):
    items = open_items(write_split(tmp_path), DATASET_CONFIG)
    assert items[0].conditions == {"coherent": True, "songs": "song0", "snr_vocals": -1.5}
    assert items.names == ["000000", "000001", "000002"]
    assert (items.dataset, items.split) == ("small", "test")


def test_arrays_equal_the_audio_of_the_signals(tmp_path):
    items = open_items(write_split(tmp_path), DATASET_CONFIG)
    arrays, item = items.arrays(-1), items[2]
    assert arrays.name == item.name == "000002"
    assert arrays.mixture.dtype == np.float32 and arrays.mixture.shape == (1, SAMPLE_RATE)
    assert np.array_equal(arrays.sources["vocals"], item.sources["vocals"].audio_data)
    with pytest.raises(IndexError):
        items[3]


def test_a_wrong_sample_rate_is_reported_in_one_line_with_file_expected_and_found(tmp_path):
    with pytest.raises(UserError) as failure:
        open_items(write_split(tmp_path), {**DATASET_CONFIG, "sample_rate": 16000})
    message = str(failure.value)
    assert "\n" not in message
    for part in ("manifest.json", "dataset_config.sample_rate", "expected 16000 Hz", "found 8000 Hz"):
        assert part in message


def test_a_file_that_contradicts_its_manifest_is_an_error_that_names_it(tmp_path):
    items = open_items(write_split(tmp_path), DATASET_CONFIG)
    soundfile.write(tmp_path / "000001.wav", np.zeros(100), 44100)
    assert items[0].name == "000000"
    with pytest.raises(UserError, match=r"000001\.wav.*expected 8000 Hz, found 44100 Hz"):
        items[1]
    soundfile.write(tmp_path / "000001.wav", np.zeros((SAMPLE_RATE, 2)), SAMPLE_RATE)
    with pytest.raises(UserError, match=r"000001\.wav.*num_channels: expected 1, found 2"):
        items[1]
    soundfile.write(tmp_path / "000001.wav", np.zeros(100), SAMPLE_RATE)
    with pytest.raises(UserError, match=r"item 000001: expected 1 x 100 samples.*found 1 x 8000 samples"):
        items[1]
    (tmp_path / "000001.wav").unlink()
    with pytest.raises(UserError, match=r"000001\.wav: cannot be read"):
        items[1]


def test_stereo_needs_two_channels_in_the_options(tmp_path):
    rng = np.random.default_rng(0)
    audio = {label: np.stack([source_audio(label, rng)] * 2, axis=1) * [1.0, 0.5] for label in LABELS}
    split = write_split(tmp_path, items=1, audio=lambda i: audio)
    with pytest.raises(UserError, match="num_channels: expected 1, found 2"):
        open_items(split, DATASET_CONFIG)
    item = open_items(split, {**DATASET_CONFIG, "num_channels": 2})[0]
    assert item.sources["accompaniment"].audio_data.shape == (2, SAMPLE_RATE)


@pytest.mark.parametrize("key", ["group_sources", "ignore_sources"])
def test_an_unknown_label_is_an_error_that_lists_the_known_ones(tmp_path, key):
    with pytest.raises(UserError) as failure:
        open_items(write_split(tmp_path), {**PLAIN, key: ["drum"]})
    assert f"dataset_config.{key}" in str(failure.value)
    assert "no source 'drum', it has bass, drums, other, vocals; did you mean 'drums'?" in str(failure.value)


def test_contradictory_groups_are_an_error(tmp_path):
    split = write_split(tmp_path)
    for change, expected in (
        ({"group_names": ["a", "b"]}, "group_names.*1 groups"),
        ({"group_sources": [["bass", "drums"], ["drums"]], "group_names": None}, "'drums' twice"),
        ({"group_sources": ["bass", ["drums"]]}, "found both"),
        ({"group_names": ["vocals"]}, "has both a source and a group named"),
    ):
        with pytest.raises(UserError, match=expected):
            open_items(split, {**DATASET_CONFIG, **change})[0]


def test_an_item_without_any_member_of_a_group_is_an_error_that_names_it(tmp_path):
    rng = np.random.default_rng(0)
    labels = [LABELS, ("vocals",)]
    split = write_split(tmp_path, items=2, audio=lambda i: {label: source_audio(label, rng) for label in labels[i]})
    with pytest.raises(UserError, match="item 000001 has none of drums, bass, other, it has vocals"):
        open_items(split, DATASET_CONFIG)[1]


def test_a_broken_manifest_and_a_missing_folder_are_errors(tmp_path):
    split = write_split(tmp_path)
    with pytest.raises(UserError, match="expected a folder"):
        open_items({**split, "folder": str(tmp_path / "none")}, DATASET_CONFIG)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(UserError, match="format: expected 1, found 99"):
        open_items(split, DATASET_CONFIG)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not the manifest"):
        open_items(split, DATASET_CONFIG)


def test_other_datasets_of_nussl_give_the_same_items(tmp_path):
    by_manifest = open_items(write_split(tmp_path / "scaper"), DATASET_CONFIG)
    for name in by_manifest.names:
        audio = {label: read(tmp_path / "scaper", label, name) for label in LABELS}
        for folder, array in {**audio, "mix": by_manifest[int(name)].mixture.audio_data[0]}.items():
            (tmp_path / "folders" / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "folders" / folder / f"{name}.wav", array, SAMPLE_RATE, subtype="PCM_16")
    split = {"folder": str(tmp_path / "folders"), "class": "MixSourceFolder", "arguments": {"mix_folder": "mix"}}
    by_folder = open_items(split, DATASET_CONFIG)
    assert by_folder.names == by_manifest.names
    for one, other in zip(by_folder, by_manifest, strict=True):
        assert list(one.sources) == list(other.sources)
        assert np.array_equal(one.mixture.audio_data, other.mixture.audio_data)
        for source in one.sources:
            assert np.array_equal(one.sources[source].audio_data, other.sources[source].audio_data)
    with pytest.raises(UserError, match="expected 16000 Hz, found 8000 Hz"):
        open_items(split, {**DATASET_CONFIG, "sample_rate": 16000})[0]
    with pytest.raises(UserError, match="no source 'drum', it has bass"):
        open_items(split, {**DATASET_CONFIG, "group_sources": ["drum"]})


def test_an_unknown_dataset_class_is_an_error_with_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="did you mean 'MixSourceFolder'"):
        open_items({"folder": str(tmp_path), "class": "MixSourcesFolder"}, DATASET_CONFIG)
    with pytest.raises(UserError, match="MixSourceFolder cannot open it"):
        open_items({"folder": str(tmp_path), "class": "MixSourceFolder"}, DATASET_CONFIG)


def test_a_scaper_folder_without_manifest_is_read_by_its_jams_with_the_snr_of_each_source(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("vocals", "drums"):
        (tmp_path / "sources" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "sources" / label / "a.wav", source_audio(label, rng), SAMPLE_RATE)
    folder = tmp_path / "generated"
    folder.mkdir()
    vocals, drums = (
        {"label": ("const", label), "snr": ("const", snr)} for label, snr in (("vocals", 3.0), ("drums", -2.0))
    )
    generate_scene(
        folder / "scene",
        tmp_path / "sources",
        [vocals | {"pitch_shift": ("const", 1.0)}, drums],
        sample_rate=SAMPLE_RATE,
    )
    items = open_items(
        {"folder": str(folder), "class": "Scaper"}, {**PLAIN, "group_sources": ["drums"], "group_names": ["beat"]}
    )
    assert items.names == ["scene"]
    assert list(items[0].sources) == ["beat", "vocals"]
    assert items[0].conditions == {
        "labels": "drums+vocals", "snr_vocals": 3.0, "snr_drums": -2.0, "pitch_shift_vocals": 1.0,
    }  # fmt: skip
    total = sum(source.audio_data for source in items[0].sources.values())
    assert np.allclose(items[0].mixture.audio_data, total, atol=1e-3)


def write_wham(folder, sample_rate):
    rng = np.random.default_rng(sample_rate + len(folder.parts[-1] + folder.parts[-2]))
    for name in ("a", "b"):
        audio = {source: np.round(rng.normal(0, 1000, 4000)) / 32768 for source in ("s1", "s2", "noise")}
        mixtures = {"mix_clean": audio["s1"] + audio["s2"], "mix_both": sum(audio.values())}
        for kind, array in {**audio, **mixtures}.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / kind / f"{name}.wav", array, sample_rate, subtype="PCM_16")


def test_wham_is_read_by_its_split_mode_and_mixtures(tmp_path):
    for rate, mode, split in ((8000, "min", "tr"), (8000, "max", "cv"), (16000, "min", "tr")):
        write_wham(tmp_path / f"wav{rate // 1000}k" / mode / split, rate)
    for arguments, rate, sources in (
        ({}, 8000, ["s1", "s2"]),
        ({"split": "cv", "mode": "max", "mix_folder": "mix_both"}, 8000, ["noise", "s1", "s2"]),
        ({"sample_rate": 16000}, 16000, ["s1", "s2"]),
    ):
        split = {"folder": str(tmp_path), "class": "WHAM", "arguments": arguments}
        items = open_items(split, {**PLAIN, "sample_rate": rate})
        assert items.names == ["a", "b"] and list(items[1].sources) == sources
        total = sum(source.audio_data for source in items[1].sources.values())
        assert np.allclose(items[1].mixture.audio_data, total, atol=1e-4)
        folder = tmp_path / f"wav{rate // 1000}k" / arguments.get("mode", "min") / arguments.get("split", "tr")
        expected = soundfile.read(folder / "s1" / "b.wav", dtype="float32")[0]
        assert np.array_equal(items[1].sources["s1"].audio_data[0], expected)
    with pytest.raises(UserError, match=r"WHAM cannot open it.*mix_clear"):
        open_items({"folder": str(tmp_path), "class": "WHAM", "arguments": {"mix_folder": "mix_clear"}}, PLAIN)


def test_musdb18_is_read_by_its_subset_as_wav_files(tmp_path):
    stems = ("bass", "drums", "other", "vocals")
    for subset, song in (("train", "Ann - One"), ("test", "Ben - Two")):
        root = tmp_path / subset / song
        root.mkdir(parents=True)
        rng = np.random.default_rng(len(subset))
        audio = {stem: np.round(rng.normal(0, 1000, (4410, 2))) / 32768 for stem in stems}
        for stem, array in {**audio, "mixture": sum(audio.values())}.items():
            soundfile.write(root / f"{stem}.wav", array, 44100, subtype="PCM_16")
    config = {**PLAIN, "sample_rate": 44100, "num_channels": 2, "group_sources": ["bass", "drums", "other"]}
    config["group_names"] = ["accompaniment"]
    for subset, song in (("train", "Ann - One"), ("test", "Ben - Two")):
        split = {"folder": str(tmp_path), "class": "MUSDB18", "arguments": {"is_wav": True, "subsets": [subset]}}
        items = open_items(split, config)
        assert len(items) == 1 and list(items[0].sources) == ["accompaniment", "vocals"]
        expected = soundfile.read(tmp_path / subset / song / "vocals.wav", dtype="float32")[0].T
        assert np.allclose(items[0].sources["vocals"].audio_data, expected, atol=1e-6)
        assert items[0].mixture.audio_data.shape == (2, 4410)


def test_fuss_is_read_by_its_split_in_any_folder(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "generated" / "ssdata"
    (tmp_path / "sounds" / "sound").mkdir(parents=True)
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / "sounds" / "sound" / f"{name}.wav", 0.1 * rng.normal(size=16000), 16000)
    for split in ("train", "eval"):
        (folder / split).mkdir(parents=True)
        events = [{"label": ("const", "sound"), "snr": ("uniform", -3, 3)}] * 2
        generate_scene(
            folder / split / "example00000", tmp_path / "sounds", events, sample_rate=16000, random_state=len(split)
        )
    folder.rename(tmp_path / "moved")
    mixtures = []
    for split in ("train", "eval"):
        folder = {"folder": str(tmp_path / "moved"), "class": "FUSS", "arguments": {"split": split}}
        (item,) = open_items(folder, {**PLAIN, "sample_rate": 16000})
        assert list(item.sources) == ["sound::0", "sound::1"]
        total = sum(source.audio_data for source in item.sources.values())
        assert np.allclose(item.mixture.audio_data, total, atol=1e-3)
        mixtures.append(item.mixture.audio_data)
    assert not np.array_equal(*mixtures)
