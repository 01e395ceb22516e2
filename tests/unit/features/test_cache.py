"""A cache is filled once, reused, and repaired after pruning or damage."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import threading

import numpy as np
import pytest
import zarr

import forks
from separation.data.items import Items
from separation.errors import UserError
from separation.features import cache, fill_cache, shards
from separation.features.decode import BatchOptions
from separation.features.encoding import MAGNITUDE_SCALE, encoded_items, stored_arrays
from separation.features.shards import CHECKSUM, chunk_path, describe_shard, find_damage_of_shard, shard_path
from separation.features.store import FeatureStore
from separation.files.layout import cache_store
from separation.planning.specs import CACHED_KEYS
from separation.training.batches import BatchLoader, plan_epoch
from training_examples import dataset_config, dataset_options, write_split

KEYS = ["mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights"]
OPTIONS = BatchOptions(tuple(KEYS))


def make_spec(kind="features", **changes):
    config = dataset_config(**changes)
    return {
        "dataset_config": {key: config[key] for key in CACHED_KEYS},
        "keys": KEYS if kind == "features" else ["mix_audio", "source_audio"],
        "kind": kind,
    }


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(fill_cache, "SHARD_ITEMS", 2)


@pytest.fixture
def split(tmp_path):
    return write_split(tmp_path / "data" / "train", count=5, uneven=True)


@pytest.fixture
def manifest(tmp_path):
    return tmp_path / "cache" / "0123456789ab" / "train.json"


@pytest.fixture
def chunk(manifest):
    """A file of the second of three shards."""
    return chunk_path(shard_path(cache_store(manifest), 1), "mix_magnitude", 3)


def contents(manifest):
    """Every file of a cache with its bytes."""
    store = cache_store(manifest)
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def flip_a_bit(path, position=100):
    changed = bytearray(path.read_bytes())
    changed[position] ^= 1
    path.write_bytes(changed)


def all_excerpts(store):
    """All items, one after the other."""
    return [store.excerpts([item], [0], int(frames), OPTIONS) for item, frames in enumerate(store.frames)]


def assert_same_excerpts(ours, theirs):
    for one, other in zip(all_excerpts(ours), all_excerpts(theirs), strict=True):
        for key in KEYS:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize("kind", ["features", "audio"])
def test_a_cache_holds_the_same_bits_as_features_computed_from_mixtures(split, manifest, kind):
    cache.populate_cache(make_spec(kind), split, manifest)
    options = dataset_options()
    names = stored_arrays(kind, KEYS)
    computed = FeatureStore.from_items(encoded_items(Items(split, options), options, names), options)
    cached = cache.open_cache(manifest)
    assert cached.sources == computed.sources == ("drums", "vocals")
    assert len(set(cached.frames.tolist())) == 5
    assert_same_excerpts(cached, computed)
    assert_same_excerpts(cached.in_memory(), computed)
    # an excerpt may cross the end of a shard
    for name in names:
        whole = computed.arrays[name]
        np.testing.assert_array_equal(cached.arrays[name][3 : len(whole) - 5], whole[3 : len(whole) - 5])


def test_bytes_do_not_depend_on_the_number_of_workers(split, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(fill_cache, "SHARDS_PER_PROCESS", 1)
    other = tmp_path / "other" / "train.json"
    cache.populate_cache(make_spec(), split, manifest, workers=1)
    cache.populate_cache(make_spec(), split, other, workers=2)
    assert contents(manifest) == contents(other)
    assert manifest.read_bytes() == other.read_bytes()


def test_any_zarr_reader_opens_a_cache_and_detects_damage(split, manifest, chunk):
    cache.populate_cache(make_spec(), split, manifest)
    group = zarr.open_group(cache_store(manifest), mode="r")
    assert group.metadata.zarr_format == 3
    assert group.attrs["magnitude_scale"] == MAGNITUDE_SCALE and group.attrs["sources"] == ["drums", "vocals"]
    shards = [group["shards"][name] for name in sorted(group["shards"])]
    assert [shard["items"].shape[0] for shard in shards] == [2, 2, 1]
    first = slice(0, int(shards[0]["items"][0, group.attrs["columns"].index("frames")]))
    whole = all_excerpts(cache.open_cache(manifest))[0]
    np.testing.assert_array_equal(
        np.asarray(shards[0]["mix_magnitude"][first], dtype=np.float32) / MAGNITUDE_SCALE, whole["mix_magnitude"][0]
    )
    mask = np.unpackbits(shards[0]["ideal_binary_mask"][first], axis=-1, count=33 * 2).reshape(-1, 33, 1, 2)
    np.testing.assert_array_equal(mask, whole["ideal_binary_mask"][0])
    for shard in shards:
        for _, array in shard.arrays():
            assert array.dtype in (np.float16, np.uint8, np.float64)
    flip_a_bit(chunk)
    with pytest.raises(ValueError, match="checksum"):
        shards[1]["mix_magnitude"][:]


def test_a_complete_cache_is_not_touched(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    shutil.rmtree(split["folder"])  # filling the cache again would need it
    before = manifest.stat().st_mtime_ns
    cache.populate_cache(make_spec(), split, manifest)
    assert len(cache.ensure_cache(manifest, split)) == 5
    assert manifest.stat().st_mtime_ns == before


def test_a_pruned_cache_is_filled_again_and_keeps_its_manifest(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    filled, before = contents(manifest), manifest.stat().st_mtime_ns
    shutil.rmtree(cache_store(manifest))
    store = cache.ensure_cache(manifest, split)
    assert len(store) == 5
    assert contents(manifest) == filled
    assert manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage",
    ["a lost file", "a shortened file", "a flipped bit", "a lost shard", "a lost array", "broken metadata", "no group"],
)
def test_only_damaged_shards_are_rebuilt(split, manifest, chunk, damage):
    cache.populate_cache(make_spec(), split, manifest)
    store, before = cache_store(manifest), manifest.stat().st_mtime_ns
    filled, shard = contents(manifest), shard_path(store, 1)
    others = {number: shard_path(store, number).stat().st_mtime_ns for number in (0, 2)}
    if damage == "a lost file":
        chunk.unlink()
    elif damage == "a shortened file":
        os.truncate(chunk, chunk.stat().st_size - 1)
    elif damage == "a flipped bit":
        flip_a_bit(chunk)
        assert cache.find_damage(manifest) is None  # checks sizes only
    elif damage == "a lost shard":
        shutil.rmtree(shard)
    elif damage == "a lost array":
        shutil.rmtree(shard / "mix_magnitude")
    elif damage == "broken metadata":
        (shard / "mix_magnitude" / "zarr.json").unlink()
    else:
        (store / "zarr.json").write_text('{"zarr_format"')
    assert cache.find_damage(manifest, contents=True) is not None
    cache.ensure_cache(manifest, split)
    assert contents(manifest) == filled
    assert manifest.stat().st_mtime_ns == before
    if damage != "no group":
        assert {number: shard_path(store, number).stat().st_mtime_ns for number in (0, 2)} == others


def test_another_recipe_rebuilds_the_cache(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    before = json.loads(manifest.read_text())
    cache.populate_cache(make_spec(hop_length=16), split, manifest)
    after = json.loads(manifest.read_text())
    assert after["bytes"] > before["bytes"]
    assert after["checksum"] != before["checksum"]
    assert after["recipe"]["dataset_config"]["hop_length"] == 16
    assert cache.find_damage(manifest, contents=True) is None


def test_a_manifest_of_the_first_release_is_replaced_by_a_new_cache(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    new = manifest.read_text()
    old = {"format": 1, "kind": "features", "recipe": make_spec(), "arrays": {}, "frame_arrays": ["mix_magnitude"]}
    manifest.write_text(json.dumps(old))
    shutil.rmtree(cache_store(manifest))
    zarr.open_group(cache_store(manifest), mode="w")
    assert len(cache.ensure_cache(manifest, split)) == 5
    assert manifest.read_text() == new


def test_an_invalid_manifest_is_reported_in_one_line(split, manifest):
    cache.populate_cache(make_spec(), split, manifest)
    manifest.write_text('{"format"')
    with pytest.raises(UserError, match="snakemake cache"):
        cache.ensure_cache(manifest, split)
    cache.populate_cache(make_spec(), split, manifest)
    assert len(cache.ensure_cache(manifest, split)) == 5


def fill_and_report_steps(split, manifest, writer):
    """Fills a cache and sends a message before each step."""

    def reported(function):
        def report_and_call(*arguments):
            writer.send_bytes(b".")
            return function(*arguments)

        return report_and_call

    fill_cache.SHARD_ITEMS = 2
    fill_cache.encode_item = reported(fill_cache.encode_item)
    shards._write_array = reported(shards._write_array)
    shards._sync = reported(shards._sync)
    fill_cache.atomic.write_json = reported(fill_cache.atomic.write_json)
    cache.populate_cache(make_spec(), split, manifest)


def test_an_interrupted_fill_keeps_complete_shards(tmp_path, manifest):
    split = write_split(tmp_path / "data" / "train", count=12, uneven=True)
    reference = tmp_path / "reference" / "train.json"
    cache.populate_cache(make_spec(), split, reference)
    choose = random.Random(0)
    killed, kept = 0, set()
    for _ in range(25):
        # the fork is killed after a random number of steps
        steps, writer = forks.CONTEXT.Pipe(duplex=False)
        with steps, forks.forked(fill_and_report_steps, split, manifest, writer) as fork:
            writer.close()
            with contextlib.suppress(EOFError):
                for _ in range(choose.randint(1, 25)):
                    steps.recv_bytes()
            fork.kill()
            fork.join()
        whole = whole_shards(manifest)
        assert kept <= set(whole)  # complete shards are never lost
        killed, kept = killed + (fork.exitcode == -signal.SIGKILL), set(whole)
    assert killed >= 5 and kept
    cache.populate_cache(make_spec(), split, manifest)
    assert contents(manifest) == contents(reference)
    assert not list(manifest.parent.glob(".train.zarr.*"))


def whole_shards(manifest):
    """Names of the shards of a cache; each has to be complete, and all have to exist if there is a manifest."""
    store = cache_store(manifest)
    if manifest.exists():
        assert cache.find_damage(manifest, contents=True) is None
    group = store if store.exists() else store.with_name(f".{store.name}.partial")
    names = sorted(path.name for path in (group / "shards").glob("[0-9]*"))
    for number in map(int, names):
        assert find_damage_of_shard(group, number, describe_shard(group, number), contents=True) is None
    return names


def test_shards_of_an_interrupted_fill_are_verified(split, manifest, tmp_path):
    cache.populate_cache(make_spec(), split, manifest)
    filled = contents(manifest)
    # as if the process had died before it moved the group, and a file was damaged since
    store = cache_store(manifest)
    store.rename(manifest.parent / ".train.zarr.partial")
    manifest.unlink()
    flip_a_bit(chunk_path(shard_path(manifest.parent / ".train.zarr.partial", 1), "mix_magnitude", 3))
    cache.populate_cache(make_spec(), split, manifest)
    assert contents(manifest) == filled
    # or after that and before it wrote the manifest: nothing is filled again
    manifest.unlink()
    times = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    cache.populate_cache(make_spec(), split, manifest)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == times
    assert cache.find_damage(manifest, contents=True) is None


def fill_with_a_full_disk(split, manifest, message):
    """Fills a cache where no file may get longer than 40 kB, and writes the message of the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    try:
        cache.populate_cache(make_spec(), split, manifest)
    except UserError as problem:
        message.write_text(str(problem))


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_cache(split, manifest, tmp_path):
    assert forks.run(fill_with_a_full_disk, (split, manifest, tmp_path / "message")) == [0]
    (line,) = (tmp_path / "message").read_text().splitlines()
    assert line.startswith(f"{manifest.parent}: the cache cannot be written: File too large")
    assert not manifest.exists() and not cache_store(manifest).exists()
    cache.populate_cache(make_spec(), split, manifest)
    assert cache.find_damage(manifest, contents=True) is None


def test_concurrent_fills_write_the_cache_once(split, manifest, monkeypatch):
    fillings = []
    fill = cache.fill_cache
    monkeypatch.setattr(cache, "fill_cache", lambda *arguments: (fillings.append(1), fill(*arguments)))
    threads = [threading.Thread(target=cache.populate_cache, args=(make_spec(), split, manifest)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fillings) == 1
    assert cache.find_damage(manifest, contents=True) is None


def test_an_empty_split_is_an_error_and_leaves_no_cache(tmp_path, manifest):
    split = write_split(tmp_path / "empty", count=0)
    with pytest.raises(UserError, match="found none"):
        cache.populate_cache(make_spec(), split, manifest)
    assert not manifest.exists()
    assert not list(manifest.parent.glob("*.zarr"))


# ---------------------------------------------------------------- while a training job reads it


def read_epochs(store, num_workers, interfere):
    """Reads three epochs and calls `interfere` after each batch."""
    loader = BatchLoader(store, dataset_options(), batch_size=2, num_workers=num_workers)
    for epoch in range(3):
        plan = plan_epoch(
            store.frames,
            length=20,
            seed=0,
            epoch=epoch,
            sample_strategy="sequential",
            excerpt_selection_strategy="first",
        )
        for _ in loader.load(plan):
            interfere()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message"), [("removed", "was removed"), ("truncated", "was truncated"), ("changed", "was changed")]
)
def test_damage_during_a_training_is_reported_in_one_line_and_repaired_by_the_next(
    split, manifest, damage, message, num_workers
):
    cache.populate_cache(make_spec(), split, manifest)
    filled, store = contents(manifest), cache.ensure_cache(manifest, split)
    path = cache_store(manifest)
    last = chunk_path(shard_path(path, 2), "mix_magnitude", 3)

    def interfere():
        if damage == "removed" and path.exists():
            shutil.rmtree(path)
        elif damage == "truncated":
            for shard in (0, 1, 2):
                mask = chunk_path(shard_path(path, shard), "mix_magnitude", 3)
                if mask.exists():
                    os.truncate(mask, 10)
        elif damage == "changed" and last.exists():
            flip_a_bit(last, 7)

    if damage == "changed":
        interfere()
    with pytest.raises(UserError, match=rf"the cache {message}|the cache was changed \(checksum mismatch\)") as problem:
        read_epochs(store, num_workers, interfere if damage != "changed" else lambda: None)
    assert "\n" not in str(problem.value) and str(path) in str(problem.value)
    again = cache.ensure_cache(manifest, split)
    assert contents(manifest) == filled
    read_epochs(again, num_workers, lambda: None)


def test_a_file_truncated_while_read_raises_instead_of_sigbus(split, manifest, chunk):
    """A mapped file would raise SIGBUS. The checksum was verified before, so only reading detects the damage."""
    cache.populate_cache(make_spec(), split, manifest)
    store = cache.open_cache(manifest)
    all_excerpts(store)
    os.truncate(chunk, 2 * CHECKSUM)
    with pytest.raises(UserError, match="was truncated"):
        all_excerpts(store)
    assert len(all_excerpts(cache.ensure_cache(manifest, split))) == 5
