"""Excerpts of an epoch and their batches.

Every choice is a function of (seed, epoch, item): nothing depends on how many random numbers were drawn before. So a
resumed training reads the same batches, with any number of workers.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from separation.errors import UserError
from separation.experiment.options import DatasetOptions, RemixOptions
from separation.features.decode import BatchOptions
from separation.features.store import FeatureStore, Remix
from separation.machine.threads import single_threaded_workers

logger = logging.getLogger(__name__)

#: share of a GPU's free memory that a split may take; the network and its activations need the rest
DEVICE_SHARE = 0.5
SAMPLE_STRATEGIES = ("sequential", "random")
EXCERPT_SELECTION_STRATEGIES = ("random", "first", "middle")
# one stream of random numbers per kind of choice, so that a new kind does not change the others
ORDER_STREAM, EXCERPT_STREAM, SUBSET_STREAM = range(3)
REMIX_STREAM = 4  # 3 is for dropout, in separation.training.loop


@dataclass(frozen=True)
class EpochPlan:
    """The excerpts of one epoch in training order.

    Attributes:
        items: Index of the item of each excerpt.
        starts: First frame of each excerpt, counted from the start of the item.
        length: Frames per excerpt.
        remix: New sources for some excerpts.
    """

    items: np.ndarray
    starts: np.ndarray
    length: int
    remix: Remix | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, excerpts: Any) -> EpochPlan:
        """The plan of some excerpts, selected by any index of an array."""
        remix = self.remix and self.remix.take(excerpts)
        return EpochPlan(self.items[excerpts], self.starts[excerpts], self.length, remix)

    def batches(self, batch_size: int, first_batch: int = 0) -> Iterator[EpochPlan]:
        """The plan of each batch from `first_batch` on; the last may be smaller."""
        for first in range(first_batch * batch_size, len(self), batch_size):
            yield self.take(slice(first, first + batch_size))


def choose_subset(count: int, fraction: float, seed: int) -> np.ndarray:
    """Indices of the items that `fraction_of_dataset` selects, ascending, at least one, determined by the seed.

    A smaller fraction selects a subset of a larger one, so that a sweep over it only adds data.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"expected above 0 and up to 1, found {fraction}", key="dataset_config.fraction_of_dataset")
    order = np.random.default_rng([seed, SUBSET_STREAM]).permutation(count)
    return np.sort(order[: max(1, round(fraction * count))])


def plan_epoch(
    frames: np.ndarray,
    *,
    length: int,
    seed: int,
    epoch: int,
    sample_strategy: str,
    excerpt_selection_strategy: str,
    subset: np.ndarray | None = None,
    remix: RemixOptions | None = None,
    num_sources: int = 0,
) -> EpochPlan:
    """A plan with one excerpt of each item.

    Args:
        frames: Length of each item, in frames, (items,).
        length: Length of the excerpts, in frames; the excerpt of a shorter item is the whole item.
        seed, epoch: Determine all random choices; the excerpt of an item depends neither on the others nor on the
            order.
        sample_strategy: sequential, or random for a new order in each epoch.
        excerpt_selection_strategy: random, first or middle.
        subset: Indices of the items to use; None for all.
        remix: How excerpts are remixed from sources of random items; None for mixtures as they are.
        num_sources: Number of sources of each item, if there is a remix.
    """
    for key, value, known in (
        ("train_config.sample_strategy", sample_strategy, SAMPLE_STRATEGIES),
        ("dataset_config.excerpt_selection_strategy", excerpt_selection_strategy, EXCERPT_SELECTION_STRATEGIES),
    ):
        if value not in known:
            raise UserError(f"expected one of {', '.join(known)}, found {value!r}", key=key)
    spare = np.maximum(np.asarray(frames) - length, 0)

    def choose_starts(spare: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if excerpt_selection_strategy == "random":
            return (generator.random(spare.shape) * (spare + 1)).astype(np.int64)
        return spare // 2 if excerpt_selection_strategy == "middle" else np.zeros_like(spare)

    starts = choose_starts(spare, np.random.default_rng([seed, EXCERPT_STREAM, epoch]))
    items = np.arange(len(spare)) if subset is None else np.asarray(subset)
    remixed = None
    if remix is not None:
        generator = np.random.default_rng([seed, REMIX_STREAM, epoch])
        chosen = generator.random(len(spare)) < remix.probability
        origins = generator.choice(items, (len(spare), num_sources))
        gains = generator.uniform(*remix.gain, origins.shape)
        remixed = Remix(chosen, origins, choose_starts(spare[origins], generator), 10 ** (gains / 20))
    if sample_strategy == "random":
        items = np.random.default_rng([seed, ORDER_STREAM, epoch]).permutation(items)
    return EpochPlan(items, starts[items], length, remixed and remixed.take(items))


class BatchLoader:
    """Reads the batches of a plan as torch tensors.

    Args:
        store: Items of the split; moved to the GPU that trains on them if they fit in its memory.
        options: Contents of a batch.
        batch_size: Excerpts per batch.
        device: Device of the tensors.
        num_workers: Number of threads that read batches ahead; 0 reads each batch on request.
    """

    def __init__(
        self,
        store: FeatureStore,
        options: DatasetOptions,
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        num_workers: int = 0,
    ):
        self._device = torch.device(device)
        self._store = move_if_it_fits(store, self._device)
        # a store on the device cuts its excerpts there: no need to read ahead
        self._num_workers = 0 if self._store.device else num_workers
        self._batch_size, self._options = batch_size, BatchOptions.of(options)
        #: seconds spent waiting for batches since the last call of `load`
        self.wait = 0.0

    def load(self, plan: EpochPlan, first_batch: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """Yields the batches of a plan: tensors by data key, see FeatureStore.excerpts.

        Args:
            plan: Excerpts of the epoch.
            first_batch: Number of batches to skip, which a resumed epoch is past; they are not read.
        """
        self.wait = 0.0
        chosen = plan.batches(self._batch_size, first_batch)
        batches = self._read_ahead(chosen) if self._num_workers else self._read(chosen)
        while True:
            requested = time.perf_counter()
            batch = next(batches, None)
            if batch is not None and self._decodes_on_gpu:
                raw = {key: tensor.to(self._device, non_blocking=True) for key, tensor in batch.items()}
                batch = self._store.decode(raw, plan.length, self._options)
            self.wait += time.perf_counter() - requested
            if batch is None:
                return
            yield batch

    def _read(self, chosen: Iterator[EpochPlan]) -> Iterator[dict[str, torch.Tensor]]:
        return (self._excerpts(batch) for batch in chosen)

    def _read_ahead(self, chosen: Iterator[EpochPlan]) -> Iterator[dict[str, torch.Tensor]]:
        # one thread per batch: workers on all processors would slow the training down
        with single_threaded_workers(self._num_workers) as pool:
            jobs = (pool.submit(self._excerpts, batch) for batch in chosen)
            pending = deque(islice(jobs, 2 * self._num_workers))
            try:
                while pending:
                    batch = pending.popleft().result()
                    pending.extend(islice(jobs, 1))
                    yield batch
            finally:
                for job in pending:
                    job.cancel()

    def _excerpts(self, batch: EpochPlan) -> dict[str, torch.Tensor]:
        """A batch; for a GPU undecoded, which is a fraction of the bytes to copy."""
        raw = self._store.read(batch.items, batch.starts, batch.length, self._options, batch.remix)
        if not self._decodes_on_gpu:
            return self._store.decode(raw, batch.length, self._options)
        # from pinned memory, the copy to a GPU overlaps with computation
        return raw if self._store.device else {key: tensor.pin_memory() for key, tensor in raw.items()}

    @property
    def _decodes_on_gpu(self) -> bool:
        return self._device.type == "cuda"


def move_if_it_fits(store: FeatureStore, device: torch.device) -> FeatureStore:
    """The store, moved to a GPU's memory if it takes at most DEVICE_SHARE of the GPU's free memory.

    The batches are the same in both cases.
    """
    if device.type != "cuda" or store.device is not None:
        return store
    free, _ = torch.cuda.mem_get_info(device)
    if store.nbytes > free * DEVICE_SHARE:
        logger.info("%.1f GB do not fit in the %.1f GB free on %s", store.nbytes / 1e9, free / 1e9, device)
        return store
    return store.on_device(device)
