"""Training of one point: nussl's networks and losses in a loop that can be interrupted at any moment.

The loop follows nussl's trainer: in each epoch, steps of the optimizer, a validation, and the learning-rate schedule;
the network with the lowest validation loss is kept. It is written out here because training resumes from its last
checkpoint and ends, on a CPU, in the same weights bit for bit as an uninterrupted one. So nothing depends on how many
random numbers were drawn before: excerpts and their order follow from (seed, epoch, item), dropout from (seed, epoch)
and, within an epoch, from the state of the generator in the checkpoint.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from separation.errors import UserError
from separation.experiment.options import PointOptions
from separation.features.spectra import check_features
from separation.features.store import FeatureStore
from separation.files.layout import PointFolder
from separation.losses.combined import CombinedLoss
from separation.machine.signals import Stopped, StopRequest
from separation.machine.torch_device import find_device, reproducible
from separation.networks.build import build_model, without_unit_norm
from separation.training.batches import BatchLoader, EpochPlan, choose_subset, plan_epoch
from separation.training.checkpoints import accepted_fingerprints, fingerprint, load_state, save_model, save_state
from separation.training.ddp import ProcessGroup, share_batch_norm
from separation.training.epoch_progress import EpochProgress, chunked
from separation.training.history import Epoch, peak_memory
from separation.training.logger import TrainingLogger
from separation.training.optimizer import Optimization
from separation.training.setup import excerpt_lengths, open_store
from separation.training.user_modules import load_extras

logger = logging.getLogger(__name__)

#: stream of random numbers for dropout; separation.training.batches has the others
DROPOUT_STREAM = 3
#: steps between two checks of loss and stop requests on a GPU, as each check waits for the device
STEPS_BETWEEN_CHECKS = 16


def train_point(
    options: PointOptions,
    *,
    folder: Path,
    splits: Mapping[str, Mapping[str, Any]],
    caches: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
    processes: ProcessGroup | None = None,
) -> None:
    """Trains one point, or resumes its training, and writes its checkpoints.

    Writes into `folder`: history.csv (see separation.training.history.Epoch), tensorboard/, state/ (to resume) and, at
    the end, checkpoints/best.model.pth (lowest validation loss) and checkpoints/latest.model.pth.

    Args:
        options: Settings of the point.
        folder: ARTIFACTS/<point>.
        splits: Mixtures of both splits, {"train": {"folder", "class"}, "val": {...}}.
        caches: Manifests of the caches, {"train": path, "val": path}; None to compute features from the mixtures at
            the start. The weights do not depend on it.
        device: auto, cpu, cuda or cuda:<n>.
        threads: Threads of torch on the CPU, and number of workers if a cache has to be filled again.
        processes: Processes that train this point together; None for a single process.

    Raises:
        UserError: The settings are invalid, the loss is not finite, or the state cannot be written.
        Stopped: A signal requested a stop; the state is saved.
    """
    torch_device = find_device(device)
    load_extras(options)
    check_features(options.dataset)
    with reproducible(threads, torch_device):
        stores = {
            name: open_store(options.dataset, splits[name], caches and caches[name], threads)
            for name in ("train", "val")
        }
        _Training(options, PointFolder(Path(folder)), splits, stores, torch_device, processes or ProcessGroup()).run()


class _Training:
    """One training from its first to its last epoch."""

    def __init__(
        self,
        options: PointOptions,
        folder: PointFolder,
        splits: Mapping[str, Mapping[str, Any]],
        stores: Mapping[str, FeatureStore],
        device: torch.device,
        processes: ProcessGroup,
    ):
        self.options, self.training, self.dataset = options, options.training, options.dataset
        self.folder, self.splits, self.stores = folder, splits, stores
        self.device, self.processes = device, processes
        if self.training.class_ != "Trainer":
            raise UserError(f"expected Trainer, found {self.training.class_!r}", key="train_config.class")
        # data
        self.lengths = excerpt_lengths(self.training, self.dataset)
        self.subset = choose_subset(len(stores["train"]), self.dataset.fraction_of_dataset, options.seed)
        self.loaders = {
            name: BatchLoader(
                store,
                self.dataset,
                batch_size=self.training.batch_size,
                device=device,
                num_workers=self.training.num_workers,
            )
            for name, store in stores.items()
        }
        # network and loss
        self.model = build_model(
            options.network,
            seed=options.seed,
            num_frequencies=stores["train"].num_frequencies,
            num_channels=stores["train"].num_channels,
            num_samples=min(self.lengths) * self.dataset.hop_length,
        ).to(device)
        self.batch_norms = share_batch_norm(self.model) if processes.count > 1 else []
        spread = self.training.data_parallel and device.type == "cuda" and torch.cuda.device_count() > 1
        self.network = torch.nn.DataParallel(self.model) if spread else processes.wrap(self.model, device)
        self.loss = CombinedLoss(self.training.loss_function, self.dataset.sample_rate).to(device)
        self.loss.check(options.network.output, self.dataset.data_keys_for_training)
        # optimizer and learning-rate schedule
        batches = -(-len(self.subset) // (self.training.batch_size * processes.count))
        self.steps_per_epoch = -(-batches // self.training.gradient_accumulation)
        self.optimization = Optimization(self.model, self.training, device, self.steps_per_epoch)
        # progress
        self.history: list[Epoch] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        #: progress of the epoch after the last one in the history
        self.progress = EpochProgress()
        self.stop = StopRequest()
        self.log = TrainingLogger(folder, options.point or "training", self.training.num_epochs, device, processes)
        self._state_saved_at = time.monotonic()

    # epochs ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains the remaining epochs and writes the checkpoints."""
        with self.stop:
            resumed = self._resume()
            self.log.begin(self.history, self.progress, self.optimization.steps, resumed=resumed)
            try:
                while not self._is_finished():
                    self._close_epoch(self._run_epoch(len(self.history)))
            except Stopped:
                self.log.progress("stopped", self.history, self.progress)
                raise
            except BaseException:
                self.log.progress("failed", self.history, self.progress)
                raise
            finally:
                self.log.close()
            if self.processes.is_main:
                self._write_checkpoints()

    def _is_finished(self) -> bool:
        """Whether num_epochs, the patience of early_stopping or max_time is reached."""
        done, patience, minutes = len(self.history), self.training.early_stopping, self.training.max_time
        best = max((epoch.epoch for epoch in self.history if epoch.best), default=0)
        if done >= self.training.num_epochs:
            return True
        if patience is not None and done - best >= patience:
            logger.info("early stopping: no better validation loss for %d epochs", patience)
            return True
        if minutes is not None and done and self._seconds() >= 60 * minutes:
            logger.info("max_time of %g minutes reached after %d epochs", minutes, done)
            return True
        return False

    def _seconds(self) -> float:
        """Seconds of training so far, without interruptions."""
        return sum(epoch.seconds for epoch in self.history) + self.progress.seconds

    def _run_epoch(self, epoch: int) -> Epoch:
        """Trains and validates the epoch, counted from 0; its row of the history."""
        plan = plan_epoch(
            self.stores["train"].frames,
            length=self.lengths[epoch],
            seed=self.options.seed,
            epoch=epoch,
            sample_strategy=self.training.sample_strategy,
            excerpt_selection_strategy=self.dataset.excerpt_selection_strategy,
            subset=self.subset,
            remix=self.dataset.remix,
            num_sources=self.stores["train"].num_sources,
        )
        self._train_epoch(epoch, plan)
        progress, began = self.progress, time.perf_counter()
        totals = self.processes.all_reduce_sum(progress.totals.clone())
        validation_loss = self._validate(epoch)
        # the schedule `plateau` lowers the learning rate here
        self.optimization.schedule.end_epoch(validation_loss)
        return Epoch(
            epoch=epoch + 1,
            train_loss=float(totals[0]) / progress.excerpts,
            validation_loss=validation_loss,
            learning_rate=self.optimization.optimizer.param_groups[0]["lr"],
            gradient_norm=float(totals[1]) / self.processes.count / max(1, progress.steps),
            seconds=progress.seconds + time.perf_counter() - began,
            samples_per_second=progress.excerpts / progress.seconds,
            loader_wait_share=progress.wait / progress.seconds,
            memory_mb=peak_memory(self.device),
            best=all(validation_loss < before.validation_loss for before in self.history),
        )

    def _close_epoch(self, row: Epoch) -> None:
        self.history.append(row)
        self.progress = EpochProgress()
        if row.best:
            self.best_weights = self._weights()
        every = self.training.save_by_epoch
        if every and row.epoch % every == 0 and self.processes.is_main:
            self._save_network(f"epoch{row.epoch}", self._weights(), row.epoch)
        self._save_state()
        self.log.epoch(self.history, self.progress, self.optimization.steps)

    # steps -------------------------------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int, plan: EpochPlan) -> None:
        """The remaining steps of an epoch."""
        progress, count = self.progress, self.processes.count
        batch_size = self.training.batch_size
        local_counts, together = self.processes.excerpts(plan, batch_size)
        if progress.totals is None:
            progress.totals = torch.zeros(2, dtype=torch.float64, device=self.device)
            torch.manual_seed(self._dropout_seed(epoch))
        self.network.train()
        began, seconds, wait = time.perf_counter(), progress.seconds, progress.wait
        batches = self.loaders["train"].load(self.processes.share(plan, batch_size), first_batch=progress.batch)
        for group in chunked(batches, self.training.gradient_accumulation):
            # each batch weighs by its share of the excerpts of all processes in this step
            numbers = range(progress.batch, progress.batch + len(group))
            excerpts = sum(together[number] for number in numbers)
            shares = [local_counts[number] * count / excerpts for number in numbers]
            loss, norm = self.optimization.step(self._gradients(group, shares))
            progress.totals += torch.stack([loss.double() * excerpts / count, self._norm_for_mean(norm)])
            progress.batch += len(group)
            progress.steps += 1
            progress.excerpts += excerpts
            progress.seconds = seconds + time.perf_counter() - began
            progress.wait = wait + self.loaders["train"].wait
            if self._after_step(epoch, len(together), loss, norm):
                break
        self._check_finite(epoch)

    def _gradients(
        self, group: list[dict[str, torch.Tensor]], shares: list[float]
    ) -> Callable[[Callable[[torch.Tensor], None]], torch.Tensor]:
        """The function for `Optimization.step`: the gradient of a group of batches, each weighted by its share."""
        scale_free = self.loss.scale_free_outputs()

        def compute(backward: Callable[[torch.Tensor], None]) -> torch.Tensor:
            total = torch.zeros((), device=self.device)
            for number, (batch, share) in enumerate(zip(group, shares, strict=True)):
                last = number == len(group) - 1
                for layer in self.batch_norms:
                    layer.counts = share > 0
                # processes exchange gradients once, with the last batch
                with torch.enable_grad() if last else self.processes.no_sync(self.network):
                    with self.optimization.precision(), without_unit_norm(self.model, scale_free):
                        output = self.network(batch)
                    loss = self.loss({key: value.float() for key, value in output.items()}, batch) * share
                    backward(loss)
                total = total + loss.detach()
            return total

        return compute

    def _norm_for_mean(self, norm: torch.Tensor) -> torch.Tensor:
        """The norm of a gradient; 0 for a step that the scaler of float16 skips."""
        norm = norm.double()
        return torch.where(norm.isfinite(), norm, 0) if self.training.precision == "float16" else norm

    def _after_step(self, epoch: int, batches: int, loss: torch.Tensor, norm: torch.Tensor) -> bool:
        """Logs a step, saves the state when it is due, and stops on request.

        Returns:
            Whether the epoch ends here because max_time is reached.
        """
        progress, limit = self.progress, self.training.max_time
        if self.device.type == "cuda" and progress.steps % STEPS_BETWEEN_CHECKS:
            return False
        self._check_finite(epoch)
        self.log.step(self.optimization.steps, epoch + 1, loss, norm)
        # all processes have to agree, as each waits for the others in the next step
        flags = [
            self.stop.signal is not None,
            time.monotonic() - self._state_saved_at > 60 * self.training.checkpoint_minutes,
            limit is not None and self._seconds() >= 60 * limit,
        ]
        stop, save, over = self.processes.any(flags, self.device)
        if self.log.progress_due:
            self.log.progress("training", self.history, progress, batches)
        if stop or (save and progress.batch < batches):
            self._save_state()
        if stop:
            raise self._stopped(epoch)
        return over

    def _stopped(self, epoch: int) -> Stopped:
        return Stopped(
            f"stopped by {self.stop.signal or 'another process'} in epoch {epoch + 1} of {self.training.num_epochs}, "
            f"after {self.progress.batch} batches; the state is saved, and the next run resumes from it"
        )

    def _dropout_seed(self, epoch: int) -> int:
        rank = self.processes.rank
        words = [self.options.seed, DROPOUT_STREAM, epoch, *([rank] if rank else [])]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    # validation --------------------------------------------------------------------------------------------------

    def _validate(self, epoch: int) -> float:
        """Mean loss over the middle of every validation item, at the excerpt length of the last epoch."""
        plan = plan_epoch(
            self.stores["val"].frames,
            length=self.lengths[-1],
            seed=self.options.seed,
            epoch=0,
            sample_strategy="sequential",
            excerpt_selection_strategy="middle",
        )
        batch_size, single_process = self.training.batch_size, self.processes.count == 1
        local_counts, _ = self.processes.excerpts(plan, batch_size)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.model.eval()
        with torch.no_grad(), self.optimization.averaged_weights():
            batches = self.loaders["val"].load(self.processes.share(plan, batch_size))
            for batch, excerpts in zip(batches, local_counts, strict=True):
                with self.optimization.precision():
                    output = self.model(batch)
                loss = self.loss({key: value.float() for key, value in output.items()}, batch)
                total += loss.double() * excerpts
                if single_process and self.stop.signal is not None:
                    break
        if single_process and self.stop.signal is not None:
            # the weights are those of the last step: the next run repeats the validation only
            self._save_state()
            raise self._stopped(epoch)
        return self._finite(float(self.processes.all_reduce_sum(total)) / len(plan), epoch, "validation loss")

    def _check_finite(self, epoch: int) -> None:
        """Raises UserError if a loss or a gradient of this epoch was not finite."""
        for value, name in zip(self.progress.totals.tolist(), ("loss", "norm of the gradient"), strict=True):
            self._finite(value, epoch, name)

    def _finite(self, value: float, epoch: int, name: str) -> float:
        if not math.isfinite(value):
            rate = self.optimization.optimizer.param_groups[0]["lr"]
            raise UserError(
                f"the {name} is {value} in epoch {epoch + 1} at learning rate {rate:g}, after {self.progress.steps} "
                "steps; try a lower train_config.learning_rate, warmup_steps or gradient_clipping",
                key="train_config",
            )
        return value

    # checkpoints -------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, torch.Tensor]:
        """The weights to validate and save: with ema_decay, the averaged ones."""
        with self.optimization.averaged_weights():
            return {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def _save_state(self) -> None:
        """Replaces the state on disk, with the progress and the random state of every process."""
        progress = self.progress.state_dict(self.processes, self.device)
        if self.processes.is_main:
            save_state(
                self.folder.state,
                {
                    "fingerprint": fingerprint(self.options.written),
                    "model": {key: value.detach().cpu() for key, value in self.model.state_dict().items()},
                    "best": self.best_weights,
                    "optimization": self.optimization.state_dict(),
                    "history": [asdict(epoch) for epoch in self.history],
                    "position": progress,
                },
            )
        self._state_saved_at = time.monotonic()

    def _resume(self) -> bool:
        """Restores the state on disk; False if there is none."""
        state = load_state(self.folder.state, accepted_fingerprints(self.options.written))
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.optimization.load_state_dict(state["optimization"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best_weights = state["best"]
        self.progress = EpochProgress.restored(state["position"], self.processes, self.device)
        return True

    def _write_checkpoints(self) -> None:
        best_epoch = max(epoch.epoch for epoch in self.history if epoch.best)
        self._save_network("latest", self._weights(), len(self.history))
        self._save_network("best", self.best_weights, best_epoch)
        self.log.finish(self.history, best_epoch)

    def _save_network(self, name: str, weights: Mapping[str, torch.Tensor], epochs: int) -> None:
        save_model(
            self.folder.checkpoint(name),
            copy.deepcopy(self.model).cpu(),
            weights,
            options=self.options,
            epochs=self.history[:epochs],
            splits=self.splits,
            steps_per_epoch=self.steps_per_epoch,
        )
