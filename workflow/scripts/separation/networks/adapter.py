"""Any torch module as a module of nussl's SeparationModel."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from separation.errors import UserError
from separation.nussl_compat import nussl


class TorchNetwork(nn.Module):
    """A network on waveforms, whatever the order of its axes and the form of its output.

    Args:
        network: Import path of a class, or the name of a registered one (the user's own).
        args: Its arguments. A list becomes a tuple where the class asks for one, as YAML has no tuples.
        axes: Order of the axes of its input and output: b batch, c channels, t samples, s sources. Without c it is
            mono, without s it gives one source.
        select: Where it returns tuples or dictionaries: the positions or keys that lead to the estimates.

    Raises:
        UserError: The class does not exist, is no module, or cannot be built with these arguments.
    """

    def __init__(
        self,
        network: str,
        args: Mapping[str, Any] | None = None,
        axes: Mapping[str, str] | None = None,
        select: Sequence[str | int] = (),
    ):
        super().__init__()
        self.input_axes = (axes or {}).get("input", "b c t").split()
        self.output_axes = (axes or {}).get("output", "b s c t").split()
        self.select = list(select)
        found = _find_class(network)
        #: arguments as the class gets them
        self.arguments = _with_tuples(found, args or {})
        try:
            self.network = found(**self.arguments)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{network} cannot be built: {type(error).__name__}: {_one_line(error)}", key="model_config.args"
            ) from error

    def forward(self, mix_audio: torch.Tensor) -> torch.Tensor:
        """Separates a batch.

        Args:
            mix_audio: (batch, channels, samples).

        Returns:
            Estimates (batch, channels, samples, sources), cut to the length of the mixtures.

        Raises:
            UserError: The output is not a tensor of the described axes, or shorter than the mixtures.
        """
        samples = mix_audio.shape[-1]
        given = mix_audio if "c" in self.input_axes else mix_audio.squeeze(1)
        present = [axis for axis in "bct" if axis in self.input_axes]
        output = self.network(given.permute([present.index(axis) for axis in self.input_axes]))
        for key in self.select:
            output = self._selected(output, key)
        if not isinstance(output, torch.Tensor):
            raise UserError(
                f"expected a tensor of estimates, found {_described(output)}; name one in model_config.select",
                key="model_config.select",
            )
        if output.ndim != len(self.output_axes):
            raise UserError(
                f"expected an output with the axes {' '.join(self.output_axes)}, found the shape "
                f"{' x '.join(map(str, output.shape))}",
                key="model_config.axes.output",
            )
        order = list(self.output_axes)
        for axis in "cs":
            if axis not in order:
                output = output.unsqueeze(-1)
                order.append(axis)
        estimates = output.permute([order.index(axis) for axis in "bcts"])
        if estimates.shape[2] < samples:
            raise UserError(
                f"expected estimates of {samples} samples, like the mixtures, found {estimates.shape[2]}",
                key="model_config.axes.output",
            )
        return estimates[:, :, :samples]

    def _selected(self, output: Any, key: str | int) -> Any:
        try:
            return output[key]
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"the output has no {key!r}; it is {_described(output)}", key="model_config.select"
            ) from error


def register_adapter() -> None:
    """Makes TorchNetwork known to nussl, which finds the modules of a network by their names."""
    if not hasattr(nussl.ml.networks.modules, TorchNetwork.__name__):
        nussl.ml.register_module(TorchNetwork)


def _find_class(network: str) -> type[nn.Module]:
    module, _, name = network.rpartition(".")
    if not module:
        found = getattr(nussl.ml.networks.modules, name, None)
    else:
        try:
            found = getattr(importlib.import_module(module), name, None)
        except Exception as error:
            raise UserError(
                f"{module} cannot be imported: {type(error).__name__}: {_one_line(error)}", key="model_config.class"
            ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"expected a torch.nn.Module, found {network} = {found!r}", key="model_config.class")
    return found


def _with_tuples(found: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with lists as tuples where the annotation of the parameter or its default is a tuple."""
    parameters = inspect.signature(found).parameters

    def wants_tuple(name: str) -> bool:
        parameter = parameters.get(name)
        return parameter is not None and (
            "tuple" in str(parameter.annotation).lower() or isinstance(parameter.default, tuple)
        )

    return {
        name: _as_tuple(value) if isinstance(value, list) and wants_tuple(name) else value
        for name, value in arguments.items()
    }


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _described(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a dictionary of {', '.join(map(str, output))}"
    if isinstance(output, (list, tuple)):
        return f"{len(output)} values"
    return f"of type {type(output).__name__}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
