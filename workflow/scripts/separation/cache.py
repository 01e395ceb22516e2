"""The cache of features: filled once per dataset split, read by every training that learns from it.

On disk a cache is `<split>.zarr`, a zarr 3 group of typed arrays (no pickles), and `<split>.json`, its manifest. The
long arrays hold the frames of all items one after the other (see separation.feature_store) in uncompressed chunks along
time, so any zarr reader can open them and training maps the chunk files straight into memory: an excerpt of a few
hundred frames costs one copy. The manifest is written last. A group without a manifest that agrees with it counts for
nothing, and a manifest whose group was pruned says how to make it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from filelock import FileLock

from separation import files
from separation.data.items import Items
from separation.encoding import MAGNITUDE_SCALE, EncodedItem, check_alike, encoded_items, stored_arrays
from separation.errors import UserError
from separation.feature_store import FeatureStore
from separation.features import check_dataset_config
from separation.frame_arrays import FrameAppender, MappedFrames, chunk_path, digest_of

logger = logging.getLogger(__name__)

FORMAT = 2
CONSTANTS = ("total", "peak", "step")
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


def store_path(manifest: str | os.PathLike) -> Path:
    """The folder of the zarr group that belongs to a manifest."""
    return Path(manifest).with_suffix(".zarr")


def populate_cache(
    spec: Mapping[str, Any], split: Mapping[str, Any], manifest: str | os.PathLike, workers: int = 1
) -> None:
    """Fills the cache of one split, or returns at once where it is whole.

    One process fills, others that ask for the same cache wait for it. What a killed process left behind is cleared
    away.

    Args:
        spec: {"dataset_config": {...}, "keys": [...], "kind": features or audio}, what determines the contents;
            it is kept in the manifest as `recipe`.
        split: {"folder": ..., "class": ...}, where the mixtures are, see separation.data.items.Items.
        manifest: path of `<split>.json`; the group is `<split>.zarr` beside it.
        workers: items that are worked on at the same time; the bytes written do not depend on it.

    Raises:
        UserError: where the split is empty, its items do not fit together, or the spec asks for something unknown.
    """
    manifest = Path(manifest)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(manifest.with_suffix(".lock")):
        damage = find_damage(manifest)
        if damage is None and files.read_json(manifest)["recipe"] == _plain(spec):
            logger.info("cache %s is whole, nothing to do", manifest)
            return
        logger.info("filling cache %s: %s", manifest, damage or "its recipe has changed")
        _fill(spec, split, manifest, workers)


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
    if find_damage(manifest) is not None:
        populate_cache(files.read_json(manifest)["recipe"], split, manifest, workers)
    return open_cache(manifest)


def open_cache(manifest: str | os.PathLike) -> FeatureStore:
    """The features in a whole cache; nothing but the small arrays is read yet."""
    description = files.read_json(manifest)
    group = zarr.open_group(store_path(manifest), mode="r")
    arrays = {key: MappedFrames(store_path(manifest) / key, group[key]) for key in description["frame_arrays"]}
    constants = {key: group[key][:] for key in CONSTANTS}
    config = {"num_channels": description["num_channels"], **description["recipe"]["dataset_config"]}
    return FeatureStore(arrays, group["lengths"][:], constants, description["sources"], config)


def find_damage(manifest: str | os.PathLike, *, contents: bool = False) -> str | None:
    """What is wrong with a cache, in a few words, or None.

    Shapes, types and sizes are always compared with the manifest. The bytes themselves, which takes as long as reading
    them, with `contents=True` only.
    """
    if not Path(manifest).exists():
        return "no manifest"
    store = store_path(manifest)
    if not (store / "zarr.json").exists():
        return "the zarr group is missing"
    description = files.read_json(manifest)
    if description["format"] != FORMAT:
        return f"format {description['format']} instead of {FORMAT}"
    try:
        group = zarr.open_group(store, mode="r")
        arrays = {name: group.get(name) for name in description["arrays"]}
    except (ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        return f"the zarr group cannot be read: {error}"
    for name, array in arrays.items():
        damage = _find_damage_of(store / name, array, description["arrays"][name], contents)
        if damage:
            return f"array {name} {damage}"
    return None


def _find_damage_of(folder: Path, array: zarr.Array | None, expected: Mapping[str, Any], contents: bool) -> str | None:
    if array is None:
        return "is missing"
    if [list(array.shape), str(array.dtype)] != [expected["shape"], expected["dtype"]]:
        return f"is {array.dtype} {array.shape}, not {expected['dtype']} {expected['shape']}"
    chunk_bytes = int(np.prod(array.chunks)) * array.dtype.itemsize
    for chunk in range(-(-array.shape[0] // array.chunks[0])):
        path = chunk_path(folder, chunk, array.ndim)
        if not path.exists() or path.stat().st_size != chunk_bytes:
            return f"lacks bytes in chunk {chunk}"
    if contents and digest_of(MappedFrames(folder, array)) != expected["sha256"]:
        return "has other contents than it had"
    return None


# ---------------------------------------------------------------- writing


def _fill(spec: Mapping[str, Any], split: Mapping[str, Any], manifest: Path, workers: int) -> None:
    """Writes the group under a temporary name, moves it into place, then writes the manifest."""
    dataset_config = {"output_type": "psa", **spec["dataset_config"], "data_keys_for_training": list(spec["keys"])}
    check_dataset_config({"weight_type": [], "weight_threshold": None, **dataset_config})
    store = store_path(manifest)
    for leftover in manifest.parent.glob(f".{store.name}.*"):
        shutil.rmtree(leftover)
    items = Items(split, dataset_config)
    partial, old = (manifest.parent / f".{store.name}.{name}" for name in ("partial", "old"))
    try:
        names = stored_arrays(spec["kind"], spec["keys"])
        description = _write_group(partial, encoded_items(items, dataset_config, names, workers))
        if store.exists():
            store.rename(old)
        partial.rename(store)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if old.exists():
        shutil.rmtree(old)
    description |= {"kind": spec["kind"], "split": manifest.stem, "items": list(items.names), "recipe": _plain(spec)}
    if manifest.exists() and files.read_json(manifest) == description:
        return  # its time stamp stays, so that nothing downstream takes a refilled cache for a new one
    files.write_json(manifest, description)


def _write_group(folder: Path, encoded: Iterator[EncodedItem]) -> dict[str, Any]:
    """Writes all arrays of a group and returns what the manifest says of them."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    appenders: dict[str, FrameAppender] = {}
    lengths, constants, first = [], [], None
    for item in encoded:
        if first is None:
            first = item
            appenders = {key: FrameAppender(folder / key, array) for key, array in item.arrays.items()}
        check_alike([first, item])
        for key, appender in appenders.items():
            appender.append(item.arrays[key])
        lengths.append((item.frames, item.samples))
        constants.append([getattr(item, key) for key in CONSTANTS])
    if first is None:
        raise UserError("expected at least one mixture to cache, found none")
    arrays = {key: appender.finish(group, key) for key, appender in appenders.items()}
    tables = {"lengths": np.array(lengths, dtype=np.int64)}
    tables |= dict(zip(CONSTANTS, np.array(constants, dtype=np.float64).T.copy(), strict=True))
    for name, values in tables.items():
        appender = FrameAppender(folder / name, values)
        appender.append(values)
        arrays[name] = appender.finish(group, name)
    num_frequencies, num_channels, num_sources = first.shape
    group.attrs.update({"magnitude_scale": MAGNITUDE_SCALE, "sources": list(first.sources)})
    checksums = "".join(f"{name} {arrays[name]['sha256']}\n" for name in sorted(arrays))
    return {
        "format": FORMAT,
        "count": len(lengths),
        "frames": int(tables["lengths"][:, 0].sum()),
        "samples": int(tables["lengths"][:, 1].sum()),
        "num_frequencies": num_frequencies,
        "num_channels": num_channels,
        "num_sources": num_sources,
        "sources": list(first.sources),
        "magnitude_scale": MAGNITUDE_SCALE,
        "frame_arrays": list(appenders),
        "arrays": arrays,
        "bytes": sum(array["bytes"] for array in arrays.values()),
        "checksum": hashlib.sha256(checksums.encode()).hexdigest(),
    }


def _plain(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec as JSON gives it back."""
    return json.loads(json.dumps(spec))
