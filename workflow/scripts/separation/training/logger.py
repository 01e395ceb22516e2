"""How a training tells of itself: log, terminal, TensorBoard, event log and progress file, each in its own words."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from separation.files.layout import PointFolder
from separation.machine.torch_device import describe_device
from separation.training.ddp import Processes
from separation.training.epoch_progress import Position
from separation.training.events import EventLog
from separation.training.history import Epoch, TensorBoard, write_history
from separation.training.progress_file import Progress, ProgressFile, TerminalLine, duration

# log lines are a training's, whoever writes them
logger = logging.getLogger("separation.training.loop")


class TrainingReport:
    """Tells how a training goes; of several processes one speaks for all, to the others this is silent.

    Args:
        folder: of the point.
        name: of the training, for the terminal.
        num_epochs: at most.
        device: on which it runs.
        processes: that train together.
    """

    def __init__(self, folder: Path, name: str, num_epochs: int, device: torch.device, processes: Processes):
        self._folder, self._num_epochs = folder, num_epochs
        self._speaks, self._count = processes.writes, processes.count
        self._device = describe_device(device, processes.count)
        self._progress = ProgressFile(PointFolder(folder).progress)
        self._events = EventLog(PointFolder(folder).events)
        self._terminal = TerminalLine(name)
        self._board: TensorBoard | None = None

    @property
    def due(self) -> bool:
        """Whether it is time for `state` again in the middle of an epoch."""
        return self._progress.due

    def begin(self, history: Sequence[Epoch], position: Position, steps: int, *, resumed: bool) -> None:
        """A training starts, or goes on after the epochs of its history."""
        if not self._speaks:
            return
        if resumed:
            write_history(self._folder / "history.csv", history)
            self._events.write("resumed", steps, epochs=len(history))
            within = f" and {position.batch} batches" if position.batch else ""
            logger.info("going on after epoch %d%s of %d", len(history), within, self._num_epochs)
        else:
            self._events.write("started", None, epochs=self._num_epochs)
            self.state("starting", history, position)
        self._board = TensorBoard(self._folder / "tensorboard", len(history))

    def step(self, number: int, epoch: int, loss: torch.Tensor, gradient_norm: torch.Tensor) -> None:
        """A step is done, counted over all epochs; `epoch` counts from 1."""
        if self._speaks:
            self._events.write("step", number, epoch=epoch, loss=float(loss), gradient_norm=float(gradient_norm))

    def epoch(self, history: Sequence[Epoch], position: Position, steps: int) -> None:
        """The last epoch of the history is over, after so many steps in all."""
        if not self._speaks:
            return
        row = history[-1]
        write_history(self._folder / "history.csv", history)
        self._events.write("epoch", row.epoch, **asdict(row), steps=steps)
        if self._board is not None:
            self._board.add(row)
        line = (
            f"epoch {row.epoch} of {self._num_epochs}: train loss {row.train_loss:.5f}, validation loss "
            f"{row.validation_loss:.5f}{' (best)' if row.best else ''}, learning rate {row.learning_rate:g}, "
            f"{row.seconds:.1f} s, {duration(self._seconds_left(history))} left"
        )
        logger.info("%s", line)
        self._terminal.tell(line)
        self.state("training", history, position)

    def finish(self, history: Sequence[Epoch], best_epoch: int) -> None:
        """The checkpoints are in place."""
        if not self._speaks:
            return
        # again: whoever waited for this point and was interrupted may have had it taken away
        write_history(self._folder / "history.csv", history)
        loss = history[best_epoch - 1].validation_loss
        self._events.write("finished", None, best_epoch=best_epoch, validation_loss=loss)
        logger.info("best epoch %d, validation loss %.5f", best_epoch, loss)
        self.state("finished", history, Position())

    def state(self, state: str, history: Sequence[Epoch], position: Position, batches: int = 0) -> None:
        """How far the training is, for `make status`; `batches` are those of the running epoch."""
        if not self._speaks:
            return
        done = position.batch / batches if batches else 0.0
        loss = float(position.totals[0]) * self._count / position.excerpts if position.steps else None
        if loss is None and history:
            loss = history[-1].train_loss
        self._progress.write(
            Progress(
                state=state,
                epoch=min(len(history) + (state != "finished"), self._num_epochs),
                num_epochs=self._num_epochs,
                step=position.batch,
                steps=batches,
                loss=loss if loss is None or math.isfinite(loss) else None,
                device=self._device,
                seconds_left=self._seconds_left(history, done, position.seconds) if history or done else None,
            )
        )

    def close(self) -> None:
        """Nothing more is told to TensorBoard."""
        if self._board is not None:
            self._board.close()

    def _seconds_left(self, history: Sequence[Epoch], done: float = 0.0, seconds: float = 0.0) -> float:
        """To the end of num_epochs at the rate so far, `done` of the running epoch being over after `seconds`."""
        epochs = [epoch.seconds for epoch in history] or [seconds / done]
        return max(0.0, self._num_epochs - len(history) - done) * sum(epochs) / len(epochs)
