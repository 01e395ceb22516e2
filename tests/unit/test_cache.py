"""A cache is filled once, found again, and mended where it was pruned or damaged."""

import json
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from separation import cache, frame_arrays
from separation.data.items import Items
from separation.encoding import MAGNITUDE_SCALE, encoded_items, stored_arrays
from separation.errors import UserError
from separation.feature_store import BatchOptions, FeatureStore
from training_examples import dataset_config, write_split

KEYS = ["mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights"]
OPTIONS = BatchOptions(tuple(KEYS))
SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


def make_spec(**changes):
    config = dataset_config(**changes)
    return {
        "dataset_config": {key: config[key] for key in cache.DATASET_KEYS},
        "keys": KEYS,
        "kind": "features",
    }


@pytest.fixture
def split(tmp_path):
    return write_split(tmp_path / "data" / "train", count=5, uneven=True)


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / "cache" / "0123456789ab" / "train.json"


def contents(manifest):
    """Every file of a cache with its bytes."""
    store = cache.store_path(manifest)
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def all_excerpts(store):
    """All items whole, one after the other."""
    return [store.excerpts([item], [0], int(frames), OPTIONS) for item, frames in enumerate(store.frames)]


def test_features_from_the_cache_are_those_computed_from_the_audio(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    config = dataset_config()
    computed = FeatureStore.from_items(
        encoded_items(Items(split, config), config, stored_arrays("features", KEYS)), config
    )
    cached = cache.open_cache(manifest)
    assert cached.sources == computed.sources == ("drums", "vocals")
    for ours, theirs in zip(all_excerpts(cached), all_excerpts(computed), strict=True):
        for key in KEYS:
            np.testing.assert_array_equal(ours[key], theirs[key])
    assert len(set(cached.frames.tolist())) == 5


def test_the_same_bytes_are_written_with_1_and_2_workers(split, manifest, tmp_path):
    other = tmp_path / "other" / "train.json"
    cache.populate_cache(make_spec(), split, manifest, workers=1)
    cache.populate_cache(make_spec(), split, other, workers=2)
    assert contents(manifest) == contents(other)
    assert manifest.read_bytes() == other.read_bytes()


def test_any_zarr_reader_can_open_it_and_no_pickle_is_in_it(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    group = zarr.open_group(cache.store_path(manifest), mode="r")
    assert group.metadata.zarr_format == 3
    assert group.attrs["magnitude_scale"] == MAGNITUDE_SCALE
    first = slice(0, int(group["lengths"][0, 0]))
    whole = all_excerpts(cache.open_cache(manifest))[0]
    np.testing.assert_array_equal(
        np.asarray(group["mix_magnitude"][first], dtype=np.float32) / MAGNITUDE_SCALE, whole["mix_magnitude"][0]
    )
    mask = np.unpackbits(group["ideal_binary_mask"][first], axis=-1, count=33 * 2).reshape(-1, 33, 1, 2)
    np.testing.assert_array_equal(mask, whole["ideal_binary_mask"][0])
    for _, array in group.arrays():
        assert array.dtype in (np.float16, np.uint8, np.int64, np.float64)


def test_arrays_that_span_several_chunk_files_are_read_in_one_piece(split, manifest, tmp_path, monkeypatch):
    cache.populate_cache(make_spec(), split, manifest)
    monkeypatch.setattr(frame_arrays, "CHUNK_BYTES", 20_000)
    small = tmp_path / "small" / "train.json"
    cache.populate_cache(make_spec(), split, small)
    assert len(list((cache.store_path(small) / "mix_magnitude" / "c").iterdir())) > 2
    group = zarr.open_group(cache.store_path(small), mode="r")
    whole = zarr.open_group(cache.store_path(manifest), mode="r")
    for key in ("mix_magnitude", "source_magnitudes", "ideal_binary_mask"):
        np.testing.assert_array_equal(group[key][:], whole[key][:])
    for ours, theirs in zip(
        all_excerpts(cache.open_cache(small)), all_excerpts(cache.open_cache(manifest)), strict=True
    ):
        for key in KEYS:
            np.testing.assert_array_equal(ours[key], theirs[key])
    assert cache.find_damage(small, contents=True) is None


def test_a_whole_cache_is_left_alone(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    shutil.rmtree(split["folder"])  # filling it again would need this
    before = manifest.stat().st_mtime_ns
    cache.populate_cache(make_spec(), split, manifest)
    assert manifest.stat().st_mtime_ns == before


def test_a_pruned_cache_is_filled_again_and_its_manifest_stays_as_it_was(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    filled, before = contents(manifest), manifest.stat().st_mtime_ns
    shutil.rmtree(cache.store_path(manifest))
    store = cache.ensure_cache(manifest, split)
    assert len(store) == 5
    assert contents(manifest) == filled
    assert manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage", ["a lost file", "a shortened file", "lost metadata", "broken metadata", "a lost array"]
)
def test_a_damaged_cache_is_noticed_and_mended(split, manifest, damage):
    cache.populate_cache(make_spec(), split, manifest)
    filled, array = contents(manifest), cache.store_path(manifest) / "mix_magnitude"
    chunk = array.joinpath("c", "0", "0", "0")
    if damage == "a lost file":
        chunk.unlink()
    elif damage == "a shortened file":
        chunk.write_bytes(chunk.read_bytes()[:-1])
    elif damage == "lost metadata":
        (cache.store_path(manifest) / "zarr.json").unlink()
    elif damage == "broken metadata":
        (cache.store_path(manifest) / "zarr.json").write_text('{"zarr_format"')
    else:
        shutil.rmtree(array)
    assert cache.find_damage(manifest) is not None
    cache.ensure_cache(manifest, split)
    assert contents(manifest) == filled


def test_changed_bytes_are_found_by_the_checksum(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    assert cache.find_damage(manifest, contents=True) is None
    chunk = cache.store_path(manifest).joinpath("mix_magnitude", "c", "0", "0", "0")
    changed = bytearray(chunk.read_bytes())
    changed[100] ^= 1
    chunk.write_bytes(changed)
    assert cache.find_damage(manifest) is None
    assert "mix_magnitude" in cache.find_damage(manifest, contents=True)


def test_another_recipe_fills_the_cache_anew(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    before = json.loads(manifest.read_text())
    cache.populate_cache(make_spec(hop_length=16), split, manifest)
    after = json.loads(manifest.read_text())
    assert after["frames"] > before["frames"]
    assert after["checksum"] != before["checksum"]
    assert after["recipe"]["dataset_config"]["hop_length"] == 16


def test_a_cache_whose_filling_was_killed_does_not_look_whole(split, manifest):
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path[:0] = [{str(SCRIPTS)!r}, {str(Path(__file__).parent)!r}]
        from separation import cache
        from separation.frame_arrays import FrameAppender
        import test_cache
        append = FrameAppender.append
        def append_and_die(self, values):
            append(self, values)
            if self._frames > 500:
                os.kill(os.getpid(), signal.SIGKILL)
        FrameAppender.append = append_and_die
        cache.populate_cache(test_cache.make_spec(), {split!r}, {str(manifest)!r})
        """
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=100)
    assert killed.returncode == -9, killed.stderr.decode()
    assert list(manifest.parent.glob(".train.zarr.*"))
    assert not manifest.exists()
    assert not cache.store_path(manifest).exists()
    with pytest.raises(UserError, match="no such cache"):
        cache.ensure_cache(manifest, split)
    cache.populate_cache(make_spec(), split, manifest)
    assert cache.find_damage(manifest, contents=True) is None
    assert not list(manifest.parent.glob(".train.zarr.*"))


def test_two_that_fill_the_same_cache_at_once_fill_it_once(split, manifest, monkeypatch):
    fillings = []
    fill = cache._fill
    monkeypatch.setattr(cache, "_fill", lambda *arguments: (fillings.append(1), fill(*arguments)))
    threads = [threading.Thread(target=cache.populate_cache, args=(make_spec(), split, manifest)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fillings) == 1
    assert cache.find_damage(manifest, contents=True) is None


def test_an_empty_split_is_an_error_that_leaves_nothing_behind(tmp_path, manifest):
    split = write_split(tmp_path / "empty", count=0)
    with pytest.raises(UserError, match="found none"):
        cache.populate_cache(make_spec(), split, manifest)
    assert not manifest.exists()
    assert not list(manifest.parent.glob("*.zarr"))
