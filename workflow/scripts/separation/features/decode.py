"""Decoding of a batch: features are unpacked, audio goes through the STFT, on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from separation.experiment.options import DatasetOptions
from separation.features.encoding import FRAME_ARRAYS, MAGNITUDE_SCALE, REMAINDER
from separation.features.spectra import (
    AUDIO_KEYS,
    Targets,
    loss_weights,
    spectra_of_frames,
    stft_options,
    weight_floors,
    weight_gains,
)
from separation.features.targets import fill_targets

#: A batch as it is stored: tensors by the name of their array or constant.
RawBatch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class BatchOptions:
    """Contents of a batch.

    Attributes:
        data_keys: Some of separation.features.spectra.DATA_KEYS.
        weight_type, weight_threshold: See `separation.features.spectra.loss_weights` and `weight_floors`.
        output_type: psa or msa, for targets that are computed from audio; stored targets have their own type.
    """

    data_keys: tuple[str, ...]
    weight_type: tuple[str, ...] = ("magnitude",)
    weight_threshold: float | None = None
    output_type: str = "psa"

    @classmethod
    def of(cls, options: DatasetOptions) -> BatchOptions:
        """The contents that dataset options request."""
        return cls(options.data_keys_for_training, options.weight_type, options.weight_threshold, options.output_type)


class Decoder:
    """Turns a batch as it is stored into the tensors that networks and losses read.

    Args:
        options: STFT parameters and number of channels.
        num_sources: Number of sources of each item.
    """

    def __init__(self, options: DatasetOptions, num_sources: int):
        self._framing, self._num_sources = stft_options(options), num_sources
        self._shape = (options.n_fft // 2 + 1, options.num_channels, num_sources)

    def __call__(self, raw: RawBatch, length: int, options: BatchOptions) -> dict[str, torch.Tensor]:
        """The batch of `FeatureStore.excerpts`, from the arrays that `FeatureStore.read` returned, on their device.

        Features of audio are computed in float32. Compared with stored features, which are computed in float64, a
        magnitude differs by less than 1e-6 of the loudest; a mask differs in bins where two sources are almost equal.
        """
        keys = options.data_keys
        batch: dict[str, torch.Tensor] = {}
        signals = self._signals(raw) if "step" in raw else None
        lead = 0
        if not set(keys) <= set(AUDIO_KEYS):
            # features: stored ones, or those of the audio, which then begins half a window before the excerpt
            if any(name in raw for name in FRAME_ARRAYS):
                batch = self._unpack(raw)
            else:
                batch, lead = self._transform(signals, length, options), self._framing["n_fft"] // 2
            if "weights" in keys:
                batch["weights"] = self._weigh(batch["mix_magnitude"], raw, options)
            if "frames_left" in raw:
                inside = torch.arange(length, device=raw["frames_left"].device) < raw["frames_left"][:, None]
                for key, values in batch.items():
                    batch[key] = values * inside.reshape(*inside.shape, *[1] * (values.ndim - 2))
        if set(keys) & set(AUDIO_KEYS):
            batch |= self._waveforms(signals[..., lead : lead + length * self._framing["hop_length"]], keys)
        return {key: batch[key] for key in keys}

    def _unpack(self, raw: RawBatch) -> dict[str, torch.Tensor]:
        batch = {}
        for key in FRAME_ARRAYS:
            if key not in raw:
                continue
            if key == "ideal_binary_mask":
                bits = _unpack_bits(raw[key], int(np.prod(self._shape)))
                batch[key] = bits.reshape(*raw[key].shape[:2], *self._shape)
            else:
                batch[key] = raw[key].float().mul_(1 / MAGNITUDE_SCALE)
        return batch

    def _signals(self, raw: RawBatch) -> torch.Tensor:
        """The waveforms at full scale 1.0, (batch, signals, channels, samples): the mixture, if it was read, before the
        sources."""
        sources = raw["source_audio"].permute(0, 3, 2, 1) if "source_audio" in raw else None
        mixtures = [raw[key].permute(0, 2, 1) for key in (REMAINDER, "mix_audio") if key in raw]
        batch, channels, samples = mixtures[0].shape if mixtures else sources[:, 0].shape
        count = len(mixtures) + (0 if sources is None else self._num_sources)
        coded = torch.empty((batch, count, channels, samples), dtype=torch.int16, device=raw["step"].device)
        if sources is not None:
            coded[:, len(mixtures) :] = sources
        if mixtures:
            coded[:, 0] = mixtures[0]
        if REMAINDER in raw:
            for source in coded[:, 1:].unbind(dim=1):
                coded[:, 0] += source
        signals = coded.float().mul_(raw["step"][:, None, None, None])
        if "remix_rows" in raw:
            # the part of the mixture that is none of its sources, such as noise, stays in the new mixture
            rows = raw["remix_rows"]
            new = (raw["remix_audio"] * raw["remix_scales"][:, None, None, :]).permute(0, 3, 2, 1)
            signals[rows, 0] += new.sum(dim=1) - signals[rows, 1:].sum(dim=1)
            signals[rows, 1:] = new
        return signals

    def _weigh(self, magnitude: torch.Tensor, raw: RawBatch, options: BatchOptions) -> torch.Tensor:
        gain, floor = raw["gain"], raw.get("floor")
        if "remix_rows" in raw:
            # a new mixture has another total and peak than its item: use those of the excerpt
            rows = raw["remix_rows"]
            new = magnitude[rows].flatten(1)
            frames = magnitude.shape[1]
            if "frames_left" in raw:
                frames = raw["frames_left"][rows].clamp(max=frames)
            bins = frames * magnitude.shape[2]
            gain = gain.index_copy(0, rows, weight_gains(new.sum(dim=1), bins))
            if floor is not None:
                floor = floor.index_copy(0, rows, weight_floors(new.amax(dim=1), options.weight_threshold))
        gain, floor = (value if value is None else value[:, None, None, None] for value in (gain, floor))
        return loss_weights(magnitude, gain=gain, floor=floor, weight_type=options.weight_type)

    def _transform(self, signals: torch.Tensor, length: int, options: BatchOptions) -> dict[str, torch.Tensor]:
        samples = (length - 1) * self._framing["hop_length"] + self._framing["n_fft"]
        target_keys = [key for key in ("source_magnitudes", "ideal_binary_mask") if key in options.data_keys]
        signals = signals if target_keys else signals[:, :1]
        spectra = spectra_of_frames(signals[..., :samples], **self._framing)
        if spectra.device.type == "cpu":
            return self._fill(spectra, target_keys, options)
        targets = Targets(spectra[:, 0], spectra[:, 1:].transpose(0, 1), options.output_type)
        batch = {"mix_magnitude": targets.mix_magnitude().permute(0, 2, 3, 1).contiguous()}
        for key in target_keys:
            # (sources, batch, channels, time, frequency)
            batch[key] = getattr(targets, key)().permute(1, 3, 4, 2, 0).float().contiguous()
        return batch

    def _fill(
        self, spectra: torch.Tensor, target_keys: Sequence[str], options: BatchOptions
    ) -> dict[str, torch.Tensor]:
        """The values of Targets, in one pass on a CPU; spectra are (batch, 1 + sources, channels, time, frequency)."""
        count, signals, channels, frames, frequencies = spectra.shape
        shape = (count, frames, frequencies, channels)
        batch = {"mix_magnitude": torch.empty(shape)} | {key: torch.empty(*shape, signals - 1) for key in target_keys}
        skipped = np.empty((count, 0, 0, 0, 0), np.float32)
        parts = [
            batch[key].numpy() if key in batch else skipped
            for key in ("mix_magnitude", "source_magnitudes", "ideal_binary_mask")
        ]
        values = torch.view_as_real(spectra).flatten(-2).numpy()
        for row in zip(values, *parts, strict=True):
            fill_targets(row[0], options.output_type == "psa", *row[1:])
        return batch

    def _waveforms(self, signals: torch.Tensor, keys: Sequence[str]) -> dict[str, torch.Tensor]:
        batch = {"mix_audio": signals[:, 0].contiguous()} if "mix_audio" in keys else {}
        if "source_audio" in keys:
            batch["source_audio"] = signals[:, -self._num_sources :].permute(0, 2, 3, 1).contiguous()
        return batch


def _unpack_bits(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` bits of the last axis as float32 0 and 1, the highest bit of a byte first."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1, count=count)).float()
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(-1) >> shifts) & 1
    return bits.flatten(-2)[..., :count].float()
