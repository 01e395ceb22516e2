"""Data of a training run from its settings: lengths of excerpts and features of the splits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.data.items import Items
from separation.errors import UserError
from separation.experiment.options import DatasetOptions, TrainingOptions
from separation.features.cache import ensure_cache
from separation.features.encoding import encoded_items, stored_arrays
from separation.features.store import FeatureStore

logger = logging.getLogger(__name__)

#: splits with fewer bytes of features are read into memory at once; larger ones are read from the cache batch by batch
IN_MEMORY_BYTES = 2**30


def excerpt_lengths(training: TrainingOptions, dataset: DatasetOptions) -> list[int]:
    """Frames per training excerpt in each epoch, from initial_length and curriculum_learning.

    A step with `num_epoch: n` takes effect after n epochs; 0 is from the start.
    """
    length = training.initial_length or dataset.length
    lengths = []
    for epoch in range(training.num_epochs):
        for step in training.curriculum_learning:
            if step["command"] != "set_current_length":
                raise UserError(
                    f"expected the command set_current_length, found {step['command']!r}",
                    key="train_config.curriculum_learning",
                )
            if step["num_epoch"] == epoch:
                (length,) = step["args"]
        lengths.append(int(length))
    return lengths


def open_store(options: DatasetOptions, split: Mapping[str, Any], manifest: Path | None, threads: int) -> FeatureStore:
    """The features of a split, from its cache (filled again if it is damaged) or computed from its mixtures."""
    if manifest is not None:
        store = ensure_cache(manifest, split, threads)
    else:
        names = stored_arrays(options.cache_kind, options.data_keys_for_training)
        encoded = encoded_items(Items(split, options), options, names, threads)
        store = FeatureStore.from_items(encoded, options)
    logger.info("%s: %d items, %.1f MB of features", split["folder"], len(store), store.nbytes / 1e6)
    return store.in_memory() if store.nbytes <= IN_MEMORY_BYTES else store
