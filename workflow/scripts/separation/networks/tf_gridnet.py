"""TF-GridNet: recurrent layers along frequency and along time, and attention between frames, on the complex STFT."""

from __future__ import annotations

import math

import torch
from torch import nn


class TFGridNet(nn.Module):
    """TF-GridNet for one microphone, with the defaults of the paper: 14.5 million parameters for two speakers at 8 kHz.

    Wang, Cornell, Choi, Lee, Kim and Watanabe, "TF-GridNet: integrating full- and sub-band modeling for speech
    separation", IEEE/ACM TASLP 2023. Names of the paper in brackets. The mixture is scaled to a variance of 1
    first, and the estimates back.

    Args:
        num_sources: Number of sources [C].
        n_fft, hop_length: STFT with a square-root Hann window, samples; the defaults are 32 and 8 ms at 8 kHz.
        embedding_size: Channels of each time-frequency bin [D].
        num_blocks: Number of blocks [B].
        kernel_size, kernel_stride: How many neighbours go into a step of a recurrent layer, and the step [I, J].
        hidden_size: Units of the recurrent layers, in each direction [H].
        num_heads, head_size: Heads of the attention, and channels of its queries and keys [L, E].
        num_channels: Audio channels; all are encoded together.
    """

    def __init__(
        self,
        num_sources: int = 2,
        n_fft: int = 256,
        hop_length: int = 64,
        embedding_size: int = 64,
        num_blocks: int = 6,
        kernel_size: int = 4,
        kernel_stride: int = 1,
        hidden_size: int = 256,
        num_heads: int = 4,
        head_size: int = 4,
        num_channels: int = 1,
    ):
        super().__init__()
        self.num_sources, self.num_channels = num_sources, num_channels
        self.n_fft, self.hop_length = n_fft, hop_length
        num_frequencies = n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(n_fft).sqrt(), persistent=False)
        self.encoder = nn.Sequential(
            nn.Conv2d(2 * num_channels, embedding_size, 3, padding=1), nn.GroupNorm(1, embedding_size, eps=1e-5)
        )
        self.blocks = nn.ModuleList(
            _Block(embedding_size, num_frequencies, kernel_size, kernel_stride, hidden_size, num_heads, head_size)
            for _ in range(num_blocks)
        )
        self.decoder = nn.ConvTranspose2d(embedding_size, 2 * num_sources * num_channels, 3, padding=1)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates mixtures (batch, channels, samples) into (batch, sources, channels, samples)."""
        batch, channels, samples = mixture.shape
        scale = mixture.std(dim=(1, 2), keepdim=True) + 1e-8
        window = self.window.to(mixture.dtype)
        # a window of zeros at the end, so that every sample is in all its frames
        padded = nn.functional.pad(mixture / scale, (0, self.n_fft)).flatten(0, 1)
        spectrum = torch.stft(
            padded, self.n_fft, self.hop_length, window=window, pad_mode="constant", return_complex=True
        )
        # (batch, real and imaginary parts of the channels, frames, frequencies)
        features = torch.view_as_real(spectrum).unflatten(0, (batch, channels)).permute(0, 1, 4, 3, 2).flatten(1, 2)
        features = self.encoder(features)
        for block in self.blocks:
            features = block(features)
        output = self.decoder(features).unflatten(1, (self.num_sources * channels, 2)).permute(0, 1, 4, 3, 2)
        estimates = torch.istft(
            torch.view_as_complex(output.contiguous()).flatten(0, 1),
            self.n_fft,
            self.hop_length,
            window=window,
            length=samples + self.n_fft,
        )
        estimates = estimates[:, :samples].reshape(batch, self.num_sources, self.num_channels, samples)
        return estimates * scale[:, None]


class _Block(nn.Module):
    """Full-band along frequency, sub-band along time, then attention between frames; section III of the paper."""

    def __init__(
        self,
        size: int,
        num_frequencies: int,
        kernel_size: int,
        stride: int,
        hidden_size: int,
        num_heads: int,
        head_size: int,
    ):
        super().__init__()
        self.along_frequency = _Recurrent(size, kernel_size, stride, hidden_size)
        self.along_time = _Recurrent(size, kernel_size, stride, hidden_size)
        self.attention = _FrameAttention(size, num_frequencies, num_heads, head_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, size, frames, frequencies) to the same."""
        features = self.along_frequency(features)
        features = self.along_time(features.transpose(2, 3)).transpose(2, 3)
        return self.attention(features)


class _Recurrent(nn.Module):
    """A bidirectional LSTM along the last axis, over the neighbours of each step; the other axis is independent."""

    def __init__(self, size: int, kernel_size: int, stride: int, hidden_size: int):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.norm = nn.LayerNorm(size, eps=1e-5)
        self.lstm = nn.LSTM(size * kernel_size, hidden_size, batch_first=True, bidirectional=True)
        self.output = nn.ConvTranspose1d(2 * hidden_size, size, kernel_size, stride=stride)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        batch, size, rows, length = features.shape
        steps = max(0, math.ceil((length - self.kernel_size) / self.stride)) + 1
        missing = (steps - 1) * self.stride + self.kernel_size - length
        normed = self.norm(features.permute(0, 2, 3, 1))
        # (batch x rows, length, size), padded to whole steps
        sequence = nn.functional.pad(normed.flatten(0, 1), (0, 0, 0, missing))
        windows = sequence.unfold(1, self.kernel_size, self.stride).flatten(2)
        hidden, _ = self.lstm(windows)
        restored = self.output(hidden.transpose(1, 2))[..., :length]
        return features + restored.reshape(batch, rows, size, length).transpose(1, 2)


class _FrameAttention(nn.Module):
    """Attention between frames, whose queries, keys and values hold all frequencies of a frame."""

    def __init__(self, size: int, num_frequencies: int, num_heads: int, head_size: int):
        super().__init__()
        self.queries, self.keys = (
            nn.ModuleList(_Projection(size, head_size, num_frequencies) for _ in range(num_heads)) for _ in range(2)
        )
        self.values = nn.ModuleList(_Projection(size, size // num_heads, num_frequencies) for _ in range(num_heads))
        self.output = _Projection(size, size, num_frequencies)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        queries, keys, values = (
            # (batch, heads, frames, channels x frequencies)
            torch.stack([head(features).transpose(1, 2).flatten(2) for head in heads], dim=1)
            for heads in (self.queries, self.keys, self.values)
        )
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values)
        batch, size, frames, frequencies = features.shape
        attended = attended.unflatten(3, (-1, frequencies)).permute(0, 1, 3, 2, 4)
        return features + self.output(attended.reshape(batch, size, frames, frequencies))


class _Projection(nn.Module):
    """A linear layer of the channels, PReLU, and normalization over the channels and frequencies of a frame."""

    def __init__(self, size: int, output_size: int, num_frequencies: int):
        super().__init__()
        self.linear = nn.Conv2d(size, output_size, 1)
        self.activation = nn.PReLU()
        self.norm = nn.LayerNorm((output_size, num_frequencies), eps=1e-5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        projected = self.activation(self.linear(features)).transpose(1, 2)
        return self.norm(projected).transpose(1, 2)
