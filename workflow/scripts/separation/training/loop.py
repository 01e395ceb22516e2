"""Training of one point of a sweep: nussl's networks and losses in a loop that can be stopped at any moment.

In meaning the loop is nussl's trainer: an epoch of steps, a validation, the learning rate lowered where the validation
loss stays on a plateau, the best network kept by validation loss. It is written out here because a training has to go
on from its last checkpoint and end in the same weights, bit for bit on a CPU, as one that was never stopped. So
nothing depends on how much was drawn from a random generator before: excerpts and their order follow from (seed,
epoch, item), dropout from (seed, epoch) and, within an epoch, from the generator's state in the checkpoint.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from separation.errors import UserError
from separation.experiment.ids import with_neutral
from separation.features.spectra import check_dataset_config
from separation.features.store import FeatureStore
from separation.losses.combined import CombinedLoss
from separation.machine.signals import Stopped, StopRequest
from separation.machine.torch_device import find_device, reproducible
from separation.networks.build import build_model, without_unit_norm
from separation.training.batches import BatchLoader, EpochPlan, choose_subset, plan_epoch
from separation.training.checkpoints import fingerprint, load_state, save_model, save_state
from separation.training.ddp import Processes, share_batch_norm
from separation.training.epoch_progress import Position, groups_of
from separation.training.history import Epoch, peak_memory
from separation.training.logger import TrainingReport
from separation.training.optimizer import Optimization
from separation.training.setup import excerpt_lengths, open_store
from separation.training.user_modules import load_extras

logger = logging.getLogger(__name__)

DROPOUT_STREAM = 3
#: of the options that change no result, what holds where an experiment's config does not say
OPTIONS = {"checkpoint_minutes": 10, "save_by_epoch": None, "data_parallel": False}
#: on a GPU, steps between two looks at the loss and at requests to stop: each look waits for the device
STEPS_BETWEEN_LOOKS = 16


def train_point(
    config: Mapping[str, Any],
    *,
    folder: Path,
    splits: Mapping[str, Mapping[str, Any]],
    caches: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
    processes: Processes | None = None,
) -> None:
    """Trains one point, or goes on with it, and puts its results in place.

    Writes into `folder`: history.csv (see separation.training.history.Epoch), tensorboard/, state/ (to go on from)
    and, at the end, checkpoints/best.model.pth (lowest validation loss) and checkpoints/latest.model.pth.

    Args:
        config: a resolved experiment; info.seed, dataset_config, train_config and model_config are read.
        folder: ARTIFACTS/<point>.
        splits: {"train": {"folder", "class"}, "val": {...}}, where the mixtures are.
        caches: {"train": path of the manifest, "val": ...}; None computes features from the mixtures at the start. The
            weights do not depend on it.
        device: auto, cpu, cuda or cuda:<n>.
        threads: of torch on the CPU, and as many workers where a cache has to be filled again.
        processes: that train this point together; None for this one alone.

    Raises:
        UserError: for a configuration that cannot be trained, where the loss is no longer a number, and where the
            state cannot be written.
        Stopped: after a signal that asks to stop; the state is saved.
    """
    place = find_device(device)
    load_extras(config)
    check_dataset_config(config["dataset_config"])
    with reproducible(threads, place):
        stores = {name: open_store(config, splits[name], caches and caches[name], threads) for name in ("train", "val")}
        _Training(config, Path(folder), splits, stores, place, processes or Processes()).run()


class _Training:
    """One training between its first and its last epoch."""

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        splits: Mapping[str, Mapping[str, Any]],
        stores: Mapping[str, FeatureStore],
        device: torch.device,
        processes: Processes,
    ):
        self.config, self.folder, self.splits, self.device = config, folder, splits, device
        self.seed = int(config["info"]["seed"])
        self.options = {**OPTIONS, **with_neutral(dict(config["train_config"]), "train_config")}
        self.processes, self.stores = processes, stores
        dataset_config = config["dataset_config"]
        if self.options.get("class", "Trainer") != "Trainer":
            raise UserError(f"expected Trainer, found {self.options['class']!r}", key="train_config.class")
        self.lengths = excerpt_lengths(config)
        self.subset = choose_subset(len(stores["train"]), dataset_config["fraction_of_dataset"], self.seed)
        self.loaders = {
            name: BatchLoader(
                store,
                dataset_config,
                batch_size=self.options["batch_size"],
                device=device,
                num_workers=self.options["num_workers"],
            )
            for name, store in stores.items()
        }
        self.model = build_model(
            config["model_config"],
            seed=self.seed,
            num_frequencies=stores["train"].num_frequencies,
            num_channels=stores["train"].num_channels,
            num_samples=min(self.lengths) * dataset_config["hop_length"],
        ).to(device)
        self.batch_norms = share_batch_norm(self.model) if processes.count > 1 else []
        several = self.options["data_parallel"] and device.type == "cuda" and torch.cuda.device_count() > 1
        self.network = torch.nn.DataParallel(self.model) if several else processes.wrap(self.model, device)
        self.loss = CombinedLoss(self.options["loss_function"]).to(device)
        self.loss.check(config["model_config"]["output"], dataset_config["data_keys_for_training"])
        batches = -(-len(self.subset) // (self.options["batch_size"] * processes.count))
        self.steps_per_epoch = -(-batches // self.options["gradient_accumulation"])
        self.optimization = Optimization(self.model, self.options, device, self.steps_per_epoch)
        self.history: list[Epoch] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        #: how far the epoch after the last of the history is
        self.position = Position()
        self.stop = StopRequest()
        name = config["info"].get("experiment_key") or "training"
        self.report = TrainingReport(self.folder, name, self.options["num_epochs"], device, processes)
        self._saved = time.monotonic()

    # epochs ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains the epochs that are left and puts the checkpoints in place."""
        with self.stop:
            resumed = self._resume()
            self.report.begin(self.history, self.position, self.optimization.steps, resumed=resumed)
            try:
                while not self._finished():
                    self._close_epoch(self._run_epoch(len(self.history)))
            except Stopped:
                self.report.state("stopped", self.history, self.position)
                raise
            except BaseException:
                self.report.state("failed", self.history, self.position)
                raise
            finally:
                self.report.close()
            if self.processes.writes:
                self._put_in_place()

    def _finished(self) -> bool:
        """Whether an end is reached: of num_epochs, of early_stopping's patience, of max_time."""
        done, patience, minutes = len(self.history), self.options["early_stopping"], self.options["max_time"]
        best = max((epoch.epoch for epoch in self.history if epoch.best), default=0)
        if done >= self.options["num_epochs"]:
            return True
        if patience is not None and done - best >= patience:
            logger.info("no better validation loss for %d epochs: the training ends early", patience)
            return True
        if minutes is not None and done and self._seconds() >= 60 * minutes:
            logger.info("max_time, %g minutes, is over: the training ends after %d epochs", minutes, done)
            return True
        return False

    def _seconds(self) -> float:
        """Of training so far, interruptions not counted."""
        return sum(epoch.seconds for epoch in self.history) + self.position.seconds

    def _run_epoch(self, epoch: int) -> Epoch:
        plan = plan_epoch(
            self.stores["train"].frames,
            length=self.lengths[epoch],
            seed=self.seed,
            epoch=epoch,
            sample_strategy=self.options["sample_strategy"],
            excerpt_selection_strategy=self.config["dataset_config"]["excerpt_selection_strategy"],
            subset=self.subset,
            remix=self.config["dataset_config"].get("remix"),
            num_sources=self.stores["train"].num_sources,
        )
        self._learn(epoch, plan)
        at, began = self.position, time.perf_counter()
        totals = self.processes.add_up(at.totals.clone())
        validation_loss = self._validate(epoch)
        self.optimization.learning_rate.epoch_done(validation_loss)
        return Epoch(
            epoch=epoch + 1,
            train_loss=float(totals[0]) / at.excerpts,
            validation_loss=validation_loss,
            learning_rate=self.optimization.optimizer.param_groups[0]["lr"],
            gradient_norm=float(totals[1]) / self.processes.count / max(1, at.steps),
            seconds=at.seconds + time.perf_counter() - began,
            samples_per_second=at.excerpts / at.seconds,
            loader_wait_share=at.wait / at.seconds,
            memory_mb=peak_memory(self.device),
            best=all(validation_loss < before.validation_loss for before in self.history),
        )

    def _close_epoch(self, row: Epoch) -> None:
        self.history.append(row)
        self.position = Position()
        if row.best:
            self.best_weights = self._weights()
        every = self.options["save_by_epoch"]
        if every and row.epoch % every == 0 and self.processes.writes:
            self._save_network(f"epoch{row.epoch}", self._weights(), row.epoch)
        self._save()
        self.report.epoch(self.history, self.position, self.optimization.steps)

    # steps -------------------------------------------------------------------------------------------------------

    def _learn(self, epoch: int, plan: EpochPlan) -> None:
        """The steps of an epoch that are left."""
        at = self.position
        batch_size, accumulated = self.options["batch_size"], self.options["gradient_accumulation"]
        own, together = self.processes.excerpts(plan, batch_size)
        if at.totals is None:
            at.totals = torch.zeros(2, dtype=torch.float64, device=self.device)
            torch.manual_seed(self._dropout_seed(epoch))
        self.network.train()
        began, before = time.perf_counter(), (at.seconds, at.wait)
        batches = self.loaders["train"].load(self.processes.share(plan, batch_size), first_batch=at.batch)
        for group in groups_of(batches, accumulated):
            numbers = range(at.batch, at.batch + len(group))
            excerpts = sum(together[number] for number in numbers)
            shares = [own[number] * self.processes.count / excerpts for number in numbers]
            loss, norm = self.optimization.step(self._gradients(group, shares))
            at.totals += torch.stack([loss.double() * excerpts / self.processes.count, self._counted(norm)])
            at.batch, at.steps, at.excerpts = at.batch + len(group), at.steps + 1, at.excerpts + excerpts
            at.seconds = before[0] + time.perf_counter() - began
            at.wait = before[1] + self.loaders["train"].wait
            if self._look(epoch, at, len(together), loss, norm):
                break
        self._check(epoch)

    def _gradients(self, group: list[dict[str, torch.Tensor]], shares: list[float]) -> Any:
        """What `Optimization.step` calls: the gradient of a group of batches, each with its share in the mean."""

        scale_free = self.loss.scale_free_outputs()

        def compute(backward: Any) -> torch.Tensor:
            total = torch.zeros((), device=self.device)
            for number, (batch, share) in enumerate(zip(group, shares, strict=True)):
                last = number == len(group) - 1
                for layer in self.batch_norms:
                    layer.counts = share > 0
                with torch.enable_grad() if last else self.processes.without_exchange(self.network):
                    with self.optimization.precision(), without_unit_norm(self.model, scale_free):
                        output = self.network(batch)
                    loss = self.loss({key: value.float() for key, value in output.items()}, batch) * share
                    backward(loss)
                total = total + loss.detach()
            return total

        return compute

    def _counted(self, norm: torch.Tensor) -> torch.Tensor:
        """A gradient's norm for the mean; a step that float16's scaler leaves out has none."""
        norm = norm.double()
        return torch.where(norm.isfinite(), norm, 0) if self.options["precision"] == "float16" else norm

    def _look(self, epoch: int, at: Position, batches: int, loss: torch.Tensor, norm: torch.Tensor) -> bool:
        """After a step: tells how it went, saves where it is time to, stops where it is asked to.

        Returns:
            whether the epoch ends here, as max_time is over.
        """
        if self.device.type == "cuda" and at.steps % STEPS_BETWEEN_LOOKS:
            return False
        self._check(epoch)
        self.report.step(self.optimization.steps, epoch + 1, loss, norm)
        limit = self.options["max_time"]
        flags = [
            self.stop.signal is not None,
            time.monotonic() - self._saved > 60 * self.options["checkpoint_minutes"],
            limit is not None and self._seconds() >= 60 * limit,
        ]
        asked, due, over = self.processes.any(flags, self.device)
        if self.report.due:
            self.report.state("training", self.history, at, batches)
        if asked or (due and at.batch < batches):
            self._save()
        if asked:
            raise self._stopped(epoch)
        return over

    def _stopped(self, epoch: int) -> Stopped:
        return Stopped(
            f"stopped by {self.stop.signal or 'another process'} in epoch {epoch + 1} of "
            f"{self.options['num_epochs']}, after {self.position.batch} batches of it; the state is saved, and the "
            "training goes on from there when it is run again"
        )

    def _validate(self, epoch: int) -> float:
        """Mean loss over the middle of every validation item, as long as the last epoch's excerpts."""
        plan = plan_epoch(
            self.stores["val"].frames,
            length=self.lengths[-1],
            seed=self.seed,
            epoch=0,
            sample_strategy="sequential",
            excerpt_selection_strategy="middle",
        )
        own, _ = self.processes.excerpts(plan, self.options["batch_size"])
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.model.eval()
        with torch.no_grad(), self.optimization.averaged_weights():
            batches = self.loaders["val"].load(self.processes.share(plan, self.options["batch_size"]))
            for batch, excerpts in zip(batches, own, strict=True):
                with self.optimization.precision():
                    output = self.model(batch)
                loss = self.loss({key: value.float() for key, value in output.items()}, batch)
                total += loss.double() * excerpts
                if self.processes.count == 1 and self.stop.signal is not None:
                    break
        if self.processes.count == 1 and self.stop.signal is not None:
            # nothing was learned since the last step: the epoch is validated when the training goes on
            self._save()
            raise self._stopped(epoch)
        return self._finite(float(self.processes.add_up(total)) / len(plan), epoch, "validation loss")

    def _check(self, epoch: int) -> None:
        """Raises UserError where a loss or a gradient of this epoch was no number."""
        for value, name in zip(self.position.totals.tolist(), ("loss", "norm of the gradient"), strict=True):
            self._finite(value, epoch, name)

    def _finite(self, value: float, epoch: int, name: str) -> float:
        if not math.isfinite(value):
            rate = self.optimization.optimizer.param_groups[0]["lr"]
            raise UserError(
                f"the {name} is {value} in epoch {epoch + 1} at learning rate {rate:g}, after {self.position.steps} "
                "steps of it; a lower train_config.learning_rate, warmup_steps or gradient_clipping may help",
                key="train_config",
            )
        return value

    def _dropout_seed(self, epoch: int) -> int:
        words = [self.seed, DROPOUT_STREAM, epoch, *([self.processes.rank] if self.processes.rank else [])]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    # checkpoints -------------------------------------------------------------------------------------------------

    def _weights(self) -> dict[str, torch.Tensor]:
        """The weights that are validated and saved: averaged ones where ema_decay asks for them."""
        with self.optimization.averaged_weights():
            return {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def _save(self) -> None:
        """Replaces the state on disk, and what the processes have each for themselves with it."""
        at = self.position.gathered(self.processes, self.device)
        if self.processes.writes:
            save_state(
                self.folder / "state",
                {
                    "fingerprint": fingerprint(self.config),
                    "model": {key: value.detach().cpu() for key, value in self.model.state_dict().items()},
                    "best": self.best_weights,
                    "optimization": self.optimization.state_dict(),
                    "history": [asdict(epoch) for epoch in self.history],
                    "position": at,
                },
            )
        self._saved = time.monotonic()

    def _resume(self) -> bool:
        """Goes to where the state on disk is; whether there is one."""
        state = load_state(self.folder / "state", fingerprint(self.config))
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.optimization.load_state_dict(state["optimization"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best_weights = state["best"]
        self.position = Position.restored(state["position"], self.processes, self.device)
        return True

    def _put_in_place(self) -> None:
        best_epoch = max(epoch.epoch for epoch in self.history if epoch.best)
        self._save_network("latest", self._weights(), len(self.history))
        self._save_network("best", self.best_weights, best_epoch)
        self.report.finish(self.history, best_epoch)

    def _save_network(self, name: str, weights: Mapping[str, torch.Tensor], epochs: int) -> None:
        save_model(
            self.folder / "checkpoints" / f"{name}.model.pth",
            copy.deepcopy(self.model).cpu(),
            weights,
            config=self.config,
            epochs=self.history[:epochs],
            splits=self.splits,
            steps_per_epoch=self.steps_per_epoch,
        )
