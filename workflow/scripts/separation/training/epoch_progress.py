"""How far an epoch is: what a training has to know, besides its weights, to go on in the middle of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from separation.training.ddp import Processes


@dataclass
class Position:
    """How far the running epoch is.

    Attributes:
        batch: batches of this process that are learned.
        steps: steps of the optimizer.
        excerpts: learned, of all processes.
        totals: sums over the steps of loss x excerpts and of the gradient's norm, of this process, (2,), float64 on
            the device; None where the epoch has not begun.
        seconds: of learning.
        wait: seconds of those spent waiting for batches.
    """

    batch: int = 0
    steps: int = 0
    excerpts: int = 0
    totals: torch.Tensor | None = None
    seconds: float = 0.0
    wait: float = 0.0

    def gathered(self, processes: Processes, device: torch.device) -> dict[str, Any] | None:
        """All that a checkpoint needs of this position, of all processes; None between two epochs."""
        if self.totals is None:
            return None
        own = {"totals": self.totals.tolist(), "random": torch.get_rng_state()}
        if device.type == "cuda":
            own["random_cuda"] = torch.cuda.get_rng_state(device)
        numbers = {key: getattr(self, key) for key in ("batch", "steps", "excerpts", "seconds", "wait")}
        return {**numbers, "processes": processes.gather(own)}

    @classmethod
    def restored(cls, saved: dict[str, Any] | None, processes: Processes, device: torch.device) -> Position:
        """The position of a checkpoint; sets the random generators to where they were."""
        if saved is None:
            return cls()
        own = saved["processes"][processes.rank]
        torch.set_rng_state(own["random"])
        if device.type == "cuda" and "random_cuda" in own:
            torch.cuda.set_rng_state(own["random_cuda"], device)
        numbers = {key: saved[key] for key in ("batch", "steps", "excerpts", "seconds", "wait")}
        return cls(totals=torch.tensor(own["totals"], dtype=torch.float64, device=device), **numbers)


def groups_of(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches, the last one of those that are left."""
    while group := list(islice(batches, size)):
        yield group
