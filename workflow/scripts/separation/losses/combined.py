"""The loss that an experiment's `loss_function` list describes, on nussl's loss classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from separation.errors import UserError
from separation.nussl_compat import nussl

#: short names for nussl's classes; `pit:` and `cit:` before one make it invariant to permutations or combinations
SHORT_NAMES = {
    "dpcl": "DeepClusteringLoss",
    "whitened_kmeans": "WhitenedKMeansLoss",
    "l1": "L1Loss",
    "mse": "MSELoss",
    "kl": "KLDivLoss",
}
WRAPPERS = {"pit": "PermutationInvariantLoss", "cit": "CombinationInvariantLoss"}


class _AffinityLoss(torch.autograd.Function):
    """||W (V V' - Y Y') W||^2 / ||W||^4 of each item, with its gradient in closed form.

    With E = W V, the expansion into small matrices is |E'E|^2 - 2 |E'A|^2 + |A'A|^2, A = W Y, and its gradient with
    regard to V is 4 W^2 (V (V' W^2 V) - Y (Y' W^2 V)). Automatic differentiation arrives at the same number through
    several more tensors of the size of the embedding, which is what a training step spends its time on.
    """

    @staticmethod
    def forward(ctx: Any, embedding: torch.Tensor, assignments: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        # shapes: (batch, bins, size), (batch, bins, sources) of norm 1 or 0, (batch, bins, 1)
        norms = embedding.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        unit = embedding / norms
        squared = weights**2
        weighted = unit * squared
        embedding_affinity = unit.transpose(1, 2) @ weighted
        cross_affinity = assignments.transpose(1, 2) @ weighted
        source_affinity = assignments.transpose(1, 2) @ (assignments * squared)
        scale = squared.sum(dim=(1, 2)) ** 2 + 1e-8
        loss = (
            (embedding_affinity**2).sum(dim=(1, 2))
            - 2 * (cross_affinity**2).sum(dim=(1, 2))
            + (source_affinity**2).sum(dim=(1, 2))
        ) / scale
        ctx.save_for_backward(unit, norms, squared, assignments, embedding_affinity, cross_affinity, scale)
        return loss

    @staticmethod
    def backward(ctx: Any, loss_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        unit, norms, squared, assignments, embedding_affinity, cross_affinity, scale = ctx.saved_tensors
        factor = (4 * loss_gradient / scale)[:, None, None]
        gradient = torch.baddbmm(assignments @ cross_affinity, unit, embedding_affinity, beta=-1)
        # through the normalization: what points along the embedding changes nothing
        gradient -= unit * (gradient * unit).sum(dim=-1, keepdim=True)
        return gradient.mul_(squared * factor / norms), None, None


class DeepClusteringLoss(nn.Module):
    """The weighted deep clustering loss, equal to nussl's in value and gradient and about twice as fast on a CPU.

    Equation (7) in Wang, Le Roux and Hershey, "Alternative objective functions for deep clustering", ICASSP 2018.
    """

    DEFAULT_KEYS = {"embedding": "embedding", "ideal_binary_mask": "assignments", "weights": "weights"}  # noqa: RUF012

    def forward(self, embedding: torch.Tensor, assignments: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """
        Args:
            embedding: (batch, ..., embedding size), of any norm.
            assignments: (batch, ..., sources).
            weights: (batch, ...).

        Returns:
            the mean over the batch, a scalar.
        """
        batch_size = embedding.shape[0]
        embedding = embedding.reshape(batch_size, -1, embedding.shape[-1])
        assignments = nn.functional.normalize(assignments.reshape(batch_size, -1, assignments.shape[-1]), dim=-1)
        return _AffinityLoss.apply(embedding, assignments, weights.reshape(batch_size, -1, 1)).mean()


class CombinedLoss(nn.Module):
    """The weighted sum of losses, each on one output of the network.

    Args:
        loss_function: list of [name, output, weight, {argument: value}], the last two optional. The name is a class
            of nussl.ml.train.loss or a short name (`dpcl`, `whitened_kmeans`, `l1`, `mse`, `kl`), or one of the last
            three after `pit:` or `cit:`. The output is what the network calls what the loss is taken of; what it is
            compared with are the loss's own data keys (ideal_binary_mask and weights, or source_magnitudes).

    Raises:
        UserError: where the list is empty or a name is unknown.
    """

    def __init__(self, loss_function: Sequence[Sequence[Any]]):
        super().__init__()
        if not loss_function:
            raise UserError("expected at least one loss, found none", key="train_config.loss_function")
        self.losses = nn.ModuleList()
        self._terms: list[tuple[str, dict[str, str], float]] = []
        for name, output, weight, arguments in map(_complete, loss_function):
            loss = _make_loss(name, arguments)
            self.losses.append(loss)
            self._terms.append((name, _arguments(loss, output), weight))

    def check(self, outputs: Sequence[str], data_keys: Sequence[str]) -> None:
        """Raises UserError where a loss needs what neither the network nor the data gives."""
        for name, arguments, _ in self._terms:
            for key in arguments:
                if key not in (*outputs, *data_keys):
                    raise UserError(
                        f"{name} needs {key}, which is neither an output of the model ({', '.join(outputs)}) nor in "
                        f"data_keys_for_training ({', '.join(data_keys)})",
                        key="train_config.loss_function",
                    )

    def scale_free_outputs(self) -> set[str]:
        """Outputs of the network whose length along the last axis changes no loss, as each loss normalizes it."""
        names = {key: [] for _, arguments, _ in self._terms for key in arguments}
        for loss, (_, arguments, _) in zip(self.losses, self._terms, strict=True):
            for key, argument in arguments.items():
                free = argument == "embedding" and type(loss).__name__ in ("DeepClusteringLoss", "WhitenedKMeansLoss")
                names[key].append(free)
        return {key for key, free in names.items() if all(free)}

    def forward(self, output: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: what the network returned.
            batch: what it was compared with, by data key.
        """
        values = {**batch, **output}
        total = torch.zeros((), device=next(iter(output.values())).device)
        for loss, (_, arguments, weight) in zip(self.losses, self._terms, strict=True):
            if weight:
                total = total + weight * loss(**{argument: values[key] for key, argument in arguments.items()})
        return total


def loss_dictionary(loss_function: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The same losses as nussl's Closure takes them; kept in checkpoints as metadata."""
    described = {}
    for number, (name, output, weight, arguments) in enumerate(map(_complete, loss_function)):
        loss = _make_loss(name, arguments)
        entry = {"class": type(loss).__name__, "weight": weight, "keys": _arguments(loss, output)}
        if entry["class"] in WRAPPERS.values():
            entry["args"] = [type(loss.loss_function).__name__]
        described[f"{number}:{name}"] = entry
    return described


def _complete(entry: Sequence[Any]) -> tuple[str, str, float, Mapping[str, Any]]:
    """Name, output, weight (default 1) and arguments (default none) of an entry of the list."""
    name, output, *rest = entry
    weight, arguments, *_ = [*rest, *(1.0, {})[len(rest) :]]
    return str(name), output, float(weight), arguments


def _arguments(loss: nn.Module, output: str) -> dict[str, str]:
    """By name of an output or a data key, the argument of the loss that takes it; the first takes the output."""
    keys = loss.DEFAULT_KEYS
    if isinstance(getattr(loss, "loss_function", None), nussl.ml.train.loss.SISDRLoss):
        keys = {"audio": "estimates", "source_audio": "targets"}
    (_, first), *others = keys.items()
    return {output: first, **dict(others)}


def _make_loss(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    wrapper, _, inner = name.rpartition(":")
    loss = _find_class(SHORT_NAMES.get(inner, inner), name)
    arguments = dict(arguments)
    if wrapper:
        if wrapper not in WRAPPERS or inner not in ("l1", "mse", "kl"):
            raise UserError(f"unknown loss {name!r}", key="train_config.loss_function")
        return getattr(nussl.ml.train.loss, WRAPPERS[wrapper])(loss(**arguments))
    if loss.__name__ in WRAPPERS.values():
        return loss(_find_class(arguments.pop("loss_function", "L1Loss"), name)(**arguments))
    return loss(**arguments)


def _find_class(class_name: str, name: str) -> type[nn.Module]:
    if class_name == "DeepClusteringLoss":
        return DeepClusteringLoss
    found = getattr(nussl.ml.train.loss, class_name, None)
    if not (isinstance(found, type) and hasattr(found, "DEFAULT_KEYS")):
        known = [key for key, value in vars(nussl.ml.train.loss).items() if hasattr(value, "DEFAULT_KEYS")]
        raise UserError(
            f"unknown loss {name!r}; expected one of {', '.join([*SHORT_NAMES, 'pit:l1', 'pit:mse', *known])}",
            key="train_config.loss_function",
        )
    return found
