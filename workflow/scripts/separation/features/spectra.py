"""Time-frequency features and targets for training, from the audio of a mixture and its sources.

The values equal those of nussl's transforms (PhaseSensitiveSpectrumApproximation, MagnitudeSpectrumApproximation,
MagnitudeWeights) on nussl's STFT; tests compare them. They are computed without the trigonometry and the copies of the
originals, in the layout that nussl's networks read: (time, frequency, channels[, sources]).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from separation.errors import UserError
from separation.experiment.options import DatasetOptions
from separation.features.targets import fill_targets

#: waveforms, for networks that work on them
AUDIO_KEYS = ("mix_audio", "source_audio")
#: valid entries of `dataset_config.data_keys_for_training`
DATA_KEYS = ("mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights", *AUDIO_KEYS)
FEATURES = ("mix_magnitude", "source_magnitudes", "ideal_binary_mask")
#: frames that are transformed at a time
BLOCK = 128
OUTPUT_TYPES = ("psa", "msa")
WEIGHT_TYPES = ("magnitude", "equal", "threshold")
#: weights of the cosines that the windows are sums of, as in scipy.signal.windows
_COSINES = {"hann": (0.5, 1 - 0.5), "hamming": (0.54, 1 - 0.54), "blackman": (0.42, 0.50, 0.08)}


@dataclass(frozen=True)
class Features:
    """Features and targets of one mixture; a target that was not requested is None.

    Attributes:
        mix_magnitude: Magnitude of the mixture's STFT, (time, frequency, channels), float32.
        source_magnitudes: Target magnitude of each source, (time, frequency, channels, sources), float32.
        ideal_binary_mask: Whether a source is louder than all others, same shape as `source_magnitudes`, bool. A bin
            where sources tie belongs to none.
        sources: Names of the sources, in the order of the last axis.
    """

    mix_magnitude: np.ndarray
    source_magnitudes: np.ndarray | None
    ideal_binary_mask: np.ndarray | None
    sources: tuple[str, ...]


def check_features(options: DatasetOptions) -> None:
    """Raises UserError, naming the key, if dataset options request features that do not exist."""
    keys = options.data_keys_for_training
    for key in keys:
        if key not in DATA_KEYS:
            raise UserError(
                f"expected some of {', '.join(DATA_KEYS)}, found {key!r}", key="dataset_config.data_keys_for_training"
            )
    if not {"mix_magnitude", "mix_audio"} & set(keys):
        raise UserError(
            f"the input of the network, mix_magnitude or mix_audio, is missing in {list(keys)}",
            key="dataset_config.data_keys_for_training",
        )
    for key, value, known in (
        ("output_type", options.output_type, OUTPUT_TYPES),
        ("format", options.format, ("rnn",)),
        *(("weight_type", weight_type, WEIGHT_TYPES) for weight_type in options.weight_type),
    ):
        if value not in known:
            raise UserError(f"expected one of {', '.join(known)}, found {value!r}", key=f"dataset_config.{key}")
    if "threshold" in options.weight_type and options.weight_threshold is None:
        raise UserError("weight_type threshold needs a weight_threshold", key="dataset_config.weight_threshold")


def window(window_type: str, window_length: int) -> np.ndarray:
    """The analysis window, as in nussl: one of scipy's windows by name, or sqrt_hann, the square root of the periodic
    Hann window."""
    if window_type == "sqrt_hann":
        return np.sqrt(window("hann", window_length))
    if window_type in _COSINES and window_length > 1:
        # the operations of scipy, bit for bit: importing scipy.signal takes half as long as importing torch
        phase = np.linspace(-np.pi, np.pi, window_length + 1)
        taper = np.zeros(window_length + 1)
        for k, weight in enumerate(_COSINES[window_type]):
            taper += weight * np.cos(k * phase)
        return taper[:-1]
    import scipy.signal

    return scipy.signal.get_window(window_type, window_length)


def count_frames(samples: Any, *, n_fft: int, hop_length: int) -> Any:
    """Number of STFT frames of `samples` samples, a number or an array; see `stft`."""
    return -(-(samples + 2 * (n_fft // 2) - n_fft) // hop_length) + 1


def stft(audio: torch.Tensor, *, n_fft: int, hop_length: int, window_type: str) -> torch.Tensor:
    """The short-time Fourier transform with the framing and scaling of `scipy.signal.stft`, which nussl uses.

    The audio is padded with half a window of zeros on both sides, then with zeros to a whole number of hops. Spectra
    are divided by the sum of the window.

    Args:
        audio: Waveforms, (..., samples), float32 or float64; the transform has the same precision.
        n_fft: Length of window and transform, in samples.
        hop_length: Hop, in samples.
        window_type: Name of the window, see `window`.

    Returns:
        (..., time, frequency), complex; frequency has n_fft // 2 + 1 bins.
    """
    samples = audio.shape[-1]
    frames = count_frames(samples, n_fft=n_fft, hop_length=hop_length)
    padded = torch.nn.functional.pad(audio, (n_fft // 2, (frames - 1) * hop_length + n_fft - n_fft // 2 - samples))
    return spectra_of_frames(padded, n_fft=n_fft, hop_length=hop_length, window_type=window_type)


def spectra_of_frames(audio: torch.Tensor, *, n_fft: int, hop_length: int, window_type: str) -> torch.Tensor:
    """The spectra, scaled as in `stft`, of the frames that are wholly within `audio`; the first starts at sample 0.

    Frame t of a file is centred on sample t x hop_length, so an excerpt from frame t on needs the samples from
    t x hop_length - n_fft // 2 on, zeros outside of the file.
    """
    frames = audio.unfold(-1, n_fft, hop_length)
    return torch.fft.rfft(frames * _taper(window_type, n_fft, audio.dtype, audio.device))


@lru_cache(maxsize=16)
def _taper(window_type: str, n_fft: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    taper = window(window_type, n_fft)
    return torch.from_numpy(taper / taper.sum()).to(device, dtype)


class Targets:
    """Training targets of spectra, each computed when it is requested.

    Args:
        mixture: STFT of the mixture, (...), complex.
        sources: STFTs of the sources, (sources, ...), complex.
        output_type: psa, the truncated phase-sensitive approximation: |S| cos(angle(S) - angle(M)), kept within 0 and
            |M|, from Erdogan et al., "Phase-sensitive and recognition-boosted speech separation using deep recurrent
            neural networks", ICASSP 2015; or msa, |S|.

    The cosine is taken as Re(S conj(M)) / (|S| |M|), which needs no angle.
    """

    def __init__(self, mixture: torch.Tensor, sources: torch.Tensor, output_type: str):
        self._phase_sensitive = output_type == "psa"
        conjugate = mixture.conj().resolve_conj()
        self._power = (mixture * conjugate).real.contiguous()
        # monotonic in the target magnitude: in psa it is that times |M|, in msa its square
        if self._phase_sensitive:
            self._loudness = torch.minimum((sources * conjugate).real, self._power).clamp_(min=0)
        else:
            self._loudness = (sources * sources.conj()).real

    def mix_magnitude(self) -> torch.Tensor:
        """(...), real."""
        return self._power.sqrt()

    def source_magnitudes(self) -> torch.Tensor:
        """(sources, ...), real."""
        if not self._phase_sensitive:
            return self._loudness.sqrt()
        size = self.mix_magnitude()
        # where the mixture is silent the loudness is 0
        inverse = size.clamp(min=torch.finfo(size.dtype).tiny).reciprocal_()
        return torch.minimum(self._loudness * inverse, size)

    def ideal_binary_mask(self) -> torch.Tensor:
        """Whether a source is the loudest, (sources, ...), bool. A bin where sources tie, such as silence, belongs to
        none, as in nussl."""
        if len(self._loudness) == 2:
            one, other = self._loudness
            return torch.stack([one > other, other > one])
        loudest = self._loudness == self._loudness.amax(dim=0)
        return loudest.logical_and_(loudest.sum(dim=0, dtype=torch.uint8) == 1)


def extract(
    mixture: np.ndarray,
    sources: Mapping[str, np.ndarray],
    options: DatasetOptions,
    targets: Collection[str] = ("source_magnitudes", "ideal_binary_mask"),
) -> Features:
    """Features and targets of one mixture, in double precision, so that masks agree with nussl's bit for bit.

    Args:
        mixture: Audio, (channels, samples).
        sources: Audio of each source by name, (channels, samples) each, in the order of the targets.
        options: STFT parameters and type of the targets.
        targets: Targets to compute; mix_magnitude is always computed.
    """
    n_fft, hop_length, framing = options.n_fft, options.hop_length, stft_options(options)
    signals = [mixture, *(sources.values() if targets else [])]
    channels, samples = mixture.shape
    frames = int(count_frames(samples, n_fft=n_fft, hop_length=hop_length))
    # padded as in `stft`
    audio = torch.zeros(len(signals), channels, (frames - 1) * hop_length + n_fft, dtype=torch.float64)
    for padded, signal in zip(audio, signals, strict=True):
        padded[:, n_fft // 2 : n_fft // 2 + samples] = torch.from_numpy(signal)
    shape = (frames, n_fft // 2 + 1, channels)
    arrays = {"mix_magnitude": np.empty(shape, np.float32)}
    for key, dtype in (("source_magnitudes", np.float32), ("ideal_binary_mask", np.bool_)):
        arrays[key] = np.empty((*shape, len(sources)) if key in targets else (0, 0, 0, 0), dtype)
    # blocks that stay in the processor's cache take half the time
    for first in range(0, frames, BLOCK):
        last = min(first + BLOCK, frames)
        spectra = spectra_of_frames(audio[..., first * hop_length : (last - 1) * hop_length + n_fft], **framing)
        parts = [values[first:last] for values in arrays.values()]
        fill_targets(torch.view_as_real(spectra).flatten(-2).numpy(), options.output_type == "psa", *parts)
    requested = {key: values if key in targets or key == "mix_magnitude" else None for key, values in arrays.items()}
    return Features(sources=tuple(sources), **requested)


def stft_options(options: DatasetOptions) -> dict[str, Any]:
    """The arguments of `stft` in dataset options."""
    return {key: getattr(options, key) for key in ("n_fft", "hop_length", "window_type")}


def weight_gains(totals: Any, bins: Any) -> Any:
    """Factors on the magnitude of each mixture before the square root, see `loss_weights`; arrays or tensors.

    Args:
        totals: Sum of the magnitude of each whole mixture.
        bins: Frequency bins x frames of each whole mixture (channels are not counted).
    """
    return bins / (totals + 1e-6)


def weight_floors(peaks: Any, weight_threshold: float) -> Any:
    """Magnitudes below which a bin has weight 0, see `loss_weights`; an array or a tensor.

    Args:
        peaks: Largest magnitude of each whole mixture.
        weight_threshold: Threshold relative to the peak, in dB, negative.
    """
    return peaks * 10 ** (weight_threshold / 20)


def loss_weights(
    magnitude: torch.Tensor, *, gain: torch.Tensor, floor: torch.Tensor | None, weight_type: Sequence[str]
) -> torch.Tensor:
    """Weights of the bins in the loss.

    `magnitude` weights are the square root of a bin's share in the magnitude of the whole mixture, times the number
    of bins: Wang, Le Roux and Hershey, "Alternative objective functions for deep clustering", ICASSP 2018, as
    nussl.MagnitudeWeights computes them. Otherwise the weight is 1. Bins below the floor have weight 0.

    Args:
        magnitude: Magnitude of the mixture or of an excerpt, any shape.
        gain, floor: See `weight_gains` and `weight_floors`; shapes that broadcast with `magnitude`. None for no floor.
        weight_type: Some of magnitude, equal, threshold.

    Returns:
        Weights with the shape and type of `magnitude`.
    """
    weights = torch.sqrt(magnitude * gain) if "magnitude" in weight_type else torch.ones_like(magnitude)
    if floor is None:
        return weights
    if weights.device.type == "cpu":
        # numpy multiplies by a boolean mask in a third of torch's time
        counted = weights.numpy()
        np.multiply(counted, magnitude.numpy() >= floor.numpy(), out=counted)
        return weights
    return weights.masked_fill_(magnitude < floor, 0)
