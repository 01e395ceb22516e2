"""Open-Unmix: one recurrent network per source, which masks the magnitude of the mixture."""

from __future__ import annotations

import torch
from torch import nn


class OpenUnmix(nn.Module):
    """Open-Unmix with the defaults of UMX-HQ: 8.9 million parameters per source.

    Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix: a reference implementation for music source separation", Journal
    of Open Source Software 2019. The estimates have the phase of the mixture; there is no Wiener filter after them.

    Args:
        num_sources: Number of sources; each has a network of its own.
        n_fft, hop_length: STFT with a Hann window, samples.
        num_frequencies_read: Frequencies that the network reads, from 0 on; the default is 16 kHz at 44.1 kHz. None for
            all.
        hidden_size: Units of the layers; each direction of the recurrent ones has half of them.
        num_layers: Recurrent layers.
        num_channels: Audio channels; all are read together.
    """

    def __init__(
        self,
        num_sources: int = 4,
        n_fft: int = 4096,
        hop_length: int = 1024,
        num_frequencies_read: int | None = 1487,
        hidden_size: int = 512,
        num_layers: int = 3,
        num_channels: int = 2,
    ):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        frequencies = n_fft // 2 + 1
        read = min(num_frequencies_read or frequencies, frequencies)
        self.sources = nn.ModuleList(
            _Masks(frequencies, read, hidden_size, num_layers, num_channels) for _ in range(num_sources)
        )

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates mixtures (batch, channels, samples) into (batch, sources, channels, samples)."""
        batch, channels, samples = mixture.shape
        window = self.window.to(mixture.dtype)
        # a window of zeros at the end, so that every sample is in all its frames
        padded = nn.functional.pad(mixture, (0, self.n_fft)).flatten(0, 1)
        spectrum = torch.stft(
            padded, self.n_fft, self.hop_length, window=window, pad_mode="constant", return_complex=True
        )
        # (batch, frames, channels, frequencies)
        spectrum = spectrum.unflatten(0, (batch, channels)).permute(0, 3, 1, 2)
        magnitude = spectrum.abs()
        estimates = torch.stack([masks(magnitude) * spectrum for masks in self.sources], dim=1)
        audio = torch.istft(
            estimates.permute(0, 1, 3, 4, 2).flatten(0, 2),
            self.n_fft,
            self.hop_length,
            window=window,
            length=samples + self.n_fft,
        )
        return audio[:, :samples].reshape(batch, len(self.sources), channels, samples)


class _Masks(nn.Module):
    """The network of one source: magnitudes (batch, frames, channels, frequencies) to masks of that shape."""

    def __init__(self, frequencies: int, read: int, hidden_size: int, num_layers: int, num_channels: int):
        super().__init__()
        self.read, self.frequencies = read, frequencies
        self.input_mean, self.input_scale = nn.Parameter(torch.zeros(read)), nn.Parameter(torch.ones(read))
        self.input = nn.Linear(read * num_channels, hidden_size, bias=False)
        self.input_norm = nn.BatchNorm1d(hidden_size)
        self.lstm = nn.LSTM(
            hidden_size,
            hidden_size // 2,
            num_layers,
            batch_first=True,
            bidirectional=True,
            dropout=0.4 if num_layers > 1 else 0.0,
        )
        self.hidden = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.hidden_norm = nn.BatchNorm1d(hidden_size)
        self.output = nn.Linear(hidden_size, frequencies * num_channels, bias=False)
        self.output_norm = nn.BatchNorm1d(frequencies * num_channels)
        self.output_scale, self.output_mean = (
            nn.Parameter(torch.ones(frequencies)),
            nn.Parameter(torch.ones(frequencies)),
        )

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        batch, frames, channels, _ = magnitude.shape
        features = (magnitude[..., : self.read] + self.input_mean) * self.input_scale
        features = torch.tanh(_normed(self.input_norm, self.input(features.flatten(2))))
        recurrent, _ = self.lstm(features)
        features = torch.relu(_normed(self.hidden_norm, self.hidden(torch.cat([features, recurrent], dim=-1))))
        output = _normed(self.output_norm, self.output(features)).reshape(batch, frames, channels, self.frequencies)
        return torch.relu(output * self.output_scale + self.output_mean)


def _normed(norm: nn.BatchNorm1d, features: torch.Tensor) -> torch.Tensor:
    """Batch normalization over all frames of (batch, frames, features)."""
    return norm(features.flatten(0, 1)).unflatten(0, features.shape[:2])
