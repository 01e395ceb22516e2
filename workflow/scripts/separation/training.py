"""Training of one point of a sweep: nussl's networks and losses in a loop that can be stopped at any moment.

In meaning the loop is nussl's trainer: an epoch of steps, a validation, the learning rate lowered where the validation
loss stays on a plateau, the best network kept by validation loss. It is written out here because a training has to go
on from its last epoch and end in the same weights, bit for bit on a CPU, as one that was never stopped. So nothing
depends on how much was drawn from a random generator before: excerpts and their order follow from (seed, epoch, item),
dropout from (seed, epoch).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from separation.batches import BatchLoader, choose_subset, plan_epoch
from separation.checkpoints import fingerprint, load_state, save_model, save_state
from separation.errors import UserError
from separation.events import EVENTS_FILE, EventLog
from separation.feature_store import FeatureStore
from separation.features import check_dataset_config
from separation.history import Epoch, TensorBoard, write_history
from separation.losses import CombinedLoss
from separation.models import build_model, without_unit_norm
from separation.training_setup import excerpt_lengths, find_device, make_optimizer, open_store, reproducible

logger = logging.getLogger(__name__)

DROPOUT_STREAM = 3


def train_point(
    config: Mapping[str, Any],
    *,
    folder: Path,
    splits: Mapping[str, Mapping[str, Any]],
    caches: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Trains one point, or goes on with it, and puts its results in place.

    Writes into `folder`: history.csv (see separation.history.Epoch), tensorboard/, state/ (to go on from) and, at the
    end, checkpoints/best.model.pth (lowest validation loss) and checkpoints/latest.model.pth.

    Args:
        config: a resolved experiment; info.seed, dataset_config, train_config and model_config are read.
        folder: ARTIFACTS/<point>.
        splits: {"train": {"folder", "class"}, "val": {...}}, where the mixtures are.
        caches: {"train": path of the manifest, "val": ...}; None computes features from the mixtures at the start. The
            weights do not depend on it.
        device: auto, cpu, cuda or cuda:<n>.
        threads: of torch on the CPU, and as many workers where a cache has to be filled again.

    Raises:
        UserError: for a configuration that cannot be trained, and where the loss is no longer a number.
    """
    place = find_device(device)
    check_dataset_config(config["dataset_config"])
    with reproducible(threads, place):
        stores = {name: open_store(config, splits[name], caches and caches[name], threads) for name in ("train", "val")}
        _Training(config, Path(folder), splits, stores, place).run()


class _Training:
    """One training between its first and its last epoch."""

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        splits: Mapping[str, Mapping[str, Any]],
        stores: Mapping[str, FeatureStore],
        device: torch.device,
    ):
        self.config, self.folder, self.splits, self.device = config, folder, splits, device
        self.seed, self.options = int(config["info"]["seed"]), config["train_config"]
        dataset_config = config["dataset_config"]
        if self.options.get("class", "Trainer") != "Trainer":
            raise UserError(f"expected Trainer, found {self.options['class']!r}", key="train_config.class")
        self.lengths = excerpt_lengths(config)
        self.stores = stores
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
        ).to(device)
        several = self.options["data_parallel"] and device.type == "cuda" and torch.cuda.device_count() > 1
        self.network = torch.nn.DataParallel(self.model) if several else self.model
        self.loss = CombinedLoss(self.options["loss_function"]).to(device)
        self.loss.check(config["model_config"]["output"], dataset_config["data_keys_for_training"])
        self.optimizer = make_optimizer(self.model, self.options)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, mode="min", factor=self.options["learning_rate_decay"], patience=self.options["patience"]
        )
        self.events = EventLog(folder / EVENTS_FILE)
        self.steps = 0
        self.history: list[Epoch] = []
        self.best_weights: dict[str, torch.Tensor] = {}

    def run(self) -> None:
        """Trains the epochs that are left and puts the checkpoints in place."""
        self._resume()
        board = TensorBoard(self.folder / "tensorboard", len(self.history))
        num_epochs = self.options["num_epochs"]
        for epoch in range(len(self.history), num_epochs):
            row = self._run_epoch(epoch)
            self.history.append(row)
            if row.best:
                self.best_weights = self._weights()
            self._save()
            write_history(self.folder / "history.csv", self.history)
            self.events.write("epoch", row.epoch, **{**asdict(row), "steps": self.steps})
            board.add(row)
            logger.info(
                "epoch %d of %d: train loss %.5f, validation loss %.5f%s, learning rate %g, %.1f s",
                row.epoch,
                num_epochs,
                row.train_loss,
                row.validation_loss,
                " (best)" if row.best else "",
                row.learning_rate,
                row.seconds,
            )
        board.close()
        self._put_in_place()

    def _run_epoch(self, epoch: int) -> Epoch:
        began = time.perf_counter()
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, gradient_norm, excerpts = self._learn(epoch)
        learned = time.perf_counter()
        validation_loss = self._validate(epoch)
        self.scheduler.step(validation_loss)
        return Epoch(
            epoch=epoch + 1,
            train_loss=train_loss,
            validation_loss=validation_loss,
            learning_rate=learning_rate,
            gradient_norm=gradient_norm,
            seconds=time.perf_counter() - began,
            samples_per_second=excerpts / (learned - began),
            loader_wait=self.loaders["train"].wait,
            best=all(validation_loss < before.validation_loss for before in self.history),
        )

    def _learn(self, epoch: int) -> tuple[float, float, int]:
        """One epoch of steps: mean loss, mean norm of the gradient, number of excerpts."""
        plan = plan_epoch(
            self.stores["train"].frames,
            length=self.lengths[epoch],
            seed=self.seed,
            epoch=epoch,
            sample_strategy=self.options["sample_strategy"],
            excerpt_selection_strategy=self.config["dataset_config"]["excerpt_selection_strategy"],
            subset=self.subset,
        )
        torch.manual_seed(int(np.random.SeedSequence([self.seed, DROPOUT_STREAM, epoch]).generate_state(1)[0]))
        limit = self.options.get("gradient_clipping") or math.inf
        self.network.train()
        loss_sum, norms = 0.0, []
        for batch in self.loaders["train"].load(plan):
            self.optimizer.zero_grad()
            with without_unit_norm(self.model, self.loss.scale_free_outputs()):
                output = self.network(batch)
            loss = self.loss(output, batch)
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)))
            value = self._checked(loss, epoch)
            loss_sum += value * len(batch["mix_magnitude"])
            self.optimizer.step()
            self.steps += 1
            self.events.write("step", self.steps, epoch=epoch + 1, loss=value, gradient_norm=norms[-1])
        return loss_sum / len(plan), float(np.mean(norms)), len(plan)

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
        self.network.eval()
        loss_sum = 0.0
        with torch.no_grad():
            for batch in self.loaders["val"].load(plan):
                loss_sum += self._checked(self.loss(self.network(batch), batch), epoch) * len(batch["mix_magnitude"])
        return loss_sum / len(plan)

    def _checked(self, loss: torch.Tensor, epoch: int) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            rate = self.optimizer.param_groups[0]["lr"]
            raise UserError(
                f"the loss is {value} in epoch {epoch + 1} at learning rate {rate:g}; a lower "
                "train_config.learning_rate may help",
                key="train_config",
            )
        return value

    def _weights(self) -> dict[str, torch.Tensor]:
        return {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}

    def _save(self) -> None:
        save_state(
            self.folder / "state",
            {
                "fingerprint": fingerprint(self.config),
                "model": self._weights(),
                "best": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "history": [asdict(epoch) for epoch in self.history],
            },
        )

    def _resume(self) -> None:
        for unfinished in (self.folder / "state").glob(".state.*"):
            unfinished.unlink()  # of a job that was killed while it wrote
        state = load_state(self.folder / "state", fingerprint(self.config))
        if state is None:
            self.events.write("started", epochs=self.options["num_epochs"])
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.best_weights = state["best"]
        write_history(self.folder / "history.csv", self.history)
        self.steps = len(self.history) * -(-len(self.subset) // self.options["batch_size"])
        self.events.write("resumed", self.steps, epochs=len(self.history))
        logger.info("going on after epoch %d of %d", len(self.history), self.options["num_epochs"])

    def _put_in_place(self) -> None:
        latest = self._weights()
        best_epoch = max(epoch.epoch for epoch in self.history if epoch.best)
        model = self.model.cpu()
        steps = -(-len(self.subset) // self.options["batch_size"])
        for name, weights, epochs in (
            ("latest", latest, len(self.history)),
            ("best", self.best_weights, best_epoch),
        ):
            save_model(
                self.folder / "checkpoints" / f"{name}.model.pth",
                model,
                weights,
                config=self.config,
                epochs=self.history[:epochs],
                splits=self.splits,
                steps_per_epoch=steps,
            )
        self.events.write(
            "finished", best_epoch=best_epoch, validation_loss=self.history[best_epoch - 1].validation_loss
        )
        logger.info("best epoch %d, validation loss %.5f", best_epoch, self.history[best_epoch - 1].validation_loss)
