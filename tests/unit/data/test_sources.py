"""Fetching, organizing and resampling a source: links, manifests and checksums."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from separation.data import resample
from separation.data.fetch import fetch_source
from separation.data.manifests import read_source_manifest
from separation.data.organize import organize_source
from separation.errors import UserError
from tiny_source import build_source, bytes_below, recipe, write_source


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return build_source(tmp_path_factory.mktemp("source"))


def test_files_are_organized_by_relative_links(steps, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(steps[0].parents[1], moved, symlinks=True)
    links = [path for path in (moved / "organized").rglob("*.wav")]
    assert len(links) == 16
    assert (moved / "organized/test/vocals/test_000.wav") in links
    for link in links:
        assert link.is_symlink() and not os.path.isabs(os.readlink(link))
        assert moved in link.resolve().parents
        split, label, song = link.relative_to(moved / "organized").with_suffix("").parts
        assert link.read_bytes() == (moved / "fetched" / split / song / f"{label}.wav").read_bytes()


def test_all_steps_write_the_same_bytes_with_1_and_2_workers(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(resample, "SECONDS_PER_PROCESS", 0)
    build_source(tmp_path, workers=2)
    assert bytes_below(tmp_path) == bytes_below(steps[0].parents[1])


def test_resampled_files_have_the_rate_of_the_recipe(steps):
    manifest = json.loads(steps[2].read_text())
    assert len(manifest["files"]) == 16
    for entry in manifest["files"]:
        info = soundfile.info(steps[2].parent / entry["path"])
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (8000, 1, "PCM_16", 48000)
        assert entry["sample_rate"] == 8000 and entry["frames"] == 48000


def test_every_step_has_the_attribution(steps):
    texts = {(step.parent / "ATTRIBUTION.txt").read_text() for step in steps}
    assert len(texts) == 1 and "Tim Brechbill" in texts.pop()


def test_manifests_have_no_absolute_paths(steps):
    for step in steps:
        assert str(step.parents[1]) not in step.read_text()


def test_files_of_earlier_runs_are_removed(tmp_path):
    fetched = tmp_path / "fetched/manifest.json"
    given = recipe()["source"]
    given["args"] |= {"songs": {"train": 2}, "song_duration": 1.0}
    fetch_source({"source": given}, fetched)
    given["args"]["songs"] = {"train": 1}
    fetch_source({"source": given}, fetched)
    assert {path.name for path in (tmp_path / "fetched/train").iterdir()} == {"train_000"}


def test_a_changed_file_is_reported_in_one_line_with_file_and_remedy(tmp_path):
    manifest = write_source(tmp_path, [("a", np.zeros(100), 8000)])
    path = tmp_path / "train/song/a.wav"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    os.utime(path, ns=(manifest.stat().st_mtime_ns + 1, manifest.stat().st_mtime_ns + 1))
    with pytest.raises(UserError) as error:
        organize_source({"organize": {"by": "class"}}, manifest, tmp_path / "organized/manifest.json")
    assert str(path) in str(error.value) and str(manifest) in str(error.value) and "delete" in str(error.value)
    assert "\n" not in str(error.value)
    path.write_bytes(content)  # the same content with a later time is valid
    assert read_source_manifest(manifest)["files"]
    path.unlink()
    with pytest.raises(UserError, match="missing"):
        read_source_manifest(manifest)


def test_changed_resampled_audio_is_an_error_and_a_copy_is_not(steps, tmp_path):
    manifest = tmp_path / "copy/manifest.json"
    shutil.copytree(steps[2].parent, manifest.parent)
    path = next(manifest.parent.rglob("*.wav"))
    content = path.read_bytes()
    later = manifest.stat().st_mtime_ns + 1
    os.utime(path, ns=(later, later))
    assert read_source_manifest(manifest)["files"]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(later, later))
    with pytest.raises(UserError, match="checksum mismatch"):
        read_source_manifest(manifest)


@pytest.mark.parametrize(
    ("step", "spec", "message"),
    [
        (
            "fetch",
            {"source": {"name": "x", "kind": "toys"}},
            "source.kind: expected one of folder, musdb18, script, toy_music, toy_speech, found 'toys'",
        ),
        ("organize", {"organize": {"by": "colour"}}, "organize.by: expected class, found 'colour'"),
    ],
)
def test_an_unknown_kind_is_reported_in_one_line(step, spec, message, steps, tmp_path):
    manifest = tmp_path / "new" / "manifest.json"
    with pytest.raises(UserError) as error:
        if step == "fetch":
            fetch_source(spec, manifest)
        else:
            organize_source(spec, steps[0], manifest)
    assert str(error.value) == message
    assert not manifest.exists()
