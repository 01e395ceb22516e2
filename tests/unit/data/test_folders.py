"""Datasets from a folder of recordings."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from separation.data import mix
from separation.data.fetch import fetch_source
from separation.data.organize import _with_file_names, organize_source
from separation.data.organizing.assignment import assign
from separation.data.organizing.file_checks import measure_file
from separation.data.organizing.guards import apply_guards, find_problems
from separation.data.resample import resample_source
from separation.data.sources.access import Access
from separation.errors import UserError
from separation.experiment import config
from separation.experiment.schema_defaults import with_defaults
from separation.files.listing import AUDIO_SUFFIXES
from separation.files.yaml_reader import Document
from separation.planning import dataset_steps
from separation.planning.changed_sources import _check
from sound_folder import RATE, recipe, tone, write, write_classes, write_songs

SPLITS = ["test", "train", "val"]


def steps(value, tmp_path, **settings):
    value = with_defaults(value, "dataset")
    given = config.load_settings({"directories": {"data": str(tmp_path / "data")}, **settings}, {})
    return dataset_steps.steps_of(config.Recipe("sounds", Document("sounds.yml", value), value), given)


def build(value, tmp_path, **settings):
    """Runs all steps of a recipe; returns the manifests of the fetched and organized source and of the train split."""
    recipe_steps = steps(value, tmp_path, **settings)
    access = Access(1, tmp_path / "data" / "downloads", False, recipe_steps.locations)
    fetched, organized, resampled = (tmp_path / "data" / name / "manifest.json" for name in ("f", "o", "r"))
    fetch_source(json.loads(recipe_steps.source.spec), fetched, access=access)
    organize_source(json.loads(recipe_steps.organized.spec), fetched, organized, access)
    resample_source(json.loads(recipe_steps.resampled.spec), organized, resampled)
    manifest = tmp_path / "data" / "mixed" / "train" / "manifest.json"
    mix.mix_dataset(json.loads(recipe_steps.mixtures["train"].spec), "train", resampled, manifest)
    return fetched, organized, manifest


def organized_files(manifest):
    return {entry["path"] for entry in json.loads(manifest.read_text())["files"]}


def test_a_folder_of_classes_is_mixed_without_copies(tmp_path):
    folder = write_classes(tmp_path / "sounds")
    source = {"name": "sounds", "kind": "folder", "path": str(folder), "licence": "CC0, by nobody"}
    _, organized, manifest = build(recipe(source=source), tmp_path)
    files = organized_files(organized)
    assert len(files) == 30
    assert {len([path for path in files if path.startswith(split)]) for split in ("train", "val")} == {18, 6}
    assert all((organized.parent / path).resolve().is_relative_to(folder) for path in files)
    mixed = json.loads(manifest.read_text())
    assert len(mixed["items"]) == 3 and "CC0, by nobody" in (manifest.parent / "ATTRIBUTION.txt").read_text()
    assert str(tmp_path) not in manifest.read_text()


def test_files_are_copied_on_request(tmp_path):
    folder = write_classes(tmp_path / "sounds")
    value = recipe(source={"name": "sounds", "kind": "folder", "path": str(folder)})
    value["organize"]["copy"] = True
    _, organized, _ = build(value, tmp_path)
    assert not any((organized.parent / path).is_symlink() for path in organized_files(organized))


def test_songs_by_folder_mix_coherently(tmp_path):
    folder = write_songs(tmp_path / "songs")
    value = recipe(source={"name": "songs", "kind": "folder", "path": str(folder)}, coherent=True)
    value["organize"]["by"] = "song"
    for parameters in value["mixture_parameters"].values():
        parameters |= {"labels": ["dog", "cat", "car"]}
        del parameters["num_sources"]
    _, organized, manifest = build(value, tmp_path)
    assert {"train/dog/song 0.wav", "val/dog/song 0.wav", "test/dog/song 0.wav"} & organized_files(organized)
    for item in json.loads(manifest.read_text())["items"]:
        assert set(item["sources"]) == {"dog", "cat", "car"} and item["conditions"]["coherent"]


def test_folders_named_after_splits_assign_splits():
    paths = [f"{split}/dog/{split}.wav" for split in SPLITS]
    found, without = assign(paths, {"by": "class"}, SPLITS, None)
    assert [(each["split"], each["class"], each["song"]) for each in found] == [(s, "dog", s) for s in SPLITS]
    assert without == []


def test_lists_and_folds_assign_splits():
    paths = [f"dog/{number}.wav" for number in range(4)]
    lists = {"val.txt": "./dog/1.wav\n# a comment\n", "test.txt": "dog/2.wav\twolf\n"}
    organize = {"by": "list", "lists": {"val": "val.txt", "test": "test.txt"}, "rest": "train"}
    found, _ = assign(paths, organize, SPLITS, lists.get)
    assigned = {each["path"]: (each["split"], each["class"]) for each in found}
    assert assigned == {
        "dog/0.wav": ("train", "dog"), "dog/1.wav": ("val", "dog"), "dog/2.wav": ("test", "wolf"),
        "dog/3.wav": ("train", "dog"),
    }  # fmt: skip
    table = "slice_file_name,fold,class\n0.wav,1,bark\n1.wav,9,bark\n2.wav,10,siren\n3.wav,3,bark\n"
    folds = {"train": [1, 2], "val": [9], "test": [10]}
    columns = {"file": "t.csv", "path": "dog/{slice_file_name}", "class": "class", "fold": "fold", "folds": folds}
    found, without = assign(paths, {"by": "fold", "table": columns}, SPLITS, lambda path: table)
    assert [(each["split"], each["class"]) for each in found] == [("train", "bark"), ("val", "bark"), ("test", "siren")]
    assert without == ["dog/3.wav"]
    with pytest.raises(UserError, match=r"no column 'fold'"):
        assign(paths, {"by": "fold", "table": columns}, SPLITS, lambda path: table.replace("fold", "folded"))


def test_lists_and_tables_with_backslashes_and_commas_are_read():
    paths = ["dog/a, b.wav", "dog/c.wav", "dog/d.wav"]
    text = "dog/a, b.wav\r\n.\\dog\\c.wav , dog\r\n\r\n"
    organize = {"by": "list", "lists": {"val": "v.txt"}, "rest": "train"}
    found, _ = assign(paths, organize, SPLITS, lambda path: text)
    assert [(each["path"], each["split"], each["class"]) for each in found] == [
        ("dog/a, b.wav", "val", "dog"), ("dog/c.wav", "val", "dog"), ("dog/d.wav", "train", "dog"),
    ]  # fmt: skip
    columns = {"file": "t.csv", "path": "{file}", "class": "class", "fold": "fold", "folds": {"train": [1], "val": [2]}}
    table = 'file,fold,class\r\n"dog/a, b.wav",1,wolf\r\ndog\\c.wav,2,fox\r\n'
    organize = {"by": "fold", "table": columns}
    found, _ = assign(paths, organize, SPLITS, lambda path: table)
    assert [(each["path"], each["class"]) for each in found] == [("dog/a, b.wav", "wolf"), ("dog/c.wav", "fox")]
    with pytest.raises(UserError, match=r"t.csv:3: .*expected a class, found none"):
        assign(paths, organize, SPLITS, lambda path: table.replace(",fox", ""))


def test_a_speaker_is_in_one_split_only():
    paths = [f"s{number % 5}/u{number}.wav" for number in range(40)]
    organize = {"by": "pattern", "patterns": [{"match": "{speaker}/{song}", "class": "speech"}]}
    found, _ = assign(paths, organize | {"splits": {"train": 0.6, "val": 0.2, "test": 0.2}}, SPLITS, None)
    speakers = {split: {each["speaker"] for each in found if each["split"] == split} for split in SPLITS}
    assert [len(speakers[split]) for split in SPLITS] == [1, 3, 1]
    assert not speakers["train"] & speakers["test"]


def test_ids_depend_on_names_and_sizes_not_on_the_folder(tmp_path):
    first = write_classes(tmp_path / "a", count=3)
    second = shutil.copytree(first, tmp_path / "elsewhere" / "b")
    ids = [
        steps(recipe(source={"name": "sounds", "kind": "folder", "path": str(folder)}), tmp_path).dataset.id
        for folder in (first, second)
    ]
    assert ids[0] == ids[1]
    write(second / "dog" / "new.wav", tone(300))
    assert (
        steps(recipe(source={"name": "sounds", "kind": "folder", "path": str(second)}), tmp_path).dataset.id != ids[0]
    )


def _add_problems(folder):
    """Adds every kind of problem to a folder of classes; returns the problem of each path."""
    whole = (folder / "car" / "car05.wav").read_bytes()
    (folder / "empty").mkdir()
    (folder / "car" / "broken.wav").write_bytes(b"RIFFxxxxWAVE nonsense" * 20)
    (folder / "car" / "cut.wav").write_bytes(whole[: len(whole) // 2])
    write(folder / "car" / "nan.wav", np.where(np.arange(RATE) == 5, np.nan, tone(120, seed=77)), subtype="FLOAT")
    write(folder / "dog" / "silent.wav", np.zeros(RATE))
    write(folder / "dog" / "constant.wav", np.full(RATE, 0.3))
    (folder / "dog" / "moved.wav").symlink_to("/nowhere/dog.wav")
    write(folder / "dog" / "clipped.wav", np.clip(tone(300, seed=78) * 20, -1, 1))
    write(folder / "dog" / "stereo.wav", np.stack([tone(300, seed=79)] * 2, axis=1))
    write(folder / "cat" / "rate.wav", tone(800, rate=44100, seed=80), 44100)
    write(folder / "cat" / "short.wav", tone(800, seconds=0.2, seed=81))
    write(folder / "cat" / "copy.flac", soundfile.read(folder / "cat" / "cat03.wav", dtype="int16")[0])
    return {
        "car/broken.wav": "unreadable", "car/cut.wav": "damaged", "car/nan.wav": "damaged", "dog/silent.wav": "silent",
        "dog/constant.wav": "silent", "dog/moved.wav": "unreadable", "dog/clipped.wav": "clipped",
        "dog/stereo.wav": "channels", "cat/rate.wav": "sample_rate", "cat/short.wav": "too_short",
        "cat/copy.flac": "duplicate", "empty/": "empty_class",
    }  # fmt: skip


def test_all_problems_are_listed_in_one_table_and_stop_the_run(tmp_path, capfd):
    folder = write_classes(tmp_path / "sounds")
    expected = _add_problems(folder)
    value = recipe(source={"name": "sounds", "kind": "folder", "path": str(folder)})
    value["organize"]["splits"] = {"train": 1.0}
    del value["mixture_parameters"]["val"], value["mixture_parameters"]["test"]
    with pytest.raises(UserError, match="12 files cannot be mixed") as error:
        build(value, tmp_path)
    assert "\n" not in str(error.value)
    rows = {line.split()[0]: line.split()[1] for line in capfd.readouterr().err.splitlines() if line.endswith(" stop")}
    assert rows == expected
    assert not (tmp_path / "data" / "o" / "manifest.json").exists()


def test_skipped_files_are_counted_and_never_mixed(tmp_path):
    folder = write_classes(tmp_path / "sounds")
    expected = _add_problems(folder)
    value = recipe(source={"name": "sounds", "kind": "folder", "path": str(folder)})
    value["organize"]["splits"] = {"train": 1.0}
    del value["mixture_parameters"]["val"], value["mixture_parameters"]["test"]
    value["guards"] = {"action": "skip", "by_problem": {"sample_rate": "use"}}
    _, organized, manifest = build(value, tmp_path)
    songs = {path.split("/")[-1].split(".")[0] for path in organized_files(organized)}
    assert songs == {f"{name}{number:02d}" for name in ("dog", "cat", "car") for number in range(10)} | {"rate"}
    counts = json.loads(manifest.read_text())["counts"]["source_problems"]
    assert sum(counts.values()) == len(expected) and counts["damaged_skipped"] == 2 and counts["sample_rate_used"] == 1
    listed = (organized.parent / "problems.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in listed} == set(expected)


def test_audio_in_two_splits_stays_in_the_evaluated_one(tmp_path):
    for position, split in enumerate(SPLITS):
        for number in range(2):
            write(tmp_path / split / "dog" / f"{number}.wav", tone(300, seed=2 * position + number))
    shutil.copy(tmp_path / "test" / "dog" / "1.wav", tmp_path / "train" / "dog" / "twin.wav")
    files = [
        {**measure_file(path), "path": path.relative_to(tmp_path).as_posix(), "split": path.parts[-3], "class": "dog"}
        for path in sorted(tmp_path.rglob("*.wav"))
    ]
    guards = {"action": "skip", "min_duration": 0, "num_channels": 1}
    (problem,) = find_problems(files, guards, {})
    assert (problem.path, problem.kind) == ("train/dog/twin.wav", "in_two_splits") and "test" in problem.detail
    kept, counts = apply_guards(files, [problem], "sounds")
    assert "train/dog/twin.wav" not in {each["path"] for each in kept} and counts == {"in_two_splits_skipped": 1}


def test_a_class_without_usable_files_is_a_problem():
    entry = {"path": "train/dog/a.wav", "split": "train", "class": "dog", "unreadable": "no"}
    problems = find_problems([entry], {"action": "skip", "min_duration": 0, "num_channels": 1}, {})
    assert [problem.kind for problem in problems] == ["unreadable", "empty_class"] or [
        problem.kind for problem in problems
    ] == ["empty_class", "unreadable"]


def test_changed_content_with_an_old_date_stops_the_run(tmp_path):
    folder = write_classes(tmp_path / "sounds", count=2)
    source = {"name": "sounds", "kind": "folder"}
    manifest = tmp_path / "f" / "manifest.json"
    access = Access(locations={"folders": {"": str(folder)}})
    fetch_source({"source": source}, manifest, access=access)
    changed = folder / "dog" / "dog01.wav"
    content = changed.read_bytes()
    os.utime(changed, ns=(1, 1))
    _check(manifest)  # the content is the same
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(changed, ns=(2, 2))
    with pytest.raises(UserError, match="the content changed") as error:
        _check(manifest)
    assert str(changed) in str(error.value) and str(manifest) in str(error.value)
    with pytest.raises(UserError, match="checksum mismatch"):
        organize_source({"organize": {"by": "class"}, "guards": {}}, manifest, tmp_path / "o" / "manifest.json")


def test_a_missing_folder_is_an_error_with_a_remedy(tmp_path):
    source = {"name": "x", "kind": "folder", "path": str(tmp_path / "none"), "needs": "set X to the folder"}
    with pytest.raises(UserError, match=r"no such folder: .*set X to the folder"):
        steps(recipe(source=source), tmp_path)
    with pytest.raises(UserError, match=r"expected a folder: `path`.*set X"):
        steps(recipe(source={**source, "path": ""}), tmp_path)


def test_files_with_the_same_name_are_numbered(tmp_path):
    files = [{"split": "train", "class": "dog", "song": song} for song in ("a/b", "a.b", "c")]
    assert [entry["song"] for entry in _with_file_names(files)] == ["a.b", "a.b~2", "c"]
    assert {".wav", ".flac", ".mp3"} <= AUDIO_SUFFIXES
