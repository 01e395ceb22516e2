"""Processes that train one point together: one, or several with a GPU each (DistributedDataParallel)."""

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


class ProcessGroup:
    """This process and the other processes of its training; a single process has no overhead.

    Attributes:
        rank: Number of this process, from 0; process 0 writes the files.
        count: Number of processes.
    """

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank, self.count = rank, count

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network to train, whose gradients are averaged over the processes."""
        if self.count == 1:
            return model
        devices = [device] if device.type == "cuda" else None
        # outputs that no loss uses leave parameters without a gradient
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)

    def no_sync(self, network: nn.Module) -> Any:
        """The context for gradients that are accumulated locally, see DistributedDataParallel.no_sync."""
        return nullcontext() if self.count == 1 else network.no_sync()

    def share(self, plan: EpochPlan, batch_size: int) -> EpochPlan:
        """The part of a plan that this process reads; each step has batch_size x count excerpts in all.

        Every process has the same number of batches. If the last step has fewer excerpts than there are processes, the
        processes without one read the first excerpt of the plan, which `excerpts` does not count.
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
        """The number of excerpts in each step: those of this process, and those of all processes."""
        size = batch_size * self.count
        together = [min(size, len(plan) - first) for first in range(0, len(plan), size)]
        return [len(range(self.rank, number, self.count)) for number in together], together

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Whether each flag is set in any process, so that all processes agree on when to stop."""
        if self.count == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found


@contextmanager
def torchrun_process_group(device_type: str) -> Iterator[ProcessGroup]:
    """Joins the processes that torchrun started, by nccl on GPUs and gloo on CPUs."""
    backend = "nccl" if device_type == "cuda" else "gloo"
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device_type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(backend)
    try:
        yield ProcessGroup(rank, count)
    finally:
        torch.distributed.destroy_process_group()


def share_batch_norm(model: nn.Module) -> list[SharedBatchNorm]:
    """Makes batch normalization use the batches of all processes, like one process with the whole batch.

    torch.nn.SyncBatchNorm does this on GPUs only. The layers stay in the network, and so do the names of their weights.
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
        counts: Whether the batch of this process counts, see `ProcessGroup.share`.
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
