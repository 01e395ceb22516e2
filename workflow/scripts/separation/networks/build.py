"""nussl's SeparationModel from a model_config."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from separation.errors import UserError
from separation.nussl_compat import nussl

logger = logging.getLogger(__name__)


def build_model(
    model_config: Mapping[str, Any], *, seed: int, num_frequencies: int, num_channels: int = 1, num_samples: int = 8000
) -> torch.nn.Module:
    """Builds the network and tries it on a few frames of noise.

    Args:
        model_config: class (SeparationModel), modules, connections, output and an optional name: nussl 1.1.9's own
            form, https://nussl.github.io/docs/deep_learning.html. It is not changed.
        seed: of the initial weights. The global random state of torch is left as it was.
        num_frequencies, num_channels: size of the spectrograms that the network will read.
        num_samples: length of the waveforms that it will read at least.

    Returns:
        nussl.ml.SeparationModel in training mode, on the CPU.

    Raises:
        UserError: where the model cannot be built, or does not fit spectrograms of that size.
    """
    if model_config.get("class", "SeparationModel") != "SeparationModel":
        raise UserError(f"expected SeparationModel, found {model_config['class']!r}", key="model_config.class")
    config = {key: copy.deepcopy(model_config[key]) for key in ("modules", "connections", "output")}
    config["name"] = model_config.get("name") or "SeparationModel"
    _check_classes(config["modules"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = nussl.ml.SeparationModel(config)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(f"the model cannot be built: {error}", key="model_config.modules") from error
        _try_out(model, num_frequencies, num_channels, num_samples)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("model %s with %d parameters", config["name"], count)
    return model.train()


@contextmanager
def without_unit_norm(model: torch.nn.Module, outputs: Collection[str]) -> Iterator[None]:
    """Leaves out the unit norm of embeddings that end in `outputs` and nowhere else, for as long as the block lasts.

    A loss that normalizes its input makes the network's own normalization idle: loss and gradient are the same without
    it, and a step on a CPU takes a third less time. The network that is saved keeps it, as clustering needs it.

    Args:
        model: a SeparationModel.
        outputs: names of outputs whose length nobody looks at.
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
            hasattr(place, module["class"]) for place in (nussl.ml.networks.modules, torch.nn)
        )
        if not known:
            raise UserError(
                f"neither nussl.ml.networks.modules nor torch.nn has a {module['class']!r}",
                key=f"model_config.modules.{name}.class",
            )


def _try_out(model: torch.nn.Module, num_frequencies: int, num_channels: int, num_samples: int) -> None:
    """One pass without learning, in evaluation mode so that running means stay untouched."""
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
