"""Which excerpts make up an epoch, and their batches.

Every choice is a function of (seed, epoch, item): nothing depends on how many random numbers were drawn before. A
training that was stopped reads the same batches when it goes on, whatever the number of workers.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from separation.errors import UserError
from separation.features.store import BatchOptions, FeatureStore, Remix
from separation.machine.threads import single_threaded_workers

logger = logging.getLogger(__name__)

#: of the free memory of a GPU, how much a split may take; the network and its activations need the rest
DEVICE_SHARE = 0.5
SAMPLE_STRATEGIES = ("sequential", "random")
EXCERPT_SELECTION_STRATEGIES = ("random", "first", "middle")
# one stream of random numbers per kind of choice, so that a new kind leaves the others as they were
ORDER_STREAM, EXCERPT_STREAM, SUBSET_STREAM = range(3)
REMIX_STREAM = 4  # 3 is that of dropout, in separation.training.loop


@dataclass(frozen=True)
class EpochPlan:
    """The excerpts of one epoch in the order in which they are learned.

    Attributes:
        items: index of the item of each excerpt.
        starts: first frame of each, counted from the item's beginning.
        length: frames per excerpt.
        remix: new sources for some of them.
    """

    items: np.ndarray
    starts: np.ndarray
    length: int
    remix: Remix | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, excerpts: Any) -> EpochPlan:
        """The plan of some of its excerpts, by whatever indexes an array."""
        remix = self.remix and self.remix.take(excerpts)
        return EpochPlan(self.items[excerpts], self.starts[excerpts], self.length, remix)

    def batches(self, batch_size: int, first_batch: int = 0) -> Iterator[EpochPlan]:
        """The plan of each batch from `first_batch` on; the last may be smaller."""
        for first in range(first_batch * batch_size, len(self), batch_size):
            yield self.take(slice(first, first + batch_size))


def choose_subset(count: int, fraction: float, seed: int) -> np.ndarray:
    """The items that `fraction_of_dataset` leaves: ascending indices, at least one, the same for the same seed.

    A smaller fraction is a subset of a larger one, so that a sweep over it adds data and changes nothing else.
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
    remix: Mapping[str, Any] | None = None,
    num_sources: int = 0,
) -> EpochPlan:
    """One excerpt of each item.

    Args:
        frames: length of each item, in frames, (items,).
        length: of the excerpts, in frames; an item that is shorter starts at its beginning.
        seed, epoch: determine all random choices, each item's excerpt independently of the others and of the order.
        sample_strategy: sequential, or random for a new order in each epoch.
        excerpt_selection_strategy: random, first or middle.
        subset: indices of the items that take part; None for all.
        remix: dataset_config.remix: the share of the excerpts that is mixed anew (`probability`), of sources from items
            that are drawn one by one, and the limits of their gains in dB (`gain`). None for mixtures as they are.
        num_sources: of each item, where there is a remix.
    """
    for key, value, known in (
        ("train_config.sample_strategy", sample_strategy, SAMPLE_STRATEGIES),
        ("dataset_config.excerpt_selection_strategy", excerpt_selection_strategy, EXCERPT_SELECTION_STRATEGIES),
    ):
        if value not in known:
            raise UserError(f"expected one of {', '.join(known)}, found {value!r}", key=key)
    spare = np.maximum(np.asarray(frames) - length, 0)

    def start(spare: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if excerpt_selection_strategy == "random":
            return (generator.random(spare.shape) * (spare + 1)).astype(np.int64)
        return spare // 2 if excerpt_selection_strategy == "middle" else np.zeros_like(spare)

    starts = start(spare, np.random.default_rng([seed, EXCERPT_STREAM, epoch]))
    items = np.arange(len(spare)) if subset is None else np.asarray(subset)
    mixed = None
    if remix is not None:
        generator = np.random.default_rng([seed, REMIX_STREAM, epoch])
        chosen = generator.random(len(spare)) < remix["probability"]
        origins = generator.choice(items, (len(spare), num_sources))
        gains = generator.uniform(*remix["gain"], origins.shape)
        mixed = Remix(chosen, origins, start(spare[origins], generator), 10 ** (gains / 20))
    if sample_strategy == "random":
        items = np.random.default_rng([seed, ORDER_STREAM, epoch]).permutation(items)
    return EpochPlan(items, starts[items], length, mixed and mixed.take(items))


class BatchLoader:
    """Reads the batches of a plan as torch tensors.

    Args:
        store: where the items are. Where they fit into the memory of a GPU that learns from them, they are moved there.
        dataset_config: data_keys_for_training, weight_type and weight_threshold are read.
        batch_size: excerpts per batch.
        device: where the tensors go.
        num_workers: batches that are read ahead by as many threads; 0 reads each when it is asked for.
    """

    def __init__(
        self,
        store: FeatureStore,
        dataset_config: Mapping[str, Any],
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        num_workers: int = 0,
    ):
        self._device = torch.device(device)
        self._store = place(store, self._device)
        # what is cut on the device needs nobody to read ahead
        self._num_workers = 0 if self._store.device else num_workers
        self._batch_size, self._options = batch_size, BatchOptions.of(dataset_config)
        #: seconds spent waiting for batches since the last `load` began
        self.wait = 0.0

    def load(self, plan: EpochPlan, first_batch: int = 0) -> Iterator[dict[str, torch.Tensor]]:
        """Yields each batch: tensors by data key, see FeatureStore.excerpts.

        Args:
            plan: the epoch's excerpts.
            first_batch: how many batches to leave out, as learned before; none of them is read.
        """
        self.wait = 0.0
        chosen = plan.batches(self._batch_size, first_batch)
        batches = self._read_ahead(chosen) if self._num_workers else self._read(chosen)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is not None and self._decodes_here:
                raw = {key: tensor.to(self._device, non_blocking=True) for key, tensor in batch.items()}
                batch = self._store.decode(raw, plan.length, self._options)
            self.wait += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def _read(self, chosen: Iterator[EpochPlan]) -> Iterator[dict[str, torch.Tensor]]:
        return (self._excerpts(batch) for batch in chosen)

    def _read_ahead(self, chosen: Iterator[EpochPlan]) -> Iterator[dict[str, torch.Tensor]]:
        # the work on one batch is not shared out: workers that use all processors would slow the training down
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
        """A batch; a GPU gets it undecoded, which is a fraction of the bytes."""
        raw = self._store.read(batch.items, batch.starts, batch.length, self._options, batch.remix)
        if not self._decodes_here:
            return self._store.decode(raw, batch.length, self._options)
        # pinned memory lets the copy to a GPU run beside the computation
        return raw if self._store.device else {key: tensor.pin_memory() for key, tensor in raw.items()}

    @property
    def _decodes_here(self) -> bool:
        return self._device.type == "cuda"


def place(store: FeatureStore, device: torch.device) -> FeatureStore:
    """The store in the memory of the GPU that learns from it, where it takes no more than half of what is free there.

    Batches are the same wherever they are cut.
    """
    if device.type != "cuda" or store.device is not None:
        return store
    free, _ = torch.cuda.mem_get_info(device)
    if store.nbytes > free * DEVICE_SHARE:
        logger.info("%.1f GB do not fit into %.1f GB that are free on %s", store.nbytes / 1e9, free / 1e9, device)
        return store
    return store.on_device(device)
