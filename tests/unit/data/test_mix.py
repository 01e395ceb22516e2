"""Mixing: reproducible, correct audio, and files that nussl and jams read."""

import copy
import json
import shutil

import jams
import numpy as np
import pytest
import soundfile

from separation.data import mix
from separation.data.scenes import draw
from separation.data.scenes.distributions import PARAMETERS
from separation.data.scenes.jams import empty_document
from separation.errors import UserError
from separation.files.atomic import sha256_of
from tiny_source import build_source, bytes_below, mixing_spec

LABELS = ["vocals", "bass", "drums", "other"]


@pytest.fixture(scope="module")
def resampled(tmp_path_factory):
    return build_source(tmp_path_factory.mktemp("source"))[2]


@pytest.fixture(scope="module")
def train(resampled, tmp_path_factory):
    manifest = tmp_path_factory.mktemp("dataset") / "train" / "manifest.json"
    mix.mix_dataset(mixing_spec(), "train", resampled, manifest)
    return manifest


def _split(**changes):
    return {"num_mixtures": 2, "scene_duration": 1.0, "labels": LABELS} | changes


def _mixed(resampled, folder, spec, split="train"):
    manifest = folder / split / "manifest.json"
    mix.mix_dataset(spec, split, resampled, manifest)
    return manifest.parent, json.loads(manifest.read_text())


def _audio(folder, item):
    mixture, _ = soundfile.read(folder / item["mixture"], dtype="int16")
    sources = {label: soundfile.read(folder / path, dtype="int16")[0] for label, path in item["sources"].items()}
    return mixture, sources


def test_mixtures_are_the_same_bytes_with_1_and_2_workers(train, resampled, tmp_path, monkeypatch):
    monkeypatch.setattr(mix, "MIXTURES_PER_PROCESS", 1)
    # in the same folder, whose path is in the JAMS files
    before = bytes_below(train.parent)
    shutil.move(train.parent, tmp_path / "first")
    try:
        mix.mix_dataset(mixing_spec(), "train", resampled, train, workers=2)
        assert bytes_below(train.parent) == before
    finally:
        shutil.rmtree(train.parent)
        shutil.move(tmp_path / "first", train.parent)


def test_audio_and_manifest_are_the_same_bytes_in_another_folder(train, resampled, tmp_path):
    folder, _ = _mixed(resampled, tmp_path, mixing_spec())
    assert bytes_below(folder, ".wav") == bytes_below(train.parent, ".wav")
    assert (folder / "manifest.json").read_bytes() == train.read_bytes()


def test_a_mixture_does_not_depend_on_the_number_of_mixtures(train, resampled, tmp_path):
    spec = mixing_spec()
    spec["mixture_parameters"]["train"]["num_mixtures"] = 2
    _, manifest = _mixed(resampled, tmp_path, spec)
    assert manifest["items"] == json.loads(train.read_text())["items"][:2]


def test_another_seed_changes_every_mixture(train, resampled, tmp_path):
    _, manifest = _mixed(resampled, tmp_path, mixing_spec(seed=1))
    first = json.loads(train.read_text())
    assert all(a["sha256"] != b["sha256"] for a, b in zip(manifest["items"], first["items"], strict=True))


def test_the_manifest_lists_all_files_beside_it(train):
    manifest = json.loads(train.read_text())
    assert (manifest["format"], manifest["split"], manifest["class"]) == (1, "train", "Scaper")
    assert (manifest["sample_rate"], manifest["num_channels"]) == (8000, 1)
    assert manifest["counts"] == {"items": 6, "incoherent": 3, "turned_down": 0}
    assert [item["name"] for item in manifest["items"]] == [f"{index:06d}" for index in range(6)]
    listed = {"manifest.json", "ATTRIBUTION.txt"}
    for item in manifest["items"]:
        assert item["frames"] == 8000
        assert set(item["sources"]) == set(LABELS)
        assert set(item["sha256"]) == {item["mixture"], *item["sources"].values()}
        for path, digest in item["sha256"].items():
            assert sha256_of(train.parent / path) == digest
            info = soundfile.info(train.parent / path)
            assert (info.samplerate, info.channels, info.frames, info.subtype) == (8000, 1, 8000, "PCM_16")
        listed |= {item["jams"], *item["sha256"]}
        assert all(isinstance(value, bool | int | float | str) for value in item["conditions"].values())
    assert set(bytes_below(train.parent)) == listed
    assert str(train.parents[1]) not in train.read_text()


def test_the_sum_of_the_sources_is_the_mixture_and_none_is_silent(train):
    for item in json.loads(train.read_text())["items"]:
        mixture, sources = _audio(train.parent, item)
        assert np.array_equal(sum(source.astype(int) for source in sources.values()), mixture)
        assert all(np.abs(source).max() > 30 for source in sources.values())


def test_nussl_opens_the_folder_from_any_working_directory(train, tmp_path, monkeypatch):
    from separation.nussl_compat import nussl

    monkeypatch.chdir(tmp_path)
    dataset = nussl.datasets.Scaper(str(train.parent))
    manifest = json.loads(train.read_text())
    assert len(dataset) == 6
    for index, item in enumerate(manifest["items"]):
        read = dataset[index]
        mixture, sources = _audio(train.parent, item)
        assert np.allclose(read["mix"].audio_data[0] * 32768, mixture)
        assert {name: name.split("::")[0] for name in read["sources"]} == {f"{label}::0": label for label in LABELS}
        for label, source in sources.items():
            assert np.allclose(read["sources"][f"{label}::0"].audio_data[0] * 32768, source)


def test_jams_have_what_jams_itself_writes_for_an_empty_document():
    document, annotation = jams.JAMS(), jams.Annotation(namespace="scaper", duration=1.0)
    annotation.sandbox.scaper = {}
    document.annotations.append(annotation)
    document.file_metadata.duration = 1.0
    assert json.dumps(empty_document()) == json.dumps(json.loads(document.dumps()))


def test_jams_are_valid_and_agree_with_the_conditions(train):
    for item in json.loads(train.read_text())["items"]:
        jam = jams.load(str(train.parent / item["jams"]), validate=True, strict=True)
        (annotation,) = jam.annotations.search(namespace="scaper")
        assert jam.file_metadata.duration == annotation.duration == 1.0
        values = [event.value for event in annotation.data]
        assert [value["label"] for value in values] == LABELS
        for value in values:
            assert value["snr"] == item["conditions"][f"snr_{value['label']}"]
        sandbox = annotation.sandbox.scaper
        assert (sandbox["sr"], sandbox["ref_db"], sandbox["ref_db_generated"]) == (8000, -40.0, -40.0)


def test_coherent_sources_are_cut_from_one_song_at_one_time(train, resampled):
    songs = {True: 0, False: 0}
    for item in json.loads(train.read_text())["items"]:
        conditions = item["conditions"]
        songs[conditions["coherent"]] += 1
        _, sources = _audio(train.parent, item)
        for label in LABELS:
            if conditions["coherent"]:
                song, start = conditions["songs"], conditions["source_time"]
            else:
                start = conditions[f"source_time_{label}"]
                (song,) = _songs_of(train.parent / item["jams"], label)
            stem, _ = soundfile.read(resampled.parent / "train" / label / f"{song}.wav")
            excerpt = stem[int(start * 8000) : int(start * 8000) + 8000]
            assert np.corrcoef(excerpt[100:-100], sources[label][100:-100])[0, 1] > 0.99
    assert songs == {True: 3, False: 3}


def _songs_of(path, label):
    (annotation,) = jams.load(str(path)).annotations.search(namespace="scaper")
    return [event.value["source_file"].split("/")[-1][:-4] for event in annotation if event.value["label"] == label]


def test_the_share_of_incoherent_mixtures_is_exact(resampled, tmp_path):
    spec = mixing_spec()
    plan = mix.make_plan(
        spec | {"mixture_parameters": {"train": _split(incoherent_fraction=0.3)}},
        "train",
        json.loads(resampled.read_text()),
        resampled.parent,
        tmp_path,
    )
    assert [plan.is_coherent(index) for index in range(10)].count(False) == 3
    assert [plan.is_coherent(index) for index in range(1000)].count(False) == 300


def test_levels_follow_the_distribution_of_each_label(resampled, tmp_path):
    events = mixing_spec()["event_parameters"] | {
        "snr": ["const", 0],
        "by_label": {"vocals": {"snr": ["choose", [12]]}, "bass": {"snr": ["truncnorm", -6, 1, -7, -5]}},
    }
    folder, manifest = _mixed(
        resampled, tmp_path, mixing_spec(event_parameters=events, mixture_parameters={"train": _split(num_mixtures=4)})
    )
    for item in manifest["items"]:
        conditions = item["conditions"]
        assert (conditions["snr_vocals"], conditions["snr_drums"], conditions["snr_other"]) == (12, 0, 0)
        assert -7 <= conditions["snr_bass"] <= -5
        loudness = {label: _loudness(audio) for label, audio in _audio(folder, item)[1].items()}
        for label in LABELS:  # fades at the ends change the loudness slightly
            assert loudness[label] == pytest.approx(-40 + conditions[f"snr_{label}"], abs=1.0)


def _loudness(steps):
    import pyloudnorm

    return pyloudnorm.Meter(8000).integrated_loudness(steps / 32768)


def test_coherent_sources_share_pitch_and_tempo(resampled, tmp_path):
    events = mixing_spec()["event_parameters"] | {
        "pitch_shift": ["uniform", -2, 2],
        "time_stretch": ["uniform", 0.8, 1.2],
    }
    _, manifest = _mixed(
        resampled, tmp_path, mixing_spec(event_parameters=events, mixture_parameters={"train": _split()})
    )
    for item in manifest["items"]:
        for effect in ("pitch_shift", "time_stretch"):
            assert len({item["conditions"][f"{effect}_{label}"] for label in LABELS}) == 1
        assert item["frames"] == 8000


def test_clipping_mixtures_are_turned_down_and_the_gain_is_recorded(resampled, tmp_path):
    folder, manifest = _mixed(
        resampled, tmp_path, mixing_spec(ref_db=0, mixture_parameters={"train": _split(num_mixtures=1)})
    )
    (item,) = manifest["items"]
    mixture, sources = _audio(folder, item)
    assert manifest["counts"]["turned_down"] == 1
    assert item["conditions"]["turned_down_db"] > 1
    assert 32000 < max(np.abs(audio.astype(int)).max() for audio in (mixture, *sources.values())) <= 32767
    assert np.array_equal(sum(source.astype(int) for source in sources.values()), mixture)
    (annotation,) = jams.load(str(folder / item["jams"])).annotations.search(namespace="scaper")
    assert annotation.sandbox.scaper["ref_db_generated"] == pytest.approx(-item["conditions"]["turned_down_db"])


def test_classes_are_drawn_without_labels(resampled, tmp_path):
    parameters = {"train": {"num_mixtures": 4, "scene_duration": 1.0, "num_sources": 2}}
    _, manifest = _mixed(resampled, tmp_path, mixing_spec(coherent=False, mixture_parameters=parameters))
    drawn = {tuple(sorted(item["sources"])) for item in manifest["items"]}
    assert all(len(set(labels)) == 2 for labels in drawn) and len(drawn) > 1
    for item in manifest["items"]:
        assert set(item["conditions"]["labels"].split("+")) == set(item["sources"])


def test_excerpts_with_an_inactive_source_are_redrawn(resampled, tmp_path):
    copied = tmp_path / "resampled"
    shutil.copytree(resampled.parent, copied)
    contents = json.loads((copied / "manifest.json").read_text())
    for entry in contents["files"]:
        if entry["split"] == "train" and entry["class"] == "vocals":
            audio, rate = soundfile.read(copied / entry["path"], dtype="int16")
            audio[: 4 * rate] = 0  # of 6 s
            soundfile.write(copied / entry["path"], audio, rate)
            entry |= {
                "size": (copied / entry["path"]).stat().st_size,
                "sha256": sha256_of(copied / entry["path"]),
            }
    (copied / "manifest.json").write_text(json.dumps(contents))
    spec = mixing_spec(min_activity=0.5, mixture_parameters={"train": _split(num_mixtures=4)})
    _, manifest = _mixed(copied / "manifest.json", tmp_path / "ok", spec)
    assert all(item["conditions"]["source_time"] > 3.4 for item in manifest["items"])
    spec["event_parameters"] = spec["event_parameters"] | {"source_time": ["const", 0]}
    with pytest.raises(UserError, match=r"^min_activity: 200 attempts found no excerpt for mixture 0 of train"):
        _mixed(copied / "manifest.json", tmp_path / "silent", spec)
    assert not (tmp_path / "silent/train/manifest.json").exists()


def test_a_killed_job_leaves_no_manifest_and_the_next_one_completes_it(train, resampled, tmp_path, monkeypatch):
    folder = tmp_path / "train"
    shutil.copytree(train.parent, folder)
    (folder / "000099.jams").write_text("{}")  # from a run with more mixtures

    def killed(plan, index):
        if index == 3:
            raise KeyboardInterrupt
        return mix_item(plan, index)

    mix_item = mix.mix_item
    monkeypatch.setattr(mix, "mix_item", killed)
    with pytest.raises(KeyboardInterrupt):
        mix.mix_dataset(mixing_spec(), "train", resampled, folder / "manifest.json")
    assert not (folder / "manifest.json").exists()
    (folder / "000001.wav").write_bytes(b"half")
    monkeypatch.undo()
    mix.mix_dataset(mixing_spec(), "train", resampled, folder / "manifest.json")
    assert bytes_below(folder, ".wav") == bytes_below(train.parent, ".wav")
    assert not (folder / "000099.jams").exists()


def _without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


EVENTS = mixing_spec()["event_parameters"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixture_parameters": {"val": _split()}}, "mixture_parameters: expected a split 'train', found val"),
        (
            {"mixture_parameters": {"train": _split(labels=["vocals", "flute"])}},
            "mixture_parameters.train.labels: the source has no class 'flute', only bass, drums, other, vocals",
        ),
        ({"mixture_parameters": {"train": _split(labels=None)}}, "mixture_parameters.train: expected either labels"),
        (
            {"mixture_parameters": {"train": _split(labels=None, num_sources=9)}, "coherent": False},
            "mixture_parameters.train.num_sources: expected at most 4",
        ),
        ({"sample_rate": 16000}, "sample_rate: expected files of 16000 Hz"),
        ({"bitdepth": 8}, "bitdepth: expected one of 16, 24, 32, found 8"),
        ({"event_parameters": _without(EVENTS, "snr")}, "event_parameters.snr: expected a distribution"),
        ({"event_parameters": EVENTS | {"snr": ["uniform", 5, 0]}}, "event_parameters.snr: expected a distribution of"),
        ({"event_parameters": EVENTS | {"snr": 5}}, "event_parameters.snr: expected a distribution of scaper"),
        ({"event_parameters": EVENTS | {"level": ["const", 1]}}, "event_parameters.level: expected one of source_time"),
        (
            {"event_parameters": EVENTS | {"by_label": {"flute": {"snr": ["const", 1]}}}},
            "event_parameters.by_label.flute: expected one of",
        ),
    ],
)
def test_an_invalid_recipe_is_reported_in_one_line(changes, message, resampled, tmp_path):
    with pytest.raises(UserError) as error:
        _mixed(resampled, tmp_path, mixing_spec(**copy.deepcopy(changes)))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("manifest.json"))


def test_every_event_parameter_is_drawn_by_scaper():
    assert set(draw.SHARED) | {"snr"} == set(PARAMETERS)


def test_bytes_are_the_same_with_and_without_shards(train, resampled, tmp_path):
    folder = tmp_path / "train"
    spec, shards = mixing_spec(), [folder / "shards" / f"{number:04d}.json" for number in range(2)]
    for shard, numbers in zip(shards, (range(0, 2), range(2, 6)), strict=True):
        mix.mix_shard(spec, "train", resampled, shard, numbers)
    mix.mix_dataset(spec, "train", resampled, folder / "manifest.json", shards=shards)
    assert bytes_below(folder, ".wav") == bytes_below(train.parent, ".wav")
    assert (folder / "manifest.json").read_bytes() == train.read_bytes()
    with pytest.raises(UserError, match="expected the records of 6 mixtures, found 4"):
        mix.mix_dataset(spec, "train", resampled, folder / "manifest.json", shards=shards[1:])


def test_a_background_fills_the_mixture_at_ref_db(resampled, tmp_path):
    from separation.nussl_compat import nussl

    events = mixing_spec()["event_parameters"] | {"event_duration": ["const", 0.5], "event_time": ["const", 0.3]}
    parameters = {"train": _split(labels=["vocals"], num_mixtures=3)}
    background = {"labels": ["drums"], "source_time": ["uniform", 0, 3]}
    spec = mixing_spec(
        event_parameters=events, mixture_parameters=parameters, background=background, coherent=False, min_activity=0
    )
    folder, manifest = _mixed(resampled, tmp_path, spec)
    for item in manifest["items"]:
        assert item["sources"] == {
            "drums": f"{item['name']}_events/background0_drums.wav",
            "vocals": f"{item['name']}_events/foreground0_vocals.wav",
        }
        mixture, sources = _audio(folder, item)
        assert np.array_equal(sum(source.astype(int) for source in sources.values()), mixture)
        assert not sources["vocals"][:2390].any() and sources["drums"][:2390].any()
        assert _loudness(sources["drums"]) == pytest.approx(-40, abs=0.2)
        jams.load(str(folder / item["jams"]), validate=True, strict=True)
    assert set(nussl.datasets.Scaper(str(folder))[0]["sources"]) == {"drums::0", "vocals::0"}


def test_reverb_changes_the_mixture_only(resampled, tmp_path):
    spec = mixing_spec(mixture_parameters={"train": _split(num_mixtures=1)})
    dry, manifest = _mixed(resampled, tmp_path / "dry", spec)
    (item,) = manifest["items"]
    wet, _ = _mixed(resampled, tmp_path / "wet", spec | {"reverb": 0.5})
    (dry_mixture, sources), (wet_mixture, others) = _audio(dry, item), _audio(wet, item)
    assert all(np.array_equal(sources[label], others[label]) for label in LABELS)
    assert len(wet_mixture) == len(dry_mixture) and not np.array_equal(wet_mixture, dry_mixture)
    (annotation,) = jams.load(str(wet / item["jams"])).annotations.search(namespace="scaper")
    assert annotation.sandbox.scaper["reverb"] == 0.5


def test_labels_may_repeat_with_different_files(resampled, tmp_path):
    spec = mixing_spec(
        mixture_parameters={"train": _split(labels=["vocals", "vocals"], num_mixtures=4)},
        coherent=False,
        allow_repeated_label=True,
        min_activity=0,
    )
    _, manifest = _mixed(resampled, tmp_path, spec)
    for item in manifest["items"]:
        assert list(item["sources"]) == ["vocals::0", "vocals::1"]
        assert len(set(item["conditions"]["songs"].split("+"))) == 2
    with pytest.raises(UserError, match="duplicate label; set allow_repeated_label: true to allow it"):
        _mixed(resampled, tmp_path / "no", spec | {"allow_repeated_label": False})
    spec["mixture_parameters"]["train"]["labels"] = ["vocals"] * 3
    with pytest.raises(UserError, match="a mixture may need 3 sources of class 'vocals', which has only 2"):
        _mixed(resampled, tmp_path / "many", spec)


def test_distributions_of_labels_and_files_are_read(resampled, tmp_path):
    distributions = {"label": ["choose", ["vocals", "bass"]], "source_file": ["choose", []]}
    events = mixing_spec()["event_parameters"] | distributions
    parameters = {"train": {"num_mixtures": 4, "scene_duration": 1.0, "num_sources": 2}}
    spec = mixing_spec(event_parameters=events, mixture_parameters=parameters, coherent=False)
    _, manifest = _mixed(resampled, tmp_path, spec)
    assert all(set(item["sources"]) == {"vocals", "bass"} for item in manifest["items"])


def test_a_split_overrides_the_recipe(resampled, tmp_path):
    own = {"event_parameters": {"snr": ["const", 3], "by_label": {"vocals": {"snr": ["const", 9]}}}, "ref_db": -30}
    _, manifest = _mixed(resampled, tmp_path, mixing_spec(mixture_parameters={"train": _split(coherent=False, **own)}))
    for item in manifest["items"]:
        assert item["conditions"]["snr_vocals"] == 9 and not item["conditions"]["coherent"]
    assert manifest["counts"]["incoherent"] == 2


@pytest.mark.parametrize("effects", [{}, {"pitch_shift": ["uniform", -2, 2], "time_stretch": ["uniform", 0.8, 1.2]}])
def test_audio_equals_that_of_scaper(effects, resampled, tmp_path):
    from separation.nussl_compat import scaper

    events = mixing_spec()["event_parameters"] | {"event_duration": ["uniform", 0.3, 0.9]} | effects
    spec = mixing_spec(
        event_parameters=events | {"event_time": ["uniform", 0, 1]},
        mixture_parameters={"train": _split(num_mixtures=2)},
        coherent=False,
        min_activity=0,
    )
    folder, manifest = _mixed(resampled, tmp_path, spec)
    for item in manifest["items"]:
        audio, _, _, events = scaper.generate_from_jams(str(folder / item["jams"]))
        mixture, sources = _audio(folder, item)
        assert np.abs(audio[:, 0] * 32768 - mixture).max() <= 0.5 * len(LABELS) + 0.01
        paths = {path: label for label, path in item["sources"].items()}
        ordered = [sources[paths[path]] for path in sorted(paths, key=lambda path: path.split("foreground")[1])]
        for ours, theirs in zip(ordered, events, strict=True):
            assert np.abs(theirs[:, 0] * 32768 - ours).max() <= 0.51
