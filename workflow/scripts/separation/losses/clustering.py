"""Deep clustering loss with its gradient in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class _AffinityLoss(torch.autograd.Function):
    """||W (V V' - Y Y') W||^2 / ||W||^4 of each item, with its gradient in closed form.

    With E = W V and A = W Y, the expansion into small matrices is |E'E|^2 - 2 |E'A|^2 + |A'A|^2, and its gradient with
    respect to V is 4 W^2 (V (V' W^2 V) - Y (Y' W^2 V)). Automatic differentiation needs several more tensors of the
    size of the embedding, which dominate the time of a training step.
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
        # through the normalization: the component along the embedding has no effect
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
            embedding: Embeddings of any norm, (batch, ..., embedding size).
            assignments: Ideal binary masks, (batch, ..., sources).
            weights: Weights of the bins, (batch, ...).

        Returns:
            The mean loss over the batch, a scalar.
        """
        batch_size = embedding.shape[0]
        embedding = embedding.reshape(batch_size, -1, embedding.shape[-1])
        assignments = nn.functional.normalize(assignments.reshape(batch_size, -1, assignments.shape[-1]), dim=-1)
        return _AffinityLoss.apply(embedding, assignments, weights.reshape(batch_size, -1, 1)).mean()
