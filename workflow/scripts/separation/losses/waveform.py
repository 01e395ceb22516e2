"""Losses on waveforms.

Each is measured for any pair of estimate and reference, so that all can be invariant to permutations.
Energies and sums run over the channels and samples of a source together.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from separation.errors import UserError
from separation.nussl_compat import nussl

#: added to energies per sample: waveforms have full scale 1
EPSILON = 1e-8


class WaveformLoss(nn.Module):
    """The mean of `measure` over a batch and its sources.

    A subclass implements `measure`.
    """

    DEFAULT_KEYS = {"audio": "estimates", "source_audio": "references"}  # noqa: RUF012

    def forward(
        self, estimates: torch.Tensor, references: torch.Tensor, mixture: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of estimates in the order of the references, a scalar.

        Args:
            estimates, references: (batch, channels, samples, sources).
            mixture: (batch, channels, samples), for losses that read it.

        Raises:
            UserError: There are more or fewer estimates than references, or they have another length.
        """
        estimates, references = one_for_each(*sources_first(estimates, references))
        return self.measure(estimates, references, None if mixture is None else mixture[:, None]).mean()

    def measure(
        self, estimates: torch.Tensor, references: torch.Tensor, mixture: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of each pair of estimate and reference.

        Args:
            estimates, references, mixture: (..., channels, samples); the leading axes broadcast.

        Returns:
            One value per pair, (...).
        """
        raise NotImplementedError


class SISDRWaveformLoss(WaveformLoss):
    """nussl's SISDRLoss for any pair, as nussl's PermutationInvariantLoss uses it: channels one after the other."""

    def __init__(self, **arguments: Any):
        super().__init__()
        self.loss_function = nussl.ml.train.loss.SISDRLoss(**arguments, reduction="none")

    def measure(self, estimates, references, mixture=None):
        estimates, references = torch.broadcast_tensors(estimates, references)
        samples = references.shape[-2] * references.shape[-1]
        losses = self.loss_function(estimates.reshape(-1, samples, 1), references.reshape(-1, samples, 1))
        return losses.reshape(references.shape[:-2])


class SNRLoss(WaveformLoss):
    """Negative signal-to-noise ratio, dB: 10 log10(|s - e|^2 / |s|^2) for the estimate e of s."""

    def measure(self, estimates, references, mixture=None):
        floor = EPSILON * references.shape[-1]
        return ratio_db(energy(references - estimates) + floor, energy(references) + floor)


class ThresholdedSNRLoss(WaveformLoss):
    """Negative signal-to-noise ratio, dB, that gains little above `max_snr` dB.

    Wisdom et al., "Unsupervised sound separation using mixture invariant training", NeurIPS 2020. A silent
    source is compared with the mixture instead: Wisdom et al., "What's all the FUSS about free universal sound
    separation data?", ICASSP 2021, here relative to the energy of the mixture.
    """

    DEFAULT_KEYS = {**WaveformLoss.DEFAULT_KEYS, "mix_audio": "mixture"}  # noqa: RUF012
    #: a source this far below the mixture is silent, as a ratio of energies
    SILENT = 1e-8

    def __init__(self, max_snr: float = 30.0):
        super().__init__()
        self.threshold = 10 ** (-max_snr / 10)

    def measure(self, estimates, references, mixture=None):
        floor = EPSILON * references.shape[-1]
        signal, total = energy(references), energy(references if mixture is None else mixture)
        level = torch.where(signal > self.SILENT * total, signal, total) + floor
        return ratio_db(energy(references - estimates) + self.threshold * level, level)


class WaveformL1Loss(WaveformLoss):
    """Mean absolute error of the samples."""

    def measure(self, estimates, references, mixture=None):
        return (references - estimates).abs().mean(dim=(-2, -1))


class WaveformMSELoss(WaveformLoss):
    """Mean squared error of the samples."""

    def measure(self, estimates, references, mixture=None):
        return (references - estimates).square().mean(dim=(-2, -1))


class L1SNRLoss(WaveformLoss):
    """Ratio of the mean absolute error to the mean absolute value, dB, of the samples and of the STFT.

    Watcharasupat et al., "A generalized bandsplit neural network for cinematic audio source separation", IEEE Open
    Journal of Signal Processing, 2024: the sum over the waveform, the real and the imaginary
    part of its STFT. `n_fft: null` uses the waveform only.
    """

    def __init__(self, n_fft: int | None = 2048, hop_length: int = 512, epsilon: float = 1e-3):
        super().__init__()
        self.n_fft, self.hop_length, self.epsilon = n_fft, hop_length, epsilon

    def measure(self, estimates, references, mixture=None):
        total = self._ratio(estimates, references, dims=(-2, -1))
        if self.n_fft is not None:
            spectra = [stft(signals, self.n_fft, self.hop_length) for signals in (estimates, references)]
            for part in ("real", "imag"):
                total = total + self._ratio(*(getattr(spectrum, part) for spectrum in spectra), dims=(-3, -2, -1))
        return total

    def _ratio(self, estimates, references, dims):
        error = (estimates - references).abs().mean(dim=dims) + self.epsilon
        return 10 * torch.log10(error / (references.abs().mean(dim=dims) + self.epsilon))


class LogWMSELoss(WaveformLoss):
    """Logarithm of the mean squared error, weighted by the sensitivity of hearing and relative to the mixture.

    4 ln(w(e - s) / w(x) + 1e-8) for the estimate e of s in the mixture x, where w is the mean square after the
    weighting of frequencies, per channel; the mean over channels. Silent sources count like all others.
    Defined by the package log-wmse-audio-quality (Nomono, 2023), without its threshold for errors that nobody hears.
    """

    DEFAULT_KEYS = {**WaveformLoss.DEFAULT_KEYS, "mix_audio": "mixture"}  # noqa: RUF012

    def __init__(self, sample_rate: int):
        super().__init__()
        self.sample_rate = sample_rate

    def measure(self, estimates, references, mixture=None):
        error = self._weighted_energy(estimates - references)
        floor = 1e-16 * references.shape[-1]
        level = self._weighted_energy(references if mixture is None else mixture).clamp(min=floor)
        # the level is what the error is compared with, nothing to be learned
        return 4 * torch.log(error / level.detach() + 1e-8).mean(dim=-1)

    def _weighted_energy(self, signals: torch.Tensor) -> torch.Tensor:
        # Parseval; zeros at the end for the response of the filter
        size = signals.shape[-1] + self.sample_rate // 10
        size += size % 2
        weights = _hearing_weights(self.sample_rate, size).to(signals)
        return (torch.fft.rfft(signals, n=size).abs().square() * weights).sum(dim=-1)


@functools.lru_cache(maxsize=8)
def _hearing_weights(sample_rate: int, size: int) -> torch.Tensor:
    """Squared magnitude of logWMSE's filter at the frequencies of an rfft, times their share in Parseval's sum.

    A high shelf (1.5 kHz, 5 dB, Q 0.71), a high pass (120 Hz, second order), a peak (500 Hz, 2.5 dB, Q 1.06) and a low
    pass (10 kHz, first order, forward and backward) at 44.1 kHz; nothing above 22.05 kHz. Shelf and peak by R.
    Bristow-Johnson's Audio EQ Cookbook.
    """
    import scipy.signal

    rate = 44100

    def biquad(frequency: float, gain: float, q: float, shelf: bool) -> tuple[list[float], list[float]]:
        a, w = 10 ** (gain / 40), 2 * math.pi * frequency / rate
        alpha, cosine = math.sin(w) / (2 * q), math.cos(w)
        if not shelf:
            return [1 + alpha * a, -2 * cosine, 1 - alpha * a], [1 + alpha / a, -2 * cosine, 1 - alpha / a]
        up, down, width = a + 1, a - 1, 2 * math.sqrt(a) * alpha
        numerator = [up + down * cosine + width, -2 * (down + up * cosine), up + down * cosine - width]
        denominator = [up - down * cosine + width, 2 * (down - up * cosine), up - down * cosine - width]
        return [a * value for value in numerator], denominator

    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    inside = np.minimum(frequencies, rate / 2)
    low_pass = scipy.signal.butter(1, 10_000, fs=rate)
    filters = [
        biquad(1500, 5, 1 / math.sqrt(2), shelf=True),
        scipy.signal.butter(2, 120, "highpass", fs=rate),
        biquad(500, 2.5, 1.5 / math.sqrt(2), shelf=False),
        low_pass,
        low_pass,
    ]
    magnitude = np.prod([np.abs(scipy.signal.freqz(*taps, worN=inside, fs=rate)[1]) for taps in filters], axis=0)
    weights = magnitude**2 * (frequencies <= rate / 2) * 2 / size
    weights[[0, -1]] /= 2
    return torch.from_numpy(weights)


def sources_first(estimates: torch.Tensor, references: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, channels, samples, sources) to (batch, sources, channels, samples).

    Raises:
        UserError: The estimates have another length or other channels than the references.
    """
    if estimates.shape[:-1] != references.shape[:-1]:
        names = ("batch", "channels", "samples")
        found, expected = (
            ", ".join(f"{size} {name}" for name, size in zip(names, tensor.shape, strict=False))
            for tensor in (estimates, references)
        )
        raise UserError(f"expected estimates of {expected}, found {found}", key="model_config")
    return estimates.permute(0, 3, 1, 2), references.permute(0, 3, 1, 2)


def one_for_each(estimates: torch.Tensor, references: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as they are, (batch, sources, ...).

    Raises:
        UserError: There are more or fewer estimates than references.
    """
    if estimates.shape[1] != references.shape[1]:
        raise UserError(
            f"expected as many estimates as sources, {references.shape[1]}, found {estimates.shape[1]}",
            key="model_config",
        )
    return estimates, references


def energy(signals: torch.Tensor) -> torch.Tensor:
    """Sum of squares over channels and samples, the last two axes."""
    return signals.square().sum(dim=(-2, -1))


def ratio_db(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """10 log10 of a ratio of energies."""
    return 10 * (torch.log10(numerator) - torch.log10(denominator))


def stft(signals: torch.Tensor, n_fft: int, hop_length: int, window_length: int | None = None) -> torch.Tensor:
    """STFT with a Hann window and zeros beyond both ends, (..., samples) to complex (..., frequencies, frames)."""
    window = torch.hann_window(window_length or n_fft, device=signals.device, dtype=signals.dtype)
    spectra = torch.stft(
        signals.reshape(-1, signals.shape[-1]),
        n_fft,
        hop_length=hop_length,
        win_length=len(window),
        window=window,
        pad_mode="constant",
        return_complex=True,
    )
    return spectra.reshape(*signals.shape[:-1], *spectra.shape[-2:])
