"""Cache of features or audio: filled once per dataset split, read by all training runs on it.

On disk a cache is `<split>.zarr`, a zarr 3 group of typed arrays (no pickles), and `<split>.json`, its manifest. The
items are in shards (see separation.features.shards); the attributes of the group describe its contents. The manifest is
written last. A group without a matching manifest is ignored; a manifest without a group, after pruning, holds the
recipe to fill it again. An interrupted fill resumes after its complete shards, and only lost shards are rebuilt.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from separation.errors import UserError
from separation.experiment.options import DatasetOptions
from separation.features.fill_cache import FORMAT, fill_cache, read_manifest
from separation.features.shards import COLUMNS, TABLE, ShardedArray, attributes_of, find_damage_of_shard
from separation.features.store import FeatureStore
from separation.files import atomic
from separation.files.build_once import lock_path, locked
from separation.files.layout import cache_store

logger = logging.getLogger(__name__)

#: checksums of a cache up to this size are all verified before training uses it; those of a larger cache shard by
#: shard, when a shard is first read
CHECKED_BYTES = 2**32


def populate_cache(
    spec: Mapping[str, Any], split: Mapping[str, Any], manifest: str | os.PathLike, workers: int = 1
) -> None:
    """Fills the cache of one split, or returns at once if it is complete.

    One process fills a cache; others that need it wait. Complete shards of a killed process are kept.

    Args:
        spec: {"dataset_config": {...}, "keys": [...], "kind": features or audio}, which determines the contents; the
            manifest keeps it as `recipe`.
        split: {"folder": ..., "class": ...} of the mixtures, see separation.data.items.Items.
        manifest: Path of `<split>.json`; the group is `<split>.zarr` beside it.
        workers: Number of processes that fill shards; the bytes written do not depend on it.

    Raises:
        UserError: The split is empty, its items differ in shape, the spec is invalid, or the disk is full.
    """
    manifest = Path(manifest)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_path(manifest)):
        damage = find_damage(manifest, contents=True)
        if damage is None and atomic.read_json(manifest)["recipe"] == _plain(spec):
            logger.info("cache %s is complete; skipping", manifest)
            return
        logger.info("filling cache %s: %s", manifest, damage or "its recipe has changed")
        try:
            fill_cache(_plain(spec), dict(split), manifest, workers)
        except OSError as error:
            raise UserError(
                f"the cache cannot be written: {error.strerror or error}; the next run keeps the complete shards",
                file=manifest.parent,
            ) from error


def ensure_cache(manifest: str | os.PathLike, split: Mapping[str, Any], workers: int = 1) -> FeatureStore:
    """Opens a cache whose manifest exists; fills it again first if its zarr group was pruned or damaged.

    Args:
        manifest: Path of `<split>.json`.
        split: Mixtures to fill the cache from, see `populate_cache`.
        workers: Number of processes that fill shards.

    Raises:
        UserError: The manifest is missing or unreadable.
    """
    if not Path(manifest).exists():
        raise UserError("no such cache; fill it with `snakemake cache`", file=manifest)
    description = read_manifest(Path(manifest))
    contents = description is not None and description.get("bytes", 0) <= CHECKED_BYTES
    if find_damage(manifest, contents=contents) is not None:
        if description is None:
            raise UserError("the manifest cannot be read; rebuild it with `snakemake cache`", file=manifest)
        populate_cache(description["recipe"], split, manifest, workers)
    return open_cache(manifest)


def open_cache(manifest: str | os.PathLike) -> FeatureStore:
    """The contents of a complete cache; only its tables are read at once."""
    description, store = atomic.read_json(manifest), cache_store(Path(manifest))
    shards = description["shards"]
    arrays = {name: ShardedArray(store, name, shards) for name in description["arrays"]}
    table = ShardedArray(store, TABLE, shards)[:]
    columns = dict(zip(COLUMNS, table.T, strict=True))
    lengths = np.stack([columns.pop("frames"), columns.pop("samples")], axis=1)
    cached = {**description["recipe"]["dataset_config"], "num_channels": description["num_channels"]}
    return FeatureStore(arrays, lengths, columns, description["sources"], DatasetOptions.read(cached))


def find_damage(manifest: str | os.PathLike, *, contents: bool = False) -> str | None:
    """The damage of a cache in a few words, or None.

    Existence and size of the shards are always checked. With `contents`, so are all checksums, which takes as long as
    reading the cache.
    """
    manifest = Path(manifest)
    if not manifest.exists():
        return "no manifest"
    store, description = cache_store(manifest), read_manifest(manifest)
    if description is None:
        return "the manifest cannot be read"
    if description.get("format") != FORMAT:
        return f"expected format {FORMAT}, found {description.get('format')}"
    if attributes_of(store) is None:
        return "the zarr group is missing"
    for number, shard in enumerate(description["shards"]):
        damage = find_damage_of_shard(store, number, shard, contents=contents)
        if damage:
            return damage
    return None


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as JSON restores it, with sorted keys."""
    return json.loads(json.dumps(spec, sort_keys=True))
