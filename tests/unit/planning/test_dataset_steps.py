"""The recipes in config/datasets, on small folders with the right layout, and their ids."""

import json

import pytest

from separation.data import mix
from separation.data.fetch import fetch_source
from separation.data.manifests import read_source_manifest
from separation.data.organize import organize_source
from separation.data.resample import resample_source
from separation.data.sources import musdb, toy_speech
from separation.data.sources.access import Access
from separation.errors import UserError
from separation.experiment import config
from separation.planning import dataset_steps, speech_recordings
from sound_folder import tone, write

ROOT = config.ROOT


def steps(name, tmp_path, environment=None, unreachable_reason=None, **settings):
    given = config.load_settings({"directories": {"data": str(tmp_path / "data")}, **settings}, {})
    return dataset_steps.steps_of(config.load_recipe(name, environment or {}), given, unreachable_reason)


def organized(recipe_steps, tmp_path):
    access = Access(1, tmp_path / "downloads", True, recipe_steps.locations)
    fetched, manifest = tmp_path / "f" / "manifest.json", tmp_path / "o" / "manifest.json"
    fetch_source(json.loads(recipe_steps.source.spec), fetched, access=access)
    organize_source(json.loads(recipe_steps.organized.spec), fetched, manifest, access)
    return manifest


def write_wsj0(folder):
    for split, speakers in {"si_tr_s": ("011", "01a"), "si_dt_05": ("050", "051"), "si_et_05": ("440",)}.items():
        for speaker in speakers:
            for number in range(101, 106):
                audio = tone(100 + int(speaker, 16) % 300, seconds=4.5, rate=16000, seed=number)
                write(folder / split / speaker / f"{speaker}a0{number}.wav", audio, 16000)
    return folder


@pytest.mark.parametrize("name", ["wsj0_2mix", "wham_clean", "wham_noisy", "wham_single"])
def test_speech_corpora_keep_test_speakers_apart(name, tmp_path):
    environment = {"WSJ0_DIRECTORY": str(write_wsj0(tmp_path / "wsj0"))}
    if name in ("wham_noisy", "wham_single"):
        for number, split in enumerate(("tr", "cv", "tt")):
            noise = tone(2000, seconds=5, rate=16000, seed=number)
            write(tmp_path / "noise" / split / "n.wav", noise, 16000)
        environment["WHAM_NOISE_DIRECTORY"] = str(tmp_path / "noise")
    recipe_steps = steps(name, tmp_path, environment)
    manifest = organized(recipe_steps, tmp_path)
    files = json.loads(manifest.read_text())["files"]
    speakers = {
        split: {entry["speaker"] for entry in files if entry["split"] == split and entry["class"] == "speech"}
        for split in ("train", "val", "test")
    }
    assert speakers == {"train": {"011", "01a"}, "val": {"011", "01a"}, "test": {"050", "051", "440"}}
    resampled = tmp_path / "r" / "manifest.json"
    resample_source(json.loads(recipe_steps.resampled.spec), manifest, resampled)
    spec = json.loads(recipe_steps.mixtures["test"].spec)
    spec["mixture_parameters"]["test"]["num_mixtures"] = 2
    mix.mix_dataset(spec, "test", resampled, tmp_path / "m" / "manifest.json")
    for item in json.loads((tmp_path / "m" / "manifest.json").read_text())["items"]:
        expected = {"speech"} if name == "wham_single" else {"speech::0", "speech::1"}
        assert set(item["sources"]) == expected | ({"noise"} if "noise" in str(environment) else set())
        if name != "wham_single":
            assert item["conditions"]["speaker_0"] != item["conditions"]["speaker_1"]


def test_musdb18_hq_has_the_validation_tracks_of_musdb(tmp_path):
    names = {"train": ["A - One", "Actions - One Minute Smile"], "test": ["B - Two"]}
    for subset, tracks in names.items():
        for number, track in enumerate(tracks):
            for index, stem in enumerate((*musdb.STEMS, "mixture")):
                audio = tone(200 + 40 * index, seconds=4.5, rate=44100, seed=number + 10 * (subset == "test"))
                write(tmp_path / "hq" / subset / track / f"{stem}.wav", audio, 44100)
    recipe_steps = steps("musdb18", tmp_path, {"MUSDB18_DIRECTORY": str(tmp_path / "hq")})
    files = json.loads(organized(recipe_steps, tmp_path).read_text())["files"]
    assert len(files) == 12
    assert {(entry["split"], entry["song"]) for entry in files} == {
        ("train", "A - One"), ("val", "Actions - One Minute Smile"), ("test", "B - Two"),
    }  # fmt: skip


def test_musdb18_stems_without_ffmpeg_are_an_error(tmp_path, monkeypatch):
    for subset in ("train", "test"):
        (tmp_path / "m" / subset).mkdir(parents=True)
        (tmp_path / "m" / subset / "A.stem.mp4").write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs the program ffmpeg"):
        organized(steps("musdb18", tmp_path, {"MUSDB18_DIRECTORY": str(tmp_path / "m")}), tmp_path)


def test_speech_commands_use_the_lists_of_the_archive(tmp_path):
    folder = tmp_path / "commands"
    for word in ("yes", "no"):
        for number, speaker in enumerate(("aa", "bb", "cc")):
            audio = tone(300 + 10 * number + len(word), rate=16000, seed=number)
            write(folder / word / f"{speaker}_nohash_0.wav", audio, 16000)
    write(folder / "_background_noise_" / "noise.wav", tone(50, rate=16000), 16000)
    (folder / "validation_list.txt").write_text("yes/bb_nohash_0.wav\nno/bb_nohash_0.wav\n")
    (folder / "testing_list.txt").write_text("yes/cc_nohash_0.wav\nno/cc_nohash_0.wav\n")
    recipe_steps = steps("speech_commands", tmp_path, {"SPEECH_COMMANDS_DIRECTORY": str(folder)})
    files = json.loads(organized(recipe_steps, tmp_path).read_text())["files"]
    assert {(entry["split"], entry["speaker"], entry["class"]) for entry in files} == {
        (split, speaker, word)
        for split, speaker in (("train", "aa"), ("val", "bb"), ("test", "cc"))
        for word in ("yes", "no")
    }


def test_a_missing_folder_means_a_download_and_offline_names_the_missing_file(tmp_path):
    recipe_steps = steps("speech_commands", tmp_path)
    assert recipe_steps.resample_shards > 1
    with pytest.raises(UserError, match=r"downloads/speech_commands_v0.02.tar.gz: missing, and offline is set"):
        organized(recipe_steps, tmp_path)
    with pytest.raises(UserError, match="set WSJ0_DIRECTORY"):
        steps("wsj0_3mix", tmp_path)


def test_recordings_and_synthetic_voices_never_share_an_id(tmp_path, monkeypatch):
    real = steps("toy_speech", tmp_path, unreachable_reason=lambda: "")
    why = "apt's server is unreachable"
    fallback = steps("toy_speech", tmp_path, unreachable_reason=lambda: why)
    assert real.dataset.id != fallback.dataset.id and real.source.id != fallback.source.id
    assert json.loads(fallback.source.spec)["source"]["args"]["recordings"] == "synthetic"
    (notice,) = fallback.notices
    assert "synthetic voices" in notice and why in notice
    # the result is stored for the jobs of the run
    settings = config.load_settings({"directories": {"data": str(tmp_path / "data")}}, {})
    monkeypatch.setattr(speech_recordings, "_cause", lambda: why)
    monkeypatch.setattr(speech_recordings, "packages_unavailable_reason", lambda settings: "")
    assert speech_recordings.packages_unreachable_reason(settings) == why
    assert steps("toy_speech", tmp_path).source.id == fallback.source.id


def test_offline_uses_synthetic_voices(tmp_path):
    assert json.loads(steps("toy_speech", tmp_path, offline="true").source.spec)["source"]["args"]["recordings"] == (
        "synthetic"
    )


@pytest.mark.parametrize("test_speakers", ["seen", "unseen"])
def test_toy_speech_shares_no_utterance_between_splits(test_speakers, tmp_path):
    args = {"recordings": "synthetic", "utterances": {"train": 2, "val": 1, "test": 1}, "test_speakers": test_speakers}
    args |= {"min_duration": 0.5, "max_duration": 1.0}
    manifest = tmp_path / "manifest.json"
    spec = {"source": {"name": "toy_speech", "kind": "toy_speech", "args": args}}
    fetch_source(spec, manifest)
    files = read_source_manifest(manifest)["files"]
    assert len({entry["sha256"] for entry in files}) == len(files)
    speakers = {split: {entry["speaker"] for entry in files if entry["split"] == split} for split in ("train", "test")}
    shared = speakers["train"] & speakers["test"]
    assert len(shared) == (6 if test_speakers == "seen" else 0)
    assert speakers["test"] >= set(toy_speech.UNSEEN["synthetic"])
    assert {entry["class"] for entry in files if entry["split"] == "test"} == {"female", "male"}
    assert "no recordings of anybody" in (tmp_path / "ATTRIBUTION.txt").read_text()
    before = {entry["path"]: entry["sha256"] for entry in files}
    fetch_source(spec, manifest, 2)
    assert {entry["path"]: entry["sha256"] for entry in read_source_manifest(manifest)["files"]} == before


def test_large_datasets_are_divided_among_jobs(tmp_path):
    recipe_steps = steps("toy_music", tmp_path, shards={"mixtures": 100})
    assert recipe_steps.mix_shards == {"train": 3, "val": 1, "test": 1}
    assert steps("toy_music", tmp_path).dataset.id == recipe_steps.dataset.id


def test_neutral_values_of_later_options_keep_ids(tmp_path):
    recipe = config.load_recipe("toy_music", {})
    settings = config.load_settings({}, {})
    before = dataset_steps.steps_of(recipe, settings).dataset.id
    value = recipe.value
    value |= {"allow_repeated_label": False, "background": None, "reverb": None, "guards": {"action": "stop"}}
    value["organize"]["copy"] = False
    assert dataset_steps.steps_of(recipe, settings).dataset.id == before
    value["reverb"] = 0.1
    assert dataset_steps.steps_of(recipe, settings).dataset.id != before
