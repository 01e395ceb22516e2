"""SepFormer: masks of a learned filter bank from transformers within and across chunks."""

from __future__ import annotations

import math

import torch
from torch import nn


class SepFormer(nn.Module):
    """SepFormer with the defaults of the paper: 25.7 million parameters for two speakers at 8 kHz.

    Subakan, Ravanelli, Cornell, Bronzi and Zhong, "Attention is all you need in speech separation", ICASSP 2021. Names
    of the paper in brackets.

    Args:
        num_sources: Number of sources [Ns].
        num_filters, filter_length: Filters of the encoder [F], length in samples; the stride is half of it.
        chunk_size: Frames of a chunk, which overlap by half [C].
        num_repeats: Pairs of transformers within and across chunks [N].
        num_layers: Layers of each transformer [K].
        num_heads, feedforward_size: Heads of the attention, units of the feed-forward layers.
        num_channels: Audio channels; all are encoded together.
    """

    def __init__(
        self,
        num_sources: int = 2,
        num_filters: int = 256,
        filter_length: int = 16,
        chunk_size: int = 250,
        num_repeats: int = 2,
        num_layers: int = 8,
        num_heads: int = 8,
        feedforward_size: int = 1024,
        num_channels: int = 1,
    ):
        super().__init__()
        self.num_sources, self.num_channels = num_sources, num_channels
        self.stride, self.chunk_size = filter_length // 2, chunk_size
        self.encoder = nn.Conv1d(num_channels, num_filters, filter_length, self.stride, bias=False)
        self.norm = nn.GroupNorm(1, num_filters, eps=1e-8)
        self.linear = nn.Conv1d(num_filters, num_filters, 1, bias=False)
        self.blocks = nn.ModuleList(
            _DualPath(num_filters, num_layers, num_heads, feedforward_size) for _ in range(num_repeats)
        )
        self.activation = nn.PReLU()
        self.sources = nn.Conv2d(num_filters, num_sources * num_filters, 1)
        self.values, self.gates = nn.Conv1d(num_filters, num_filters, 1), nn.Conv1d(num_filters, num_filters, 1)
        self.masks = nn.Conv1d(num_filters, num_filters, 1, bias=False)
        self.decoder = nn.ConvTranspose1d(num_filters, num_channels, filter_length, self.stride, bias=False)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates mixtures (batch, channels, samples) into (batch, sources, channels, samples)."""
        batch, _, samples = mixture.shape
        # one stride before, and enough after it that all samples are in two frames
        after = self.stride + (-samples) % self.stride
        encoded = torch.relu(self.encoder(nn.functional.pad(mixture, (self.stride, after))))
        chunks = self._chunks(self.linear(self.norm(encoded)))
        for block in self.blocks:
            chunks = block(chunks)
        # (batch x sources, filters, frames of a chunk, chunks)
        chunks = self.sources(self.activation(chunks)).unflatten(1, (self.num_sources, -1)).flatten(0, 1)
        features = self._joined(chunks, encoded.shape[-1])
        features = torch.tanh(self.values(features)) * torch.sigmoid(self.gates(features))
        masks = torch.relu(self.masks(features)).unflatten(0, (batch, self.num_sources))
        decoded = self.decoder((masks * encoded[:, None]).flatten(0, 1))
        estimates = decoded[..., self.stride : self.stride + samples]
        return estimates.reshape(batch, self.num_sources, self.num_channels, samples)

    def _chunks(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, filters, frames) to (batch, filters, frames of a chunk, chunks), with zeros around."""
        hop = self.chunk_size // 2
        padded = nn.functional.pad(features, (hop, hop + (-features.shape[-1]) % hop))
        return padded.unfold(2, 2 * hop, hop).transpose(2, 3)

    def _joined(self, chunks: torch.Tensor, frames: int) -> torch.Tensor:
        """The overlap-add of chunks, (batch, filters, frames)."""
        hop = self.chunk_size // 2
        first, second = chunks.transpose(2, 3).split(hop, dim=3)
        joined = nn.functional.pad(first.flatten(2), (0, hop)) + nn.functional.pad(second.flatten(2), (hop, 0))
        return joined[..., hop : hop + frames]


class _DualPath(nn.Module):
    """A transformer within each chunk, then one across chunks, each with a residual connection."""

    def __init__(self, size: int, num_layers: int, num_heads: int, feedforward_size: int):
        super().__init__()
        self.within, self.across = (_Transformer(size, num_layers, num_heads, feedforward_size) for _ in range(2))

    def forward(self, chunks: torch.Tensor) -> torch.Tensor:
        """(batch, filters, frames of a chunk, chunks) to the same."""
        batch, _, frames, count = chunks.shape
        rows = chunks.permute(0, 3, 2, 1).flatten(0, 1)
        chunks = chunks + self.within(rows).unflatten(0, (batch, count)).permute(0, 3, 2, 1)
        rows = chunks.permute(0, 2, 3, 1).flatten(0, 1)
        return chunks + self.across(rows).unflatten(0, (batch, frames)).permute(0, 3, 1, 2)


class _Transformer(nn.Module):
    """Transformer layers with normalization first, on a sequence with sinusoidal positions; then normalization."""

    def __init__(self, size: int, num_layers: int, num_heads: int, feedforward_size: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(size, num_heads, feedforward_size, 0.0, norm_first=True, batch_first=True)
            for _ in range(num_layers)
        )
        self.last_norm = nn.LayerNorm(size, eps=1e-6)
        self.norm = nn.GroupNorm(1, size, eps=1e-8)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, steps, size) to the same."""
        features = rows + _positions(rows.shape[1], rows.shape[2]).to(rows)
        for layer in self.layers:
            features = layer(features)
        return self.norm(self.last_norm(features).transpose(1, 2)).transpose(1, 2)


def _positions(steps: int, size: int) -> torch.Tensor:
    """Sinusoidal positions, (steps, size): Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5."""
    angles = torch.arange(steps)[:, None] * torch.exp(torch.arange(0, size, 2) * (-math.log(10_000) / size))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
