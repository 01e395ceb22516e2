"""What a training is made of, from its configuration: device, data, lengths of excerpts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.data.items import Items
from separation.errors import UserError
from separation.features.cache import ensure_cache
from separation.features.encoding import encoded_items, stored_arrays
from separation.features.store import FeatureStore

logger = logging.getLogger(__name__)

#: a split whose features are smaller than this is read into memory once; larger ones stay mapped from the cache
IN_MEMORY_BYTES = 2**30


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
