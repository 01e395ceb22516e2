"""nussl's deep algorithms for many items at a time: the network on batches, the rest as array operations.

Estimates equal those of nussl's DeepClustering, DeepMaskEstimation and DeepAudioEstimation to a few units of single
precision. nussl itself processes one item at a time, computes each STFT four times, and copies signals.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from separation.data.items import Item
from separation.errors import UserError
from separation.experiment.nussl_signatures import OUTPUT_OF_ALGORITHM
from separation.features.spectra import stft, window
from separation.machine.jit import jit

_KIND_OF = {"embedding": "deep clustering", "mask": "deep mask estimation", "audio": "deep audio estimation"}


class DeepSeparation:
    """One of nussl's deep algorithms, ready to use, on batches of items.

    Args:
        algorithm: An instance for which `fits` is true.
    """

    def __init__(self, algorithm: Any):
        from separation.nussl_compat import nussl

        self._algorithm = algorithm
        self._name = type(algorithm).__name__
        self._output = OUTPUT_OF_ALGORITHM[self._name]
        self._binary = getattr(algorithm, "mask_type", None) is nussl.core.masks.BinaryMask
        self._mono = algorithm.metadata["num_channels"] == 1
        self._magnitude_only = _gives_magnitude_only(algorithm.transform)
        embedding = nussl.ml.networks.modules.Embedding
        for module in algorithm.model.modules():
            # a derived class may use its activation differently
            if type(module) is embedding and set(module.activation) <= {"sigmoid", "unit_norm"}:
                _activate_in_place(module)

    @staticmethod
    def fits(algorithm: Any) -> bool:
        """Whether it is one of nussl's own deep algorithms, and not of a derived class, which may differ."""
        from separation.nussl_compat import nussl

        return any(type(algorithm) is getattr(nussl.separation.deep, name, None) for name in OUTPUT_OF_ALGORITHM)

    def outputs(self, items: Sequence[Item]) -> list[np.ndarray]:
        """The output of the network for each item; items of the same length go through it together.

        Returns:
            For each item (frequency, time, channels, n) of embeddings or masks, or (channels, samples, n) of audio.

        Raises:
            UserError: The algorithm needs another kind of model.
        """
        inputs = [self._input(item) for item in items]
        groups: dict[tuple, list[int]] = {}
        for index, data in enumerate(inputs):
            groups.setdefault(tuple((key, data[key].shape) for key in data), []).append(index)
        found: list[Any] = [None] * len(items)
        for members in groups.values():
            data = {key: torch.cat([inputs[index][key] for index in members]) for key in inputs[members[0]]}
            data = {key: value.to(self._algorithm.device) for key, value in data.items()}
            with torch.inference_mode():
                output = self._algorithm.model(data)
            if self._output not in output:
                raise UserError(
                    f"{self._name} needs a {_KIND_OF[self._output]} model: "
                    f"expected an output '{self._output}', found {', '.join(output)}",
                    key="algorithm_config.class",
                )
            rows = output[self._output].cpu()
            each = len(rows) // len(members)
            for position, index in enumerate(members):
                found[index] = self._arranged(rows[position * each : (position + 1) * each])
        return found

    def estimates(self, item: Item, output: np.ndarray, seed: int) -> list[np.ndarray]:
        """The estimates of one item, each (channels, samples), from its output.

        Safe to call from several threads. `seed` determines the initial cluster centres. NaN and infinities in the
        output stay in the estimates, so that they have no scores.
        """
        if self._output == "audio":
            return [np.ascontiguousarray(output[..., n]) for n in range(output.shape[-1])]
        mixture = item.mixture
        if mixture.stft_data is None:
            mixture.stft()
        spectrum = mixture.stft_data
        masks = output
        undefined = not np.isfinite(output).all()
        if undefined and (self._output == "embedding" or self._binary):
            # neither clusters nor the greatest mask are defined then
            sources = self._algorithm.num_sources if self._output == "embedding" else output.shape[-1]
            return [np.full(mixture.audio_data.shape, np.nan, np.float32)] * sources
        if self._output == "embedding":
            if output.shape[:-1] != spectrum.shape:
                raise UserError(
                    f"{self._name}: the embedding does not fit the STFT: "
                    f"expected {spectrum.shape}, found {output.shape[:-1]}",
                    key="algorithm_config.class",
                )
            masks = self._cluster(output, np.abs(spectrum), seed)
        if self._binary:
            masks = masks == masks.max(axis=-1, keepdims=True)
        # (sources, channels, time, frequency): the memory order of masks and of the inverse transform
        masked = masks.transpose(3, 2, 1, 0) * np.ascontiguousarray(spectrum.transpose(2, 1, 0), np.complex64)
        parameters = mixture.stft_params
        audio = istft(
            masked.swapaxes(2, 3),
            n_fft=parameters.window_length,
            hop_length=parameters.hop_length,
            window_type=parameters.window_type,
            samples=mixture.signal_length,
        )
        return list(audio)

    def _input(self, item: Item) -> dict[str, torch.Tensor]:
        """The inputs of the network for one item, each tensor with a leading batch axis."""
        algorithm, mixture = self._algorithm, item.mixture
        mixture.stft_params = algorithm.metadata["stft_params"]
        if self._magnitude_only:
            tensors = {"mix_magnitude": _magnitude(mixture).unsqueeze(0)}
        else:
            data = algorithm.transform({"mix": mixture})
            tensors = {key: value.unsqueeze(0).float() for key, value in data.items() if torch.is_tensor(value)}
        if self._mono:
            # each channel separately, as another item
            tensors = {key: value.transpose(0, algorithm.channel_dim) for key, value in tensors.items()}
        return tensors

    def _arranged(self, rows: torch.Tensor) -> np.ndarray:
        """The output rows of one item, with the axes in the order of its STFT or audio."""
        if self._output == "audio":
            rows = rows.transpose(0, 1) if self._mono else rows
            return rows.squeeze(0).numpy()
        rows = rows.transpose(0, -2) if self._mono else rows
        return rows.squeeze(0).transpose(0, 1).numpy()

    def _cluster(self, features: np.ndarray, magnitude: np.ndarray, seed: int) -> np.ndarray:
        algorithm = self._algorithm
        clusterer = copy.copy(algorithm.clusterer)
        clusterer.random_state = seed
        # (time, frequency, channels, n), the memory order of the output; another order would need a copy
        rows = np.ascontiguousarray(features.swapaxes(0, 1))
        flat = rows.reshape(-1, rows.shape[-1])
        if algorithm.fit_clusterer:
            # in nussl's order, which the initial cluster centres depend on
            frequency, time, channel = np.nonzero(magnitude >= np.percentile(magnitude, algorithm.percentile))
            clusterer.fit(rows[time, frequency, channel])
        if "KMeans" in algorithm.clustering_type:
            found = responsibilities(flat, np.asarray(clusterer.cluster_centers_, flat.dtype), float(algorithm.beta))
        else:
            found = clusterer.predict_proba(flat)
        return found.reshape(*rows.shape[:-1], -1).swapaxes(0, 1)


def _gives_magnitude_only(transform: Any) -> bool:
    """Whether nussl's transforms compute only `mix_magnitude` from a mixture without sources."""
    from separation.nussl_compat import nussl

    known = nussl.datasets.transforms
    spectra = (known.MagnitudeSpectrumApproximation, known.PhaseSensitiveSpectrumApproximation)
    steps = transform.transforms if type(transform) is known.Compose else [transform]
    return [type(step) in spectra for step in steps] == [True, False] and type(steps[1]) is known.ToSeparationModel


def _magnitude(mixture: Any) -> torch.Tensor:
    """Magnitudes (time, frequency, channels), single precision; the mixture keeps the spectrum, as after `stft`."""
    parameters = mixture.stft_params
    spectrum = stft(
        torch.from_numpy(np.asarray(mixture.audio_data, np.float64)),
        n_fft=parameters.window_length,
        hop_length=parameters.hop_length,
        window_type=parameters.window_type,
    ).numpy()
    mixture.stft_data = spectrum.transpose(2, 1, 0)
    # numpy's is ten times as fast as torch's
    return torch.from_numpy(np.abs(spectrum).astype(np.float32)).permute(1, 2, 0)


def _activate_in_place(embedding: torch.nn.Module) -> None:
    """Replaces the activations of nussl's Embedding with in-place ones, because allocation takes as long as computing.

    Not for training, which needs the inputs of the activations.
    """
    activation, embedding.activation = embedding.activation, []

    def activate(module: torch.nn.Module, arguments: tuple, output: torch.Tensor) -> torch.Tensor:
        if "sigmoid" in activation:
            output.sigmoid_()
        if "unit_norm" in activation:
            output.div_(torch.linalg.vector_norm(output, dim=-1, keepdim=True).clamp_min_(1e-12))
        return output

    embedding.register_forward_hook(activate)


def istft(spectra: np.ndarray, *, n_fft: int, hop_length: int, window_type: str, samples: int) -> np.ndarray:
    """The inverse of `features.spectra.stft`, equal to scipy.signal.istft, for any number of spectra at once.

    Args:
        spectra: Complex array (..., frequency, time).
        n_fft, hop_length, window_type: Parameters of the transform.
        samples: Length of the result, which is shorter if the spectra are.

    Returns:
        Audio (..., samples) in the precision of the spectra.
    """
    taper = window(window_type, n_fft)
    frames = np.fft.irfft(np.swapaxes(spectra, -1, -2), n_fft)
    frames = frames * (taper * taper.sum()).astype(frames.dtype)
    audio = _overlap_add(frames, hop_length)
    norm = _overlap_add(np.broadcast_to(np.square(taper), (frames.shape[-2], n_fft)), hop_length)
    length = (frames.shape[-2] - 1) * hop_length + n_fft
    inside = slice(n_fft // 2, length - n_fft // 2)
    norm = np.where(norm > 1e-10, norm, 1.0)[inside].astype(audio.dtype)
    return (audio[..., inside] / norm)[..., :samples]


def _overlap_add(frames: np.ndarray, hop_length: int) -> np.ndarray:
    """The overlap-add of frames (..., time, n_fft); a few zeros may follow."""
    count, n_fft = frames.shape[-2:]
    pieces = -(-n_fft // hop_length)
    if n_fft % hop_length:
        frames = np.pad(frames, [(0, 0)] * (frames.ndim - 1) + [(0, pieces * hop_length - n_fft)])
    split = frames.reshape(*frames.shape[:-1], pieces, hop_length)
    total = np.zeros((*frames.shape[:-2], count + pieces - 1, hop_length), frames.dtype)
    for piece in range(pieces):
        total[..., piece : piece + count, :] += split[..., piece, :]
    return total.reshape(*total.shape[:-2], -1)


def responsibilities(points: np.ndarray, centres: np.ndarray, beta: float) -> np.ndarray:
    """Soft k-means: exp(-beta x distance) of each point to each centre, normalized to a sum of 1 over the centres.

    Args:
        points: Shape (n, dimensions).
        centres: Shape (clusters, dimensions).
        beta: Stiffness of the assignment.

    Returns:
        Shape (n, clusters), in the precision of `points`.
    """
    # clusters first: numpy is fast along the longer axis
    weights = squared_distances(points, centres)
    np.sqrt(weights, out=weights)
    weights *= -beta
    np.exp(weights, out=weights)
    weights += 1e-8
    weights /= weights.sum(axis=0)
    return weights.T


def _squared_distances(points, centres):
    """Squared distances of (n, dimensions) points to (clusters, dimensions) centres: (clusters, n)."""
    found = np.empty((centres.shape[0], points.shape[0]), points.dtype)
    for n in range(points.shape[0]):
        for k in range(centres.shape[0]):
            square = 0.0
            for d in range(points.shape[1]):
                difference = points[n, d] - centres[k, d]
                square += difference * difference
            found[k, n] = square
    return found


squared_distances = jit(_squared_distances)
