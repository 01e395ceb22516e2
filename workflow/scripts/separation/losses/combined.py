"""Combined loss of the `loss_function` list of an experiment, from nussl's loss classes and those on waveforms."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from separation.errors import UserError
from separation.experiment.waveform_losses import LossEntry
from separation.losses import spectral, waveform
from separation.losses.clustering import DeepClusteringLoss
from separation.losses.permutation import (
    MixITLoss,
    PermutationInvariantSISDRLoss,
    PermutationInvariantWaveformLoss,
)
from separation.losses.waveform import SISDRWaveformLoss
from separation.nussl_compat import nussl

#: short names of nussl's classes; the prefixes `pit:` and `cit:` make one invariant to permutations or combinations
SHORT_NAMES = {
    "dpcl": "DeepClusteringLoss",
    "whitened_kmeans": "WhitenedKMeansLoss",
    "l1": "L1Loss",
    "mse": "MSELoss",
    "kl": "KLDivLoss",
}
WRAPPERS = {"pit": "PermutationInvariantLoss", "cit": "CombinationInvariantLoss"}
_WAVEFORM_CLASSES = {
    loss.__name__: loss
    for loss in (
        spectral.ComplexSpectralLoss,
        spectral.MultiResolutionSTFTLoss,
        waveform.L1SNRLoss,
        waveform.LogWMSELoss,
        waveform.SNRLoss,
        waveform.ThresholdedSNRLoss,
        waveform.WaveformL1Loss,
        waveform.WaveformMSELoss,
    )
}


class CombinedLoss(nn.Module):
    """The weighted sum of losses, each on one output of the network.

    Args:
        loss_function: List of [name, output, weight, {argument: value}], the last two optional. The name is a class
            of nussl.ml.train.loss or separation.losses, or a short name (`dpcl`, `whitened_kmeans`, `l1`, `mse`, `kl`);
            the last three may have the prefix `pit:` or `cit:`. The output is an output of the network, which the loss
            compares with its own data keys (ideal_binary_mask and weights, source_magnitudes, or source_audio).
        sample_rate: Sample rate of the data, Hz, for losses that need it.

    Raises:
        UserError: The list is empty or a name is unknown.
    """

    def __init__(self, loss_function: Sequence[Sequence[Any]], sample_rate: int = 44100):
        super().__init__()
        if not loss_function:
            raise UserError("expected at least one loss, found none", key="train_config.loss_function")
        self.losses = nn.ModuleList()
        self._terms: list[tuple[str, dict[str, str], float]] = []
        for name, output, weight, arguments in map(_complete, loss_function):
            loss = _make_loss(name, arguments, sample_rate)
            self.losses.append(loss)
            self._terms.append((name, _arguments(loss, output), weight))

    def check(self, outputs: Sequence[str], data_keys: Sequence[str]) -> None:
        """Raises UserError if a loss needs a key that neither the network nor the data provides."""
        for name, arguments, _ in self._terms:
            for key in arguments:
                if key not in (*outputs, *data_keys):
                    raise UserError(
                        f"{name} needs {key}, which is neither an output of the model ({', '.join(outputs)}) nor in "
                        f"data_keys_for_training ({', '.join(data_keys)})",
                        key="train_config.loss_function",
                    )

    def scale_free_outputs(self) -> set[str]:
        """Outputs of the network whose norm along the last axis does not matter, because every loss normalizes it."""
        names = {key: [] for _, arguments, _ in self._terms for key in arguments}
        for loss, (_, arguments, _) in zip(self.losses, self._terms, strict=True):
            for key, argument in arguments.items():
                free = argument == "embedding" and type(loss).__name__ in ("DeepClusteringLoss", "WhitenedKMeansLoss")
                names[key].append(free)
        return {key for key, free in names.items() if all(free)}

    def forward(self, output: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Args:
            output: Outputs of the network.
            batch: Data to compare them with, by data key.
        """
        values = {**batch, **output}
        total = torch.zeros((), device=next(iter(output.values())).device)
        for loss, (_, arguments, weight) in zip(self.losses, self._terms, strict=True):
            if weight:
                total = total + weight * loss(**{argument: values[key] for key, argument in arguments.items()})
        return total


def loss_dictionary(loss_function: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The losses in the form of nussl's Closure, for the metadata of checkpoints."""
    described = {}
    for number, (name, output, weight, arguments) in enumerate(map(_complete, loss_function)):
        loss = _make_loss(name, arguments)
        entry = {"class": type(loss).__name__, "weight": weight, "keys": _arguments(loss, output)}
        if isinstance(getattr(loss, "loss_function", None), nn.Module):
            entry["args"] = [type(loss.loss_function).__name__]
        described[f"{number}:{name}"] = entry
    return described


def _complete(entry: Sequence[Any]) -> tuple[str, str, float, Mapping[str, Any]]:
    """Name, output, weight (default 1) and arguments (default none) of an entry of the list."""
    name, output, *rest = entry
    weight, arguments, *_ = [*rest, *(1.0, {})[len(rest) :]]
    return str(name), output, float(weight), arguments


def _arguments(loss: nn.Module, output: str) -> dict[str, str]:
    """The argument of the loss for each output or data key; the first argument takes the output."""
    keys = loss.DEFAULT_KEYS
    if isinstance(getattr(loss, "loss_function", None), nussl.ml.train.loss.SISDRLoss):
        keys = {"audio": "estimates", "source_audio": "targets"}
    (_, first), *others = keys.items()
    return {output: first, **dict(others)}


def _make_loss(name: str, arguments: Mapping[str, Any], sample_rate: int = 44100) -> nn.Module:
    waveform = LossEntry.read(name, arguments)
    if waveform is not None:
        return _make_waveform_loss(waveform, sample_rate)
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


def _make_waveform_loss(entry: LossEntry, sample_rate: int) -> nn.Module:
    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in entry.arguments.items()}
    if entry.name == "SISDRLoss":
        if entry.wrapper == "PermutationInvariantLoss":
            return PermutationInvariantSISDRLoss(**arguments)
        return MixITLoss(SISDRWaveformLoss(**arguments))
    loss_class = _WAVEFORM_CLASSES.get(entry.name)
    if loss_class is None:
        raise UserError(
            f"{entry.wrapper} needs a loss on waveforms, found {entry.name!r}; expected one of "
            f"{', '.join([*_WAVEFORM_CLASSES, 'SISDRLoss'])}",
            key="train_config.loss_function",
        )
    if "sample_rate" in inspect.signature(loss_class).parameters:
        arguments.setdefault("sample_rate", sample_rate)
    loss = loss_class(**arguments)
    wrappers = {"PermutationInvariantLoss": PermutationInvariantWaveformLoss, "MixITLoss": MixITLoss}
    return loss if entry.wrapper is None else wrappers[entry.wrapper](loss)


def _find_class(class_name: str, name: str) -> type[nn.Module]:
    if class_name == "DeepClusteringLoss":
        return DeepClusteringLoss
    found = getattr(nussl.ml.train.loss, class_name, None)
    if not (isinstance(found, type) and hasattr(found, "DEFAULT_KEYS")):
        known = [key for key, value in vars(nussl.ml.train.loss).items() if hasattr(value, "DEFAULT_KEYS")]
        expected = ", ".join([*SHORT_NAMES, "pit:l1", "pit:mse", *known, *_WAVEFORM_CLASSES])
        raise UserError(
            f"unknown loss {name!r}; expected one of {expected}",
            key="train_config.loss_function",
        )
    return found
