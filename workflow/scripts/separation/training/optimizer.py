"""From gradients to new weights: optimizer, learning rate, clipping, mixed precision, averaged weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from separation.errors import UserError

#: what every optimizer is given from keys of their own
GIVEN = ("self", "params", "lr", "weight_decay")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def make_optimizer(model: torch.nn.Module, train_config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """A class of torch.optim by its name, in any case, with the experiment's learning rate, weight decay and arguments.

    Raises:
        UserError: for an unknown name, an argument that the optimizer does not take, or one that it refuses.
    """
    known = {
        name.lower(): value
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and value is not torch.optim.Optimizer
    }
    name = str(train_config["optimizer"]).lower()
    if name not in known:
        raise UserError(f"expected one of {', '.join(sorted(known))}, found {name!r}", key="train_config.optimizer")
    taken = inspect.signature(known[name].__init__).parameters
    arguments = dict(train_config["optimizer_args"])
    for argument in arguments:
        if argument not in taken or argument in GIVEN:
            own = [key for key in taken if key not in GIVEN]
            raise UserError(
                f"{name} takes no {argument!r} here; it takes {', '.join(own)}", key="train_config.optimizer_args"
            )
    if "weight_decay" in taken:
        arguments["weight_decay"] = train_config["weight_decay"]
    elif train_config["weight_decay"]:
        raise UserError(f"{name} has no weight decay, found {train_config['weight_decay']}", key="train_config")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return known[name](model.parameters(), lr=train_config["learning_rate"], **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be used: {error}", key="train_config.optimizer") from error


class LearningRate:
    """The learning rate of each step: warm-up times schedule.

    On the schedule `plateau` it is that of torch's ReduceLROnPlateau, which the original used: multiplied by
    learning_rate_decay once the validation loss has not fallen for more than `patience` epochs.

    Args:
        train_config: learning_rate, learning_rate_schedule, learning_rate_decay, patience, warmup_steps and num_epochs
            are read.
        steps_per_epoch: steps of the optimizer in an epoch.
    """

    def __init__(self, train_config: Mapping[str, Any], steps_per_epoch: int):
        self._options, self._steps_per_epoch = train_config, steps_per_epoch
        # torch's schedulers write into an optimizer; this one has nothing else to do
        self._holder = torch.optim.SGD([torch.zeros(1)], lr=train_config["learning_rate"])
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._holder, mode="min", factor=train_config["learning_rate_decay"], patience=train_config["patience"]
        )

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs."""
        schedule, base = self._options["learning_rate_schedule"], self._options["learning_rate"]
        if schedule == "plateau":
            rate = self._holder.param_groups[0]["lr"]
        elif schedule == "exponential":
            rate = base * self._options["learning_rate_decay"] ** (step // self._steps_per_epoch)
        elif schedule == "cosine":
            total = self._options["num_epochs"] * self._steps_per_epoch
            rate = base * 0.5 * (1 + math.cos(math.pi * step / total))
        else:
            rate = base
        warmup = self._options["warmup_steps"]
        return rate * (step + 1) / warmup if step < warmup else rate

    def epoch_done(self, validation_loss: float) -> None:
        """Tells the validation loss of an epoch."""
        self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._plateau.state_dict(), "rate": self._holder.param_groups[0]["lr"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._plateau.load_state_dict(state["plateau"])
        self._holder.param_groups[0]["lr"] = state["rate"]


class Optimization:
    """Changes the weights of a network by the gradients of its loss.

    Args:
        model: whose weights are learned.
        train_config: of the experiment.
        device: where the model is.
        steps_per_epoch: steps of the optimizer in an epoch.
    """

    def __init__(
        self, model: torch.nn.Module, train_config: Mapping[str, Any], device: torch.device, steps_per_epoch: int
    ):
        self._model, self._options, self._device = model, train_config, device
        self.optimizer = make_optimizer(model, train_config)
        self.learning_rate = LearningRate(train_config, steps_per_epoch)
        #: steps so far, over all epochs
        self.steps = 0
        self._type = PRECISIONS[train_config["precision"]]
        # small gradients would be 0 in float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._type == torch.float16)
        decay = train_config["ema_decay"]
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The context in which the network is to be called."""
        # oneDNN has no float16 LSTM for most processors; torch's own kernels have
        slow = self._type == torch.float16 and self._device.type == "cpu"
        with (
            torch.backends.mkldnn.flags(enabled=False) if slow else nullcontext(),
            torch.autocast(self._device.type, dtype=self._type, enabled=self._type is not None),
        ):
            yield

    def step(
        self, compute_gradients: Callable[[Callable[[torch.Tensor], None]], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step.

        Args:
            compute_gradients: is given a function to be called with each loss in place of `backward`, and returns the
                sum of these losses. LBFGS calls it several times.

        Returns:
            the loss and the norm of its gradient before any clipping, scalars on the device.
        """
        rate = self.learning_rate.at(self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = compute_gradients(lambda part: self._scaler.scale(part).backward())
            self._scaler.unscale_(self.optimizer)
            limit = self._options["gradient_clipping"] or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), limit)
            seen.append((loss.detach(), norm.detach()))
            return loss

        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.step(closure)
        else:
            closure()
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.steps += 1
        if self._averaged is not None:
            self._averaged.update_parameters(self._model)
        return seen[0]

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the averaged weights into the model for as long as the block lasts; without an average, nothing."""
        if self._averaged is None or not self.steps:
            yield
            return
        own = {key: value.clone() for key, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._averaged.module.state_dict())
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept, besides the model's weights, to go on in the same way."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.learning_rate.state_dict(),
            "steps": self.steps,
            "scaler": self._scaler.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.learning_rate.load_state_dict(state["learning_rate"])
        self.steps = state["steps"]
        self._scaler.load_state_dict(state["scaler"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
