"""The processes that train one point together: one, or several with a GPU each (DistributedDataParallel)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce

from separation.training.batches import EpochPlan


class Processes:
    """This process and the others of its training. On its own, all of this costs nothing.

    Attributes:
        rank: of this process, from 0; 0 is the one that writes files.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank, self.count = rank, count

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network to be trained: its gradients are averaged over the processes."""
        if self.count == 1:
            return model
        places = [device] if device.type == "cuda" else None
        # outputs that no loss looks at leave parameters without a gradient
        return nn.parallel.DistributedDataParallel(model, device_ids=places, find_unused_parameters=True)

    def without_exchange(self, network: nn.Module) -> Any:
        """The context for gradients that are added to later ones before they are exchanged."""
        return nullcontext() if self.count == 1 else network.no_sync()

    def share(self, plan: EpochPlan, batch_size: int) -> EpochPlan:
        """What this process reads of a plan whose steps have batch_size x count excerpts.

        Every process has the same number of batches; where the last step has fewer excerpts than there are processes,
        those without one read the first, which `excerpts` then does not count.
        """
        if self.count == 1:
            return plan
        kept = [
            np.arange(len(plan))[first : first + batch_size * self.count][self.rank :: self.count]
            for first in range(0, len(plan), batch_size * self.count)
        ]
        kept = np.concatenate([own if len(own) else np.array([0]) for own in kept])
        return plan.take(kept)

    def excerpts(self, plan: EpochPlan, batch_size: int) -> tuple[list[int], list[int]]:
        """For each step, how many excerpts this process reads and how many all read together."""
        size = batch_size * self.count
        together = [min(size, len(plan) - first) for first in range(0, len(plan), size)]
        return [len(range(self.rank, number, self.count)) for number in together], together

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Which flags are set in some process: all have to agree on when to stop."""
        if self.count == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in the order of their ranks."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found


@contextmanager
def processes_of_torchrun(device_type: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started: nccl where they have GPUs, else gloo."""
    backend = "nccl" if device_type == "cuda" else "gloo"
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device_type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(backend)
    try:
        yield Processes(rank, count)
    finally:
        torch.distributed.destroy_process_group()


def share_batch_norm(model: nn.Module) -> list[SharedBatchNorm]:
    """Lets batch normalization see the batches of all processes, as one process with the whole batch does.

    torch.nn.SyncBatchNorm does so on GPUs alone. The layers stay where they are, and so do the names of their weights.
    """
    shared = []
    for layer in model.modules():
        if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
            layer.forward = SharedBatchNorm(layer)
            shared.append(layer.forward)
    return shared


class SharedBatchNorm:
    """The forward pass of a batch normalization over all processes.

    Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift",
    ICML 2015, with moments summed over the processes; running statistics as torch keeps them.

    Attributes:
        counts: whether the batch of this process counts, see `Processes.share`.
    """

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm):
        self._layer = layer
        self.counts = True

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        layer = self._layer
        if not layer.training:
            return type(layer).forward(layer, values)
        dims = [dim for dim in range(values.dim()) if dim != 1]
        count = torch.full((1,), values.numel() / values.shape[1], dtype=torch.float32, device=values.device)
        wide = values.float()
        sums = torch.cat([wide.sum(dims), (wide**2).sum(dims), count])
        sums = all_reduce(sums if self.counts else sums * 0)
        number = sums[-1]
        mean, square = (sums[:-1] / number).chunk(2)
        variance = (square - mean**2).clamp(min=0)
        if layer.track_running_stats:
            with torch.no_grad():
                layer.num_batches_tracked += 1
                share = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
                layer.running_mean.lerp_(mean.detach(), share)
                layer.running_var.lerp_(variance.detach() * number / (number - 1).clamp(min=1), share)
        shape = [1, -1] + [1] * (values.dim() - 2)
        scaled = (wide - mean.view(shape)) * torch.rsqrt(variance.view(shape) + layer.eps)
        if layer.affine:
            scaled = scaled * layer.weight.view(shape) + layer.bias.view(shape)
        return scaled.to(values.dtype)
