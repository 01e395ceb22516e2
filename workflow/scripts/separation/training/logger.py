"""Training logger: log file, terminal, TensorBoard, event log, progress file."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from separation.files.layout import PointFolder
from separation.machine.torch_device import describe_device
from separation.training.ddp import ProcessGroup
from separation.training.epoch_progress import EpochProgress
from separation.training.events import EventLog
from separation.training.history import Epoch, TensorBoard, write_history
from separation.training.progress_file import Progress, ProgressFile, rough_duration

logger = logging.getLogger(__name__)

#: least seconds between two lines of a training run on a terminal that several of them share
LINE_INTERVAL = 30.0


class TrainingLogger:
    """Logs a training run; of several processes, only the main process logs.

    Args:
        folder: Folder of the point.
        name: Name shown in the terminal.
        num_epochs: Maximum number of epochs.
        device: Device of the training run.
        processes: Processes that train together.
    """

    def __init__(self, folder: PointFolder, name: str, num_epochs: int, device: torch.device, processes: ProcessGroup):
        self._folder, self._num_epochs = folder, num_epochs
        self._is_main, self._count = processes.is_main, processes.count
        self._device = describe_device(device, processes.count)
        self._progress = ProgressFile(folder.progress)
        self._events = EventLog(folder.events)
        self._terminal = TerminalLine(name)
        self._board: TensorBoard | None = None

    @property
    def progress_due(self) -> bool:
        """Whether to call `progress` again in the middle of an epoch."""
        return self._progress.due

    def begin(self, history: Sequence[Epoch], progress: EpochProgress, steps: int, *, resumed: bool) -> None:
        """Logs that training starts, or resumes after the epochs of its history and `steps` steps in all."""
        if not self._is_main:
            return
        if resumed:
            write_history(self._folder.history, history)
            self._events.write("resumed", steps, epochs=len(history))
            within = f" and {progress.batch} batches" if progress.batch else ""
            logger.info("resuming after epoch %d%s of %d", len(history), within, self._num_epochs)
        else:
            self._events.write("started", None, epochs=self._num_epochs)
            self.progress("starting", history, progress)
        self._board = TensorBoard(self._folder.tensorboard, len(history))

    def step(self, number: int, epoch: int, loss: torch.Tensor, gradient_norm: torch.Tensor) -> None:
        """Logs a step, counted over all epochs; `epoch` counts from 1."""
        if self._is_main:
            self._events.write("step", number, epoch=epoch, loss=float(loss), gradient_norm=float(gradient_norm))

    def epoch(self, history: Sequence[Epoch], progress: EpochProgress, steps: int) -> None:
        """Logs the last epoch of the history, after `steps` steps in all."""
        if not self._is_main:
            return
        row = history[-1]
        write_history(self._folder.history, history)
        self._events.write("epoch", row.epoch, **asdict(row), steps=steps)
        if self._board is not None:
            self._board.add(row)
        line = (
            f"epoch {row.epoch} of {self._num_epochs}: train loss {row.train_loss:.5f}, validation loss "
            f"{row.validation_loss:.5f}{' (best)' if row.best else ''}, learning rate {row.learning_rate:g}, "
            f"{row.seconds:.1f} s, {rough_duration(self._seconds_left(history))} left"
        )
        logger.info("%s", line)
        self._terminal.print(line)
        self.progress("training", history, progress)

    def finish(self, history: Sequence[Epoch], best_epoch: int) -> None:
        """Logs the end of training, after its checkpoints are written."""
        if not self._is_main:
            return
        # again: Snakemake removes it where another workflow, waiting for this point, was interrupted
        write_history(self._folder.history, history)
        loss = history[best_epoch - 1].validation_loss
        self._events.write("finished", None, best_epoch=best_epoch, validation_loss=loss)
        logger.info("best epoch %d, validation loss %.5f", best_epoch, loss)
        self.progress("finished", history, EpochProgress())

    def progress(self, state: str, history: Sequence[Epoch], progress: EpochProgress, batches: int = 0) -> None:
        """Writes the progress file for `make status`; `batches` is the number of batches of the running epoch."""
        if not self._is_main:
            return
        done = progress.batch / batches if batches else 0.0
        loss = float(progress.totals[0]) * self._count / progress.excerpts if progress.steps else None
        if loss is None and history:
            loss = history[-1].train_loss
        self._progress.write(
            Progress(
                state=state,
                epoch=min(len(history) + (state != "finished"), self._num_epochs),
                num_epochs=self._num_epochs,
                step=progress.batch,
                steps=batches,
                loss=loss if loss is None or math.isfinite(loss) else None,
                device=self._device,
                seconds_left=self._seconds_left(history, done, progress.seconds) if history or done else None,
            )
        )

    def close(self) -> None:
        """Closes the TensorBoard writer."""
        if self._board is not None:
            self._board.close()

    def _seconds_left(self, history: Sequence[Epoch], done: float = 0.0, seconds: float = 0.0) -> float:
        """Seconds to the end of num_epochs at the mean rate so far.

        Args:
            history: Finished epochs.
            done: Finished share of the running epoch.
            seconds: Seconds of the running epoch so far.
        """
        epochs = [epoch.seconds for epoch in history] or [seconds / done]
        return max(0.0, self._num_epochs - len(history) - done) * sum(epochs) / len(epochs)


class TerminalLine:
    """Prints progress on standard error, for the terminal of the workflow, at most every LINE_INTERVAL seconds.

    Args:
        name: Name of the training run, the start of each line.
    """

    def __init__(self, name: str):
        self._name, self._next = name, time.monotonic() + LINE_INTERVAL

    def print(self, text: str) -> None:
        """Prints a line, unless the previous one is too recent."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL
            print(f"{self._name}: {text}", file=sys.stderr, flush=True)
