"""Conv-TasNet: a learned filter bank, masks from a temporal convolutional network, and its inverse."""

from __future__ import annotations

import torch
from torch import nn


class ConvTasNet(nn.Module):
    """Conv-TasNet without causality, with the defaults of the paper: 5.1 million parameters for two sources.

    Luo and Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation", IEEE/ACM
    TASLP 2019. Names of the paper in brackets.

    Args:
        num_sources: Number of sources [C].
        num_filters, filter_length: Filters of the encoder [N, L], length in samples; the stride is half of it.
        bottleneck_size, hidden_size, skip_size: Channels of the blocks [B, H, Sc].
        kernel_size: Kernel of the convolutions in the blocks [P].
        num_blocks, num_repeats: Blocks with dilations 1, 2, 4, ..., and how often they are repeated [X, R].
        num_channels: Audio channels; all are encoded together.
    """

    def __init__(
        self,
        num_sources: int = 2,
        num_filters: int = 512,
        filter_length: int = 16,
        bottleneck_size: int = 128,
        hidden_size: int = 512,
        skip_size: int = 128,
        kernel_size: int = 3,
        num_blocks: int = 8,
        num_repeats: int = 3,
        num_channels: int = 1,
    ):
        super().__init__()
        self.num_sources, self.num_channels = num_sources, num_channels
        self.filter_length, self.stride = filter_length, filter_length // 2
        self.encoder = nn.Conv1d(num_channels, num_filters, filter_length, self.stride, bias=False)
        self.bottleneck = nn.Sequential(GlobalLayerNorm(num_filters), nn.Conv1d(num_filters, bottleneck_size, 1))
        self.blocks = nn.ModuleList(
            _Block(bottleneck_size, hidden_size, skip_size, kernel_size, 2**exponent)
            for _ in range(num_repeats)
            for exponent in range(num_blocks)
        )
        # nothing reads it; it is counted in the paper
        self.blocks[-1].residual.requires_grad_(False)
        self.masks = nn.Sequential(nn.PReLU(), nn.Conv1d(skip_size, num_sources * num_filters, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(num_filters, num_channels, filter_length, self.stride, bias=False)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separates mixtures (batch, channels, samples) into (batch, sources, channels, samples)."""
        batch, _, samples = mixture.shape
        # one stride before, and enough after it that all samples are in two frames
        after = self.stride + (-samples) % self.stride
        encoded = torch.relu(self.encoder(nn.functional.pad(mixture, (self.stride, after))))
        features = self.bottleneck(encoded)
        total = torch.zeros((), device=mixture.device)
        for block in self.blocks:
            features, skip = block(features)
            total = total + skip
        masks = self.masks(total).unflatten(1, (self.num_sources, -1))
        decoded = self.decoder((masks * encoded[:, None]).flatten(0, 1))
        estimates = decoded[..., self.stride : self.stride + samples]
        return estimates.reshape(batch, self.num_sources, self.num_channels, samples)


class _Block(nn.Module):
    """A depthwise separable convolution with a residual and a skip connection; figure 1 (C) of the paper."""

    def __init__(self, size: int, hidden_size: int, skip_size: int, kernel_size: int, dilation: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(size, hidden_size, 1),
            nn.PReLU(),
            GlobalLayerNorm(hidden_size),
            nn.Conv1d(
                hidden_size,
                hidden_size,
                kernel_size,
                padding=dilation * (kernel_size - 1) // 2,
                dilation=dilation,
                groups=hidden_size,
            ),
            nn.PReLU(),
            GlobalLayerNorm(hidden_size),
        )
        self.residual = nn.Conv1d(hidden_size, size, 1)
        self.skip = nn.Conv1d(hidden_size, skip_size, 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layers(features)
        return features + self.residual(hidden), self.skip(hidden)


class GlobalLayerNorm(nn.GroupNorm):
    """Normalization over channels and time together, with a gain and an offset per channel: gLN of the paper."""

    def __init__(self, num_channels: int, epsilon: float = 1e-8):
        super().__init__(1, num_channels, eps=epsilon)
