"""The cache of features or audio: filled once per dataset split, read by every training that learns from it.

On disk a cache is `<split>.zarr`, a zarr 3 group of typed arrays (no pickles), and `<split>.json`, its manifest. The
items are in shards (see separation.features.shards); the group's attributes hold its contents and how items are
divided. The manifest is written last. A group without a manifest that agrees with it is ignored; a manifest whose
group was pruned holds the recipe to fill it again. A filling that was killed resumes after its complete shards, and
only the shards that a cache lost are rebuilt.
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
from separation.features.fill_cache import FORMAT, attributes_of, fill_cache, read_manifest, store_path
from separation.features.shards import COLUMNS, TABLE, ShardedArray, find_damage_of_shard
from separation.features.store import FeatureStore
from separation.files import atomic
from separation.files.build_once import lock_path, locked

logger = logging.getLogger(__name__)

#: a cache up to this size is read whole and compared with its checksums before a training uses it; of a larger one
#: each shard when it is first read
CHECKED_BYTES = 2**32
#: keys of dataset_config that determine what a cache holds (data_keys_for_training reaches it as `keys`)
DATASET_KEYS = (
    "sample_rate",
    "num_channels",
    "n_fft",
    "hop_length",
    "window_type",
    "output_type",
    "group_sources",
    "group_names",
    "ignore_sources",
    "source_labels",
)


def populate_cache(
    spec: Mapping[str, Any], split: Mapping[str, Any], manifest: str | os.PathLike, workers: int = 1
) -> None:
    """Fills the cache of one split, or returns at once where it is whole.

    One process fills, others that ask for the same cache wait for it. Shards that a killed process left whole are kept.

    Args:
        spec: {"dataset_config": {...}, "keys": [...], "kind": features or audio}, what determines the contents; it is
            kept in the manifest as `recipe`.
        split: {"folder": ..., "class": ...}, where the mixtures are, see separation.data.items.Items.
        manifest: path of `<split>.json`; the group is `<split>.zarr` beside it.
        workers: processes that work on different shards; the bytes written do not depend on it.

    Raises:
        UserError: where the split is empty, its items do not fit together, the spec asks for something unknown, or
            the disk is full.
    """
    manifest = Path(manifest)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_path(manifest)):
        damage = find_damage(manifest, contents=True)
        if damage is None and atomic.read_json(manifest)["recipe"] == _plain(spec):
            logger.info("cache %s is whole, nothing to do", manifest)
            return
        logger.info("filling cache %s: %s", manifest, damage or "its recipe has changed")
        try:
            fill_cache(_plain(spec), dict(split), manifest, workers)
        except OSError as error:
            raise UserError(
                f"the cache cannot be written: {error.strerror or error}; the next run goes on with what is whole",
                file=manifest.parent,
            ) from error


def ensure_cache(manifest: str | os.PathLike, split: Mapping[str, Any], workers: int = 1) -> FeatureStore:
    """Opens a cache whose manifest exists; fills it again first where its zarr group was pruned or damaged.

    Args:
        manifest: path of `<split>.json`.
        split: where the mixtures are, should they be needed.
        workers: see `populate_cache`.

    Raises:
        UserError: where there is no manifest.
    """
    if not Path(manifest).exists():
        raise UserError("there is no such cache; `snakemake cache` fills it", file=manifest)
    description = read_manifest(Path(manifest))
    contents = description is not None and description.get("bytes", 0) <= CHECKED_BYTES
    if find_damage(manifest, contents=contents) is not None:
        if description is None:
            raise UserError("the manifest cannot be read; `snakemake cache` makes it again", file=manifest)
        populate_cache(description["recipe"], split, manifest, workers)
    return open_cache(manifest)


def open_cache(manifest: str | os.PathLike) -> FeatureStore:
    """What is in a whole cache; nothing but its tables is read yet."""
    description, store = atomic.read_json(manifest), store_path(manifest)
    shards = description["shards"]
    arrays = {name: ShardedArray(store, name, shards) for name in description["arrays"]}
    table = ShardedArray(store, TABLE, shards)[:]
    columns = dict(zip(COLUMNS, table.T, strict=True))
    lengths = np.stack([columns.pop("frames"), columns.pop("samples")], axis=1)
    config = {**description["recipe"]["dataset_config"], "num_channels": description["num_channels"]}
    return FeatureStore(arrays, lengths, columns, description["sources"], config)


def find_damage(manifest: str | os.PathLike, *, contents: bool = False) -> str | None:
    """What is wrong with a cache, in a few words, or None.

    That all shards are there with the sizes that the manifest tells is always looked at. The bytes themselves, which
    takes as long as reading them, with `contents=True` only.
    """
    manifest = Path(manifest)
    if not manifest.exists():
        return "no manifest"
    store, description = store_path(manifest), read_manifest(manifest)
    if description is None:
        return "the manifest cannot be read"
    if description.get("format") != FORMAT:
        return f"format {description.get('format')} instead of {FORMAT}"
    if attributes_of(store) is None:
        return "the zarr group is missing"
    for number, shard in enumerate(description["shards"]):
        damage = find_damage_of_shard(store, number, shard, contents=contents)
        if damage:
            return damage
    return None


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as JSON gives it back, its keys in order."""
    return json.loads(json.dumps(spec, sort_keys=True))
