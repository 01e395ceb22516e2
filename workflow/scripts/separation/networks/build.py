"""Networks from an experiment: nussl's SeparationModel, with any torch module in it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from separation.errors import UserError
from separation.experiment.options import NetworkOptions
from separation.networks.adapter import register_adapter
from separation.nussl_compat import nussl

logger = logging.getLogger(__name__)


def build_model(
    options: NetworkOptions, *, seed: int, num_frequencies: int, num_channels: int = 1, num_samples: int = 8000
) -> torch.nn.Module:
    """Builds the network and tries it on a few frames of noise.

    Args:
        options: Modules, connections and outputs in the form of nussl 1.1.9,
            https://nussl.github.io/docs/deep_learning.html; not changed.
        seed: Seed of the initial weights; torch's global random state is not changed.
        num_frequencies, num_channels: Size of the spectrograms that the network reads.
        num_samples: Minimum length of the waveforms that the network reads.

    Returns:
        nussl.ml.SeparationModel in training mode, on the CPU.

    Raises:
        UserError: The model cannot be built, or does not fit spectrograms of that size.
    """
    register_adapter()
    config = {key: copy.deepcopy(getattr(options, key)) for key in ("modules", "connections", "output")}
    config["name"] = options.name
    _check_classes(config["modules"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = nussl.ml.SeparationModel(config)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(f"the model cannot be built: {error}", key="model_config.modules") from error
        _check_size(model, num_frequencies, num_channels, num_samples)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("model %s with %d parameters", config["name"], count)
    return model.train()


@contextmanager
def without_unit_norm(model: torch.nn.Module, outputs: Collection[str]) -> Iterator[None]:
    """Skips the unit norm of embeddings that are used as `outputs` only, while the block runs.

    If the loss normalizes its input, loss and gradient are the same without the network's own normalization, and a step
    on a CPU takes a third less time. The saved network keeps the normalization, as clustering needs it.

    Args:
        model: SeparationModel.
        outputs: Names of outputs whose norm does not matter.
    """
    read_inside = {source for _, sources in model.connections for source in sources if isinstance(source, str)}
    layers = [model.layers[name] for name in outputs if name in model.layers and name not in read_inside]
    activations = [
        (layer, layer.activation) for layer in layers if isinstance(layer, nussl.ml.networks.modules.Embedding)
    ]
    for layer, activation in activations:
        # a new list: the old one belongs to the model's config
        layer.activation = [name for name in activation if name != "unit_norm"]
    try:
        yield
    finally:
        for layer, activation in activations:
            layer.activation = activation


def _check_classes(modules: Mapping[str, Any]) -> None:
    for name, module in modules.items():
        known = "class" not in module or any(
            hasattr(package, module["class"]) for package in (nussl.ml.networks.modules, torch.nn)
        )
        if not known:
            raise UserError(
                f"neither nussl.ml.networks.modules nor torch.nn has a class {module['class']!r}",
                key=f"model_config.modules.{name}.class",
            )


def _check_size(model: torch.nn.Module, num_frequencies: int, num_channels: int, num_samples: int) -> None:
    """One forward pass without gradients, in evaluation mode so that running means do not change."""
    inputs = {
        "mix_magnitude": torch.rand(2, 4, num_frequencies, num_channels),
        "mix_audio": torch.rand(2, num_channels, num_samples),
    }
    inputs = {key: value for key, value in inputs.items() if key in model.input}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(inputs)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        expected = (
            f"spectrograms of {num_frequencies} frequencies and {num_channels} channels (n_fft / 2 + 1, num_channels)"
        )
        if "mix_magnitude" not in inputs:
            expected = (
                f"waveforms of {num_samples} samples and {num_channels} channels (length x hop_length, num_channels)"
            )
        raise UserError(
            f"the model does not fit {expected}: {error}",
            key="model_config",
        ) from error
    finally:
        model.train(was_training)
