"""Losses that do not depend on the order of the estimates."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

from separation.errors import UserError
from separation.losses.waveform import SISDRWaveformLoss, WaveformLoss, one_for_each, sources_first
from separation.nussl_compat import nussl

#: up to this number of sources all orders are tried, on the device; beyond it, the Hungarian algorithm on the CPU
MOST_ENUMERATED = 3
#: up to this number of sums of estimates are compared with the references of a mixture of mixtures
MOST_ASSIGNMENTS = 4096


class PermutationInvariantWaveformLoss(nn.Module):
    """A loss in the order of the sources that makes it least, for each item.

    Yu et al., "Permutation invariant training of deep models for speaker-independent multi-talker speech separation",
    ICASSP 2017. The order is that of an assignment problem (Kuhn's Hungarian algorithm, in scipy), since these losses
    are sums over the sources.
    """

    def __init__(self, loss_function: WaveformLoss):
        super().__init__()
        self.loss_function = loss_function
        self.DEFAULT_KEYS = loss_function.DEFAULT_KEYS

    def forward(
        self, estimates: torch.Tensor, references: torch.Tensor, mixture: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss, a scalar.

        Args:
            estimates, references: (batch, channels, samples, sources).
            mixture: (batch, channels, samples), for losses that read it.

        Raises:
            UserError: There are more or fewer estimates than references, or they have another length.
        """
        estimates, references = one_for_each(*sources_first(estimates, references))
        count = references.shape[1]
        mixture = None if mixture is None else mixture[:, None, None]
        # (batch, estimates, references)
        losses = self.loss_function.measure(estimates[:, :, None], references[:, None], mixture)
        if count <= MOST_ENUMERATED:
            orders = torch.tensor(list(itertools.permutations(range(count))), device=losses.device)
            rows = torch.arange(count, device=losses.device)
            return losses[:, rows, orders].mean(dim=-1).amin(dim=-1).mean()
        best = _best_orders(losses).to(losses.device)
        return losses.gather(2, best[..., None]).mean()


class PermutationInvariantSISDRLoss(PermutationInvariantWaveformLoss):
    """nussl's PermutationInvariantLoss around its SISDRLoss, which tries all orders, up to MOST_ENUMERATED sources."""

    def __init__(self, **arguments: Any):
        super().__init__(SISDRWaveformLoss(**arguments))
        inner = nussl.ml.train.loss.SISDRLoss(**arguments)
        self.enumerated = nussl.ml.train.loss.PermutationInvariantLoss(inner)

    def forward(self, estimates, references, mixture=None):
        if references.shape[-1] == estimates.shape[-1] <= MOST_ENUMERATED:
            return self.enumerated(estimates, references)
        return super().forward(estimates, references)


class MixITLoss(nn.Module):
    """Mixture invariant training: each estimate is added to one of the references, which are mixtures themselves.

    Wisdom et al., "Unsupervised sound separation using mixture invariant training", NeurIPS 2020. The
    network separates a mixture of mixtures into more estimates than there are references. The data are mixed from
    recordings of mixtures as sources.
    """

    def __init__(self, loss_function: WaveformLoss):
        super().__init__()
        self.loss_function = loss_function
        self.DEFAULT_KEYS = loss_function.DEFAULT_KEYS

    def forward(
        self, estimates: torch.Tensor, references: torch.Tensor, mixture: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss, a scalar.

        Args:
            estimates: (batch, channels, samples, estimates).
            references: Mixtures, (batch, channels, samples, references).
            mixture: Their sum, (batch, channels, samples), for losses that read it.

        Raises:
            UserError: There are too many assignments to try, fewer estimates than references, or another length.
        """
        estimates, references = sources_first(estimates, references)
        sources, count = estimates.shape[1], references.shape[1]
        if sources < count:
            raise UserError(f"expected at least {count} estimates for MixITLoss, found {sources}", key="model_config")
        if count**sources > MOST_ASSIGNMENTS:
            raise UserError(
                f"expected at most {MOST_ASSIGNMENTS} ways to assign the estimates, found {count}^{sources}; use fewer "
                "estimates",
                key="model_config",
            )
        mixture = None if mixture is None else mixture[:, None]
        assignments = torch.nn.functional.one_hot(
            torch.cartesian_prod(*[torch.arange(count)] * sources).reshape(-1, sources), count
        ).to(estimates)
        with torch.no_grad():
            losses = [
                self.loss_function.measure(_add(estimates, assignment), references, mixture).mean(dim=1)
                for assignment in assignments
            ]
            best = assignments[torch.stack(losses).argmin(dim=0)]
        # (batch, estimates, references)
        sums = torch.einsum("bect,ber->brct", estimates, best)
        return self.loss_function.measure(sums, references, mixture).mean()


def _add(estimates: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bect,er->brct", estimates, assignment)


def _best_orders(losses: torch.Tensor) -> torch.Tensor:
    """The reference of each estimate in the order of the least sum, (batch, sources), from losses of all pairs."""
    from scipy.optimize import linear_sum_assignment

    # a cost that is not finite is reported as the loss of the epoch, not here
    costs = losses.detach().double().nan_to_num(nan=1e30, posinf=1e30, neginf=-1e30).cpu().numpy()
    return torch.tensor([linear_sum_assignment(cost)[1].tolist() for cost in costs])
