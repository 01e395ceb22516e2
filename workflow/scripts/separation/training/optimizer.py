"""Steps of the optimizer: learning-rate schedule, gradient clipping, mixed precision, averaged weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from separation.errors import UserError
from separation.experiment.options import TrainingOptions

#: parameters of an optimizer that have their own keys, besides optimizer_args
OWN_KEYS = ("self", "params", "lr", "weight_decay")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


# optimizer -----------------------------------------------------------------------------------------------------------


def make_optimizer(model: torch.nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """An optimizer of torch.optim, by its name in any case, with learning rate, weight decay and optimizer_args.

    Raises:
        UserError: The name is unknown, or the optimizer rejects an argument.
    """
    known = {
        name.lower(): value
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and value is not torch.optim.Optimizer
    }
    name = str(options.optimizer).lower()
    if name not in known:
        raise UserError(f"expected one of {', '.join(sorted(known))}, found {name!r}", key="train_config.optimizer")
    accepted = inspect.signature(known[name].__init__).parameters
    arguments = dict(options.optimizer_args)
    for argument in arguments:
        if argument not in accepted or argument in OWN_KEYS:
            known_arguments = [key for key in accepted if key not in OWN_KEYS]
            raise UserError(
                f"{name} does not take {argument!r} here; expected some of {', '.join(known_arguments)}",
                key="train_config.optimizer_args",
            )
    if "weight_decay" in accepted:
        arguments["weight_decay"] = options.weight_decay
    elif options.weight_decay:
        raise UserError(f"{name} has no weight decay, found {options.weight_decay}", key="train_config")
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return known[name](model.parameters(), lr=options.learning_rate, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be used: {error}", key="train_config.optimizer") from error


# learning-rate schedule ----------------------------------------------------------------------------------------------


class LearningRateSchedule:
    """The learning rate of each step: warm-up times learning_rate_schedule.

    The schedule `plateau` is torch's ReduceLROnPlateau, as in cookiecutter-nussl: the rate is multiplied by
    learning_rate_decay when the validation loss has not improved for more than `patience` epochs.

    Args:
        options: Settings of the training run.
        steps_per_epoch: Steps of the optimizer in an epoch.
    """

    def __init__(self, options: TrainingOptions, steps_per_epoch: int):
        self._options, self._steps_per_epoch = options, steps_per_epoch
        # ReduceLROnPlateau writes its rate into an optimizer; this one exists only to hold it
        self._rate_holder = torch.optim.SGD([torch.zeros(1)], lr=options.learning_rate)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._rate_holder, mode="min", factor=options.learning_rate_decay, patience=options.patience
        )

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs."""
        options = self._options
        if options.learning_rate_schedule == "plateau":
            rate = self._rate_holder.param_groups[0]["lr"]
        elif options.learning_rate_schedule == "exponential":
            rate = options.learning_rate * options.learning_rate_decay ** (step // self._steps_per_epoch)
        elif options.learning_rate_schedule == "cosine":
            total = options.num_epochs * self._steps_per_epoch
            rate = options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))
        else:
            rate = options.learning_rate
        return rate * (step + 1) / options.warmup_steps if step < options.warmup_steps else rate

    def end_epoch(self, validation_loss: float) -> None:
        """Updates the plateau with an epoch's validation loss; it may lower the rate."""
        self._plateau.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._plateau.state_dict(), "rate": self._rate_holder.param_groups[0]["lr"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._plateau.load_state_dict(state["plateau"])
        self._rate_holder.param_groups[0]["lr"] = state["rate"]


# steps ---------------------------------------------------------------------------------------------------------------


class Optimization:
    """Updates the weights of a network from the gradients of its loss.

    Args:
        model: Network to train.
        options: Settings of the training run.
        device: Device of the model.
        steps_per_epoch: Steps of the optimizer in an epoch.
    """

    def __init__(self, model: torch.nn.Module, options: TrainingOptions, device: torch.device, steps_per_epoch: int):
        self._model, self._options, self._device = model, options, device
        self.optimizer = make_optimizer(model, options)
        self.schedule = LearningRateSchedule(options, steps_per_epoch)
        #: steps so far, over all epochs
        self.steps = 0
        self._type = PRECISIONS[options.precision]
        # without a scaled loss, small gradients would be 0 in float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._type == torch.float16)
        decay = options.ema_decay
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The context for calls of the network."""
        # for most processors oneDNN has no float16 LSTM, but torch has
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
            compute_gradients: Function that calls its argument with each loss in place of `backward`, and returns the
                sum of these losses. LBFGS calls it several times.

        Returns:
            The loss, and the norm of its gradient before clipping, scalars on the device.
        """
        rate = self.schedule.at(self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        results: list[tuple[torch.Tensor, torch.Tensor]] = []

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = compute_gradients(lambda part: self._scaler.scale(part).backward())
            self._scaler.unscale_(self.optimizer)
            limit = self._options.gradient_clipping or math.inf
            norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), limit)
            results.append((loss.detach(), norm.detach()))
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
        return results[0]

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Puts the averaged weights into the model while the block runs; no effect without ema_decay."""
        if self._averaged is None or not self.steps:
            yield
            return
        raw_weights = {key: value.clone() for key, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._averaged.module.state_dict())
        try:
            yield
        finally:
            self._model.load_state_dict(raw_weights)

    def state_dict(self) -> dict[str, Any]:
        """State needed to resume, besides the weights of the model."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.schedule.state_dict(),
            "steps": self.steps,
            "scaler": self._scaler.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["learning_rate"])
        self.steps = state["steps"]
        self._scaler.load_state_dict(state["scaler"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
