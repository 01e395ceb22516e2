"""Filling of a cache: missing and damaged shards are written, the manifest last.

Complete shards of an interrupted fill are kept, and the next fill resumes after them. A new cache is built in a hidden
folder beside its final path. A cache that lost shards is repaired in place: its manifest lists the missing shards.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.items import Items
from separation.errors import UserError
from separation.experiment.options import DatasetOptions
from separation.features.encoding import (
    MAGNITUDE_SCALE,
    REMAINDER,
    EncodedItem,
    check_same_shape,
    encode_item,
    stored_arrays,
)
from separation.features.shards import (
    COLUMNS,
    SHARDS,
    TABLE,
    attributes_of,
    describe_shard,
    find_damage_of_shard,
    remove_shard,
    write_shard,
)
from separation.features.spectra import check_features
from separation.files import atomic
from separation.files.layout import cache_store
from separation.machine.parallel import run_in_order
from separation.machine.threads import limited_torch_threads

logger = logging.getLogger(__name__)

FORMAT = 3
#: target size of a shard; items are not divided
SHARD_BYTES = 2**24
SHARD_ITEMS = 64
#: shards that take as long as starting a process, which imports torch
SHARDS_PER_PROCESS = 2
_fillings = itertools.count()


def read_manifest(manifest: Path) -> dict[str, Any] | None:
    """The manifest of a cache; None if it cannot be read."""
    try:
        description = atomic.read_json(manifest)
    except (ValueError, OSError):
        return None
    return description if isinstance(description, dict) and "recipe" in description else None


def fill_cache(spec: dict[str, Any], split: dict[str, Any], manifest: Path, workers: int) -> None:
    """Writes the missing shards, moves a new group into place, then writes the manifest."""
    import zarr

    # the spec holds the keys that determine the contents; the others keep their defaults, which change nothing here
    options = DatasetOptions.read({**spec["dataset_config"], "data_keys_for_training": list(spec["keys"])})
    check_features(options)
    names = stored_arrays(spec["kind"], spec["keys"])
    items = Items(split, options)
    if not len(items):
        raise UserError("expected at least one mixture to cache, found none", file=split["folder"])
    first = encode_item(items.arrays(0), options, names)
    attributes = {
        "format": FORMAT,
        "recipe": spec,
        "names": list(items.names),
        "shard_items": _items_per_shard(first),
        "magnitude_scale": MAGNITUDE_SCALE,
        "sources": list(first.sources),
        "columns": list(COLUMNS),
    }
    # an existing group with other attributes is another cache: build a new one beside it
    store = cache_store(manifest)
    partial, old = (manifest.parent / f".{store.name}.{name}" for name in ("partial", "old"))
    group = store if attributes_of(store) == attributes else partial
    if group is partial and attributes_of(partial) != attributes:
        shutil.rmtree(partial, ignore_errors=True)
        zarr.open_group(partial, mode="w", zarr_format=3, attributes=attributes)
    shards = _fill_shards(group, split, options, attributes["shard_items"], len(items), workers)
    # from here on the group is complete; without its manifest it still counts as missing
    if group is partial:
        shutil.rmtree(old, ignore_errors=True)
        if store.exists():
            store.rename(old)
        partial.rename(store)
    for leftover in manifest.parent.glob(f".{store.name}.*"):
        shutil.rmtree(leftover)
    description = _describe(spec, items.names, first, shards) | {"split": manifest.stem}
    if read_manifest(manifest) == description:
        return  # keep the time stamp: for everything downstream a refilled cache is the same cache
    atomic.write_json(manifest, description)


def _items_per_shard(example: EncodedItem) -> int:
    size = sum(array.nbytes for array in example.arrays.values())
    return max(1, min(SHARD_ITEMS, SHARD_BYTES // size))


def _fill_shards(
    store: Path, split: dict[str, Any], options: DatasetOptions, shard_items: int, count: int, workers: int
) -> list[dict[str, Any]]:
    """Writes missing and damaged shards; the descriptions of all shards for the manifest."""
    import zarr

    zarr.open_group(store, mode="a").require_group(SHARDS)
    for leftover in (store / SHARDS).glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)
    spans = [(first, min(first + shard_items, count)) for first in range(0, count, shard_items)]
    described: dict[int, dict[str, Any]] = {}
    for number in range(len(spans)):
        shard = describe_shard(store, number)
        if shard is not None and find_damage_of_shard(store, number, shard, contents=True) is None:
            described[number] = shard
        else:
            remove_shard(store, number)
    missing = [number for number in range(len(spans)) if number not in described]
    if described:
        logger.info("%d of %d shards are complete; keeping them", len(described), len(spans))
    token = f"{os.getpid()} {next(_fillings)}"
    calls = [(token, str(store), number, spans[number], split, options) for number in missing]
    share = SHARDS_PER_PROCESS if shard_items > 1 else SHARDS_PER_PROCESS * 4
    written = run_in_order(fill_shard, calls, workers=workers, share=share, items=f"shards of {shard_items} items")
    described.update(zip(missing, written, strict=True))
    return [described[number] for number in range(len(spans))]


def fill_shard(
    token: str,
    store: str,
    number: int,
    span: tuple[int, int],
    split: dict[str, Any],
    options: DatasetOptions,
) -> dict[str, Any]:
    """Encodes and writes one shard, in a worker process; its description for the manifest.

    Args:
        token: Id of the fill, during which a process opens the dataset once.
        store: Group of the cache, whose attributes describe its contents.
        number: Number of the shard.
        span: First item of the shard, and the item after its last.
        split, options: See separation.data.items.Items; data_keys_for_training are the keys to store.
    """
    items = _open_items(token, json.dumps(split), options)
    attributes = attributes_of(Path(store))
    if attributes is None:
        raise UserError("the cache was removed while it was being filled", file=store)
    names = stored_arrays(attributes["recipe"]["kind"], attributes["recipe"]["keys"])
    # the transforms of one item are too small for several threads
    with limited_torch_threads(1):
        encoded = [encode_item(items.arrays(index), options, names) for index in range(*span)]
    check_same_shape(encoded)
    if list(encoded[0].sources) != attributes["sources"]:
        found = list(encoded[0].sources)
        raise UserError(f"expected the sources {attributes['sources']} in all items, found {found}")
    arrays = {name: [item.arrays[name] for item in encoded] for name in names}
    if REMAINDER in arrays:
        arrays[REMAINDER] = _as_int8_if_possible(arrays[REMAINDER])
    table = np.array([[getattr(item, column) for column in COLUMNS] for item in encoded], dtype=np.float64)
    return write_shard(Path(store), number, {**arrays, TABLE: [table]})


def _as_int8_if_possible(parts: list[np.ndarray]) -> list[np.ndarray]:
    """The arrays as int8 if all values fit."""
    fits = all(part.min(initial=0) >= -128 and part.max(initial=0) <= 127 for part in parts)
    return [part.astype(np.int8) for part in parts] if fits else parts


@lru_cache(maxsize=1)
def _open_items(token: str, split: str, options: DatasetOptions) -> Items:
    return Items(json.loads(split), options)


def _describe(
    spec: dict[str, Any], names: Sequence[str], first: EncodedItem, shards: list[dict[str, Any]]
) -> dict[str, Any]:
    """The contents of the manifest."""
    num_frequencies, num_channels, num_sources = first.shape
    arrays = list(first.arrays)
    sizes = {name: sum(shard["arrays"][name]["bytes"] for shard in shards) for name in (*arrays, TABLE)}
    checksums = json.dumps([{name: array["crc32c"] for name, array in shard["arrays"].items()} for shard in shards])
    return {
        "format": FORMAT,
        "kind": spec["kind"],
        "recipe": spec,
        "count": len(names),
        "items": list(names),
        "num_frequencies": num_frequencies,
        "num_channels": num_channels,
        "num_sources": num_sources,
        "sources": list(first.sources),
        "magnitude_scale": MAGNITUDE_SCALE,
        "arrays": arrays,
        "shards": shards,
        "bytes": sum(sizes.values()),
        "checksum": hashlib.sha256(checksums.encode()).hexdigest(),
    }
