"""Losses on the STFT of waveforms."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from separation.losses.waveform import WaveformLoss, stft

#: least power of a bin: the gradient of a magnitude is not finite at 0
LEAST_POWER = 1e-8


class MultiResolutionSTFTLoss(WaveformLoss):
    """Spectral convergence plus mean absolute difference of the log magnitudes, averaged over several STFTs.

    Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020, whose three STFTs are the default.

    Args:
        n_ffts, hop_lengths, window_lengths: Parameters of each STFT, samples.
    """

    def __init__(
        self,
        n_ffts: Sequence[int] = (1024, 2048, 512),
        hop_lengths: Sequence[int] = (120, 240, 50),
        window_lengths: Sequence[int] = (600, 1200, 240),
    ):
        super().__init__()
        self.resolutions = list(zip(n_ffts, hop_lengths, window_lengths, strict=True))

    def measure(self, estimates, references, mixture=None):
        losses = []
        for resolution in self.resolutions:
            estimated, target = (_magnitude(stft(signals, *resolution)) for signals in (estimates, references))
            # channels, frequencies, frames
            convergence = _norm(estimated - target) / _norm(target)
            losses.append(convergence + (estimated.log() - target.log()).abs().mean(dim=(-3, -2, -1)))
        return torch.stack(losses).mean(dim=0)


class ComplexSpectralLoss(WaveformLoss):
    """Mean absolute difference of the real parts, the imaginary parts and the magnitudes of an STFT, added.

    Wang, Wichern and Le Roux, "On the compensation between magnitude and phase in speech separation", IEEE Signal
    Processing Letters, 2021.

    Args:
        n_fft, hop_length: Parameters of the STFT, samples.
        magnitude_weight: Weight of the magnitudes.
    """

    def __init__(self, n_fft: int = 512, hop_length: int = 128, magnitude_weight: float = 1.0):
        super().__init__()
        self.n_fft, self.hop_length, self.magnitude_weight = n_fft, hop_length, magnitude_weight

    def measure(self, estimates, references, mixture=None):
        estimated, target = (stft(signals, self.n_fft, self.hop_length) for signals in (estimates, references))
        difference = estimated - target
        error = difference.real.abs() + difference.imag.abs()
        error = error + self.magnitude_weight * (_magnitude(estimated) - _magnitude(target)).abs()
        return error.mean(dim=(-3, -2, -1))


def _magnitude(spectrum: torch.Tensor) -> torch.Tensor:
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=LEAST_POWER).sqrt()


def _norm(values: torch.Tensor) -> torch.Tensor:
    """Frobenius norm over channels, frequencies and frames."""
    return values.square().sum(dim=(-3, -2, -1)).clamp(min=LEAST_POWER).sqrt()
