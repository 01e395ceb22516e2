"""State needed to resume in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from separation.training.ddp import ProcessGroup

_COUNTERS = ("batch", "steps", "excerpts", "seconds", "wait")


@dataclass
class EpochProgress:
    """Progress of the running epoch.

    Attributes:
        batch: Batches that this process has trained on.
        steps: Steps of the optimizer.
        excerpts: Excerpts that all processes have trained on.
        totals: Sums over the steps of loss x excerpts and of the gradient's norm, of this process, (2,), float64 on
            the device; None before the epoch begins.
        seconds: Seconds of training.
        wait: Part of `seconds` spent waiting for batches.
    """

    batch: int = 0
    steps: int = 0
    excerpts: int = 0
    totals: torch.Tensor | None = None
    seconds: float = 0.0
    wait: float = 0.0

    def state_dict(self, processes: ProcessGroup, device: torch.device) -> dict[str, Any] | None:
        """The progress of all processes for a checkpoint; None between two epochs."""
        if self.totals is None:
            return None
        local_state = {"totals": self.totals.tolist(), "random": torch.get_rng_state()}
        if device.type == "cuda":
            local_state["random_cuda"] = torch.cuda.get_rng_state(device)
        counters = {key: getattr(self, key) for key in _COUNTERS}
        return {**counters, "processes": processes.gather(local_state)}

    @classmethod
    def restored(cls, saved: dict[str, Any] | None, processes: ProcessGroup, device: torch.device) -> EpochProgress:
        """The progress in a checkpoint; also restores the random generators."""
        if saved is None:
            return cls()
        local_state = saved["processes"][processes.rank]
        torch.set_rng_state(local_state["random"])
        if device.type == "cuda" and "random_cuda" in local_state:
            torch.cuda.set_rng_state(local_state["random_cuda"], device)
        counters = {key: saved[key] for key in _COUNTERS}
        return cls(totals=torch.tensor(local_state["totals"], dtype=torch.float64, device=device), **counters)


def chunked(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last list may be shorter."""
    while group := list(islice(batches, size)):
        yield group
