"""Learning curves of a training run: history.csv and TensorBoard events."""

from __future__ import annotations

import csv
import io
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from separation.files import atomic


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean loss over the excerpts of the epoch, with the weights at the time of each step.
        validation_loss: Mean loss over the validation excerpts after the epoch.
        learning_rate: Learning rate of the last step.
        gradient_norm: Mean over the steps, before clipping.
        seconds: Wall time of the epoch, with validation.
        samples_per_second: Training excerpts per second, without validation.
        loader_wait_share: Share of the training time spent waiting for batches, 0 to 1.
        memory_mb: Peak memory of the process so far, of the GPU if it trains on one.
        best: Whether the validation loss is lower than in all epochs before.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    samples_per_second: float
    loader_wait_share: float
    memory_mb: float
    best: bool


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process so far, MB: on the GPU for a GPU, else on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def write_history(path: Path, epochs: Sequence[Epoch]) -> None:
    """Writes history.csv, atomically; losses and rates are written in full precision."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    table.writeheader()
    for epoch in epochs:
        row = asdict(epoch)
        times = {key: round(row[key], 4) for key in ("seconds", "samples_per_second", "loader_wait_share", "memory_mb")}
        table.writerow(row | times)
    atomic.write_text(path, text.getvalue())


class TensorBoard:
    """Writes one event per epoch and value; a resumed training hides events after the epoch it resumes from.

    Args:
        folder: Folder of the event files.
        finished_epochs: Finished epochs of the training run so far.
    """

    def __init__(self, folder: Path, finished_epochs: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=finished_epochs + 1 if finished_epochs else None)

    def add(self, epoch: Epoch) -> None:
        for tag, value in (
            ("train/loss", epoch.train_loss),
            ("validation/loss", epoch.validation_loss),
            ("train/learning_rate", epoch.learning_rate),
            ("train/gradient_norm", epoch.gradient_norm),
            ("time/samples_per_second", epoch.samples_per_second),
            ("time/loader_wait_share", epoch.loader_wait_share),
            ("time/memory_mb", epoch.memory_mb),
        ):
            self._writer.add_scalar(tag, value, epoch.epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
