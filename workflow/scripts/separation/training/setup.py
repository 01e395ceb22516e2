"""What a training is made of, from its configuration: device, data, lengths of excerpts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from separation.data.items import Items
from separation.errors import UserError
from separation.features.cache import ensure_cache
from separation.features.encoding import encoded_items, stored_arrays
from separation.features.store import FeatureStore

logger = logging.getLogger(__name__)

#: a split whose features are smaller than this is read into memory once; larger ones stay mapped from the cache
IN_MEMORY_BYTES = 2**30


def find_device(device: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:<n>; UserError where it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"expected auto, cpu or cuda, found {device!r}", key="train_config.device") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"expected a GPU that torch can use for {device!r}, found none", key="train_config.device")
    return place


def excerpt_lengths(config: Mapping[str, Any]) -> list[int]:
    """Frames per training excerpt in each epoch, by initial_length and curriculum_learning.

    `num_epoch: n` acts once n epochs are done, so 0 acts from the beginning.
    """
    train_config = config["train_config"]
    length = train_config.get("initial_length") or config["dataset_config"]["length"]
    lengths = []
    for epoch in range(train_config["num_epochs"]):
        for step in train_config.get("curriculum_learning") or []:
            if step["command"] != "set_current_length":
                raise UserError(
                    f"expected the command set_current_length, found {step['command']!r}",
                    key="train_config.curriculum_learning",
                )
            if step["num_epoch"] == epoch:
                (length,) = step["args"]
        lengths.append(int(length))
    return lengths


def describe_device(device: torch.device, count: int = 1) -> str:
    """A device for people: cpu, 2 x cpu, cuda:0 (NVIDIA H200)."""
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    return name if count == 1 else f"{count} x {name}"


def open_store(
    config: Mapping[str, Any], split: Mapping[str, Any], manifest: Path | None, threads: int
) -> FeatureStore:
    """The features of a split: from its cache, filled again where it is damaged, or computed from its mixtures."""
    if manifest is not None:
        store = ensure_cache(manifest, split, threads)
    else:
        dataset_config = config["dataset_config"]
        names = stored_arrays(dataset_config["cache_kind"], dataset_config["data_keys_for_training"])
        encoded = encoded_items(Items(split, dataset_config), dataset_config, names, threads)
        store = FeatureStore.from_items(encoded, dataset_config)
    logger.info("%s: %d items, %.1f MB of features", split["folder"], len(store), store.nbytes / 1e6)
    return store.in_memory() if store.nbytes <= IN_MEMORY_BYTES else store


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads; the process gets its own settings back.

    Numbers too small for a normal float count as 0: at a high learning rate a network whose sigmoids are saturated is
    full of them, and a processor takes half as long again for a step.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # on a GPU some operations have no deterministic form; they are told in the log and used
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
