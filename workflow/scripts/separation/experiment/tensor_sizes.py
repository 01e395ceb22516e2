"""Tensor sizes in a network, compared with the arguments of its modules.

Sizes are followed through the known modules of nussl 1.1.9. After any other module (a torch layer, the user's own) they
are unknown and not checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from separation.files.yaml_reader import KeyPath

# dimensions of a module's output after batch and time; None where unknown
Shape = tuple[int, ...] | None

_KEEPS_SHAPE = {"AmplitudeToDB", "BatchNorm", "InstanceNorm", "GroupNorm", "LayerNorm", "ShiftAndScale"}
# inputs of networks that are spectrograms
_SPECTROGRAMS = {"mix_magnitude"}


class TensorSizes:
    """Sizes of the tensors in a network.

    Args:
        config: Complete config of a point.
    """

    def __init__(self, config: Mapping[str, Any]):
        section = config["dataset_config"]
        self.modules = config["model_config"]["modules"]
        self.connections = config["model_config"]["connections"]
        self.frequencies = section["n_fft"] // 2 + 1
        self.channels = section["num_channels"]
        self.shapes: dict[str, Shape] = {
            name: (self.frequencies, self.channels) if name in _SPECTROGRAMS else None
            for name, module in self.modules.items()
            if "class" not in module
        }
        self.reasons: dict[str, str] = {name: f"n_fft // 2 + 1 = {self.frequencies}" for name in self.shapes}

    def check(self) -> tuple[KeyPath, str] | None:
        """The first mismatch: key path and message; None where all sizes fit."""
        for name, sources, *_ in self.connections:
            inputs = [self.shapes.get(source) if isinstance(source, str) else None for source in sources]
            mistake = self._follow(name, self.modules[name], sources, inputs)
            if mistake is not None:
                return mistake
        return None

    def _follow(
        self, name: str, module: Mapping[str, Any], sources: Sequence[Any], inputs: list[Shape]
    ) -> tuple[KeyPath, str] | None:
        kind, arguments = module["class"], module.get("args", {})
        path: KeyPath = ("model_config", "modules", name, "args")
        first = inputs[0] if inputs else None
        source = sources[0] if sources and isinstance(sources[0], str) else "its input"
        if kind in _KEEPS_SHAPE:
            self.shapes[name] = first
            self.reasons[name] = self.reasons.get(source, "")
        elif kind == "MelProjection":
            return self._mel(name, arguments, path, first)
        elif kind == "RecurrentStack":
            return self._recurrent(name, arguments, path, first, source)
        elif kind == "Embedding":
            return self._embedding(name, arguments, path, first, source)
        elif kind == "Mask":
            mask = first
            if mask is not None and len(inputs) > 1 and inputs[1] is not None and mask[:-1] != inputs[1]:
                return path[:-1], f"expected a mask of size {_size(inputs[1])}, found {_size(mask[:-1])}"
            self.shapes[name] = mask
        else:
            self.shapes[name] = None
        return None

    def _mel(self, name: str, arguments: Mapping[str, Any], path: KeyPath, shape: Shape) -> tuple[KeyPath, str] | None:
        frequencies, mels = arguments.get("num_frequencies"), arguments.get("num_mels", -1)
        if shape is not None and isinstance(frequencies, int) and frequencies != shape[0]:
            return (*path, "num_frequencies"), f"expected {shape[0]} (n_fft // 2 + 1), found {frequencies}"
        if shape is None:
            self.shapes[name] = None
        else:
            self.shapes[name] = (mels if isinstance(mels, int) and mels > 0 else shape[0], *shape[1:])
        self.reasons[name] = f"{name} outputs {_size(self.shapes[name])}"
        return None

    def _recurrent(
        self, name: str, arguments: Mapping[str, Any], path: KeyPath, shape: Shape, source: str
    ) -> tuple[KeyPath, str] | None:
        features, hidden = arguments.get("num_features"), arguments.get("hidden_size")
        for required in ("num_features", "hidden_size", "num_layers", "bidirectional", "dropout"):
            if required not in arguments:
                return path, f"missing argument '{required}'"
        if shape is not None and isinstance(features, int) and features != math.prod(shape):
            return (*path, "num_features"), f"expected {self._reason(shape, source)}, found {features}"
        if isinstance(hidden, int):
            self.shapes[name] = (hidden * (2 if arguments.get("bidirectional") else 1),)
            both = "2 x " if arguments.get("bidirectional") else ""
            self.reasons[name] = f"{both}hidden_size of {name}"
        return None

    def _embedding(
        self, name: str, arguments: Mapping[str, Any], path: KeyPath, shape: Shape, source: str
    ) -> tuple[KeyPath, str] | None:
        for required in ("num_features", "hidden_size", "embedding_size", "activation"):
            if required not in arguments:
                return path, f"missing argument '{required}'"
        features, hidden = arguments["num_features"], arguments["hidden_size"]
        dims = arguments.get("dim_to_embed", -1)
        if shape is not None and dims in (-1, [-1]) and isinstance(hidden, int) and hidden != shape[-1]:
            return (*path, "hidden_size"), f"expected {self._reason(shape[-1:], source)}, found {hidden}"
        channels = arguments.get("num_audio_channels", 1)
        if not all(isinstance(value, int) for value in (features, channels, arguments["embedding_size"])):
            return None
        if channels != self.channels:
            return (*path, "num_audio_channels"), (
                f"expected {self.channels} (dataset_config.num_channels), found {channels}"
            )
        whole = shape is None or len(shape) == 1
        self.shapes[name] = (features, channels, arguments["embedding_size"]) if whole else None
        self.reasons[name] = f"num_features of {name}"
        return None

    def _reason(self, shape: tuple[int, ...], source: str) -> str:
        reason = self.reasons.get(source)
        if shape == (self.frequencies, self.channels):
            reason = "n_fft // 2 + 1" if self.channels == 1 else "(n_fft // 2 + 1) x num_channels"
        return f"{math.prod(shape)} ({reason or f'the output of {source}'})"


def _size(shape: Shape) -> str:
    return "an unknown size" if shape is None else " x ".join(str(value) for value in shape)
