"""The items of a dataset split, compact enough to keep in memory or to read from a cache on disk, cut into batches.

All items follow one another along the time axis, in the types of separation.features.encoding. A batch is read in those
types, which is cheap and can be done ahead, then decoded on the device that trains: features are unpacked there, audio
goes through the STFT there. A store built from audio in memory and one read from a cache hold the same bits, so a
network trained with and without a cache is the same network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from separation.errors import UserError
from separation.features.encoding import (
    FRAME_ARRAYS,
    MAGNITUDE_SCALE,
    REMAINDER,
    SAMPLE_ARRAYS,
    EncodedItem,
    check_alike,
)
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

#: what is decoded with a batch, by the name of its array or constant
RawBatch = dict[str, torch.Tensor]


class TimeArray(Protocol):
    """An array on disk whose first axis is time."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, span: slice) -> np.ndarray: ...

    def read_into(self, rows: np.ndarray, first: int) -> None: ...


@dataclass(frozen=True)
class BatchOptions:
    """What a batch shall hold.

    Attributes:
        data_keys: some of separation.features.spectra.DATA_KEYS.
        weight_type, weight_threshold: see `separation.features.spectra.loss_weights` and `weight_floors`.
        output_type: psa or msa, for targets that are computed from audio; stored ones are what they are.
    """

    data_keys: tuple[str, ...]
    weight_type: tuple[str, ...] = ("magnitude",)
    weight_threshold: float | None = None
    output_type: str = "psa"

    @classmethod
    def of(cls, dataset_config: Mapping[str, Any]) -> BatchOptions:
        """As a dataset_config says."""
        return cls(
            tuple(dataset_config["data_keys_for_training"]),
            tuple(dataset_config["weight_type"]),
            dataset_config["weight_threshold"],
            dataset_config["output_type"],
        )


@dataclass(frozen=True)
class Remix:
    """New mixtures for some excerpts of a plan: their sources come from other places.

    Attributes:
        chosen: which excerpts are mixed anew, (excerpts,), bool.
        items: where each source comes from, (excerpts, sources).
        starts: its first frame there, (excerpts, sources).
        gains: what it is multiplied by, (excerpts, sources).
    """

    chosen: np.ndarray
    items: np.ndarray
    starts: np.ndarray
    gains: np.ndarray

    def take(self, excerpts: Any) -> Remix:
        """Those of some excerpts, by whatever indexes an array."""
        return Remix(self.chosen[excerpts], self.items[excerpts], self.starts[excerpts], self.gains[excerpts])


class FeatureStore:
    """What is kept of all items of a split, to be read by excerpts.

    Args:
        arrays: by name, see EncodedItem.arrays, of all items one after the other.
        lengths: (items, 2), frames and samples of each item.
        constants: {"total", "peak", "step"}: (items,) each, see EncodedItem.
        sources: names of the sources.
        dataset_config: num_channels, n_fft, hop_length and window_type are read.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray | torch.Tensor | TimeArray],
        lengths: np.ndarray,
        constants: Mapping[str, np.ndarray],
        sources: Sequence[str],
        dataset_config: Mapping[str, Any],
    ):
        self.arrays: dict[str, Any] = dict(arrays)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.constants = {key: np.asarray(values) for key, values in constants.items()}
        self.sources = tuple(sources)
        self.dataset_config = dataset_config
        self.num_sources, self.num_channels = len(self.sources), int(dataset_config["num_channels"])
        self.num_frequencies = dataset_config["n_fft"] // 2 + 1
        self._offsets = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(self.lengths, axis=0)])
        self._on_device = any(isinstance(array, torch.Tensor) for array in self.arrays.values())

    @classmethod
    def from_items(cls, encoded: Iterable[EncodedItem], dataset_config: Mapping[str, Any]) -> FeatureStore:
        """Gathers encoded items in memory."""
        items = list(encoded)
        if not items:
            raise UserError("expected at least one item, found none")
        check_alike(items)
        arrays = {key: np.concatenate([item.arrays[key] for item in items]) for key in items[0].arrays}
        lengths = np.array([(item.frames, item.samples) for item in items])
        constants = {key: np.array([getattr(item, key) for item in items]) for key in ("total", "peak", "step")}
        config = {**dataset_config, "num_channels": items[0].shape[1]}
        return cls(arrays, lengths, constants, items[0].sources, config)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def frames(self) -> np.ndarray:
        """Number of STFT frames of each item, (items,)."""
        return self.lengths[:, 0]

    @property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return sum(int(np.prod(array.shape)) * array.dtype.itemsize for array in self.arrays.values())

    @property
    def device(self) -> torch.device | None:
        """The GPU that holds the arrays; None where they are in the host's memory or on disk."""
        return next(iter(self.arrays.values())).device if self._on_device else None

    def in_memory(self) -> FeatureStore:
        """The same store with every array read into memory."""
        return self._with({key: np.array(array[0 : array.shape[0]]) for key, array in self.arrays.items()})

    def on_device(self, device: torch.device) -> FeatureStore:
        """The same store with every array in a device's memory; batches are then cut there."""
        arrays = {}
        for key, array in self.arrays.items():
            arrays[key] = torch.empty(tuple(array.shape), dtype=_torch_type(array.dtype), device=device)
            rows = max(1, 2**26 // max(1, int(np.prod(array.shape[1:]))))
            for first in range(0, array.shape[0], rows):
                part = np.array(array[first : min(first + rows, array.shape[0])])
                arrays[key][first : first + rows] = torch.from_numpy(part).to(device)
        return self._with(arrays)

    def _with(self, arrays: Mapping[str, Any]) -> FeatureStore:
        return FeatureStore(arrays, self.lengths, self.constants, self.sources, self.dataset_config)

    def excerpts(
        self,
        items: Sequence[int],
        starts: Sequence[int],
        length: int,
        options: BatchOptions,
        remix: Remix | None = None,
    ) -> dict[str, torch.Tensor]:
        """A batch of excerpts, one per entry of `items`, as nussl's networks and losses read them.

        An item shorter than `length` is filled up with magnitude, mask, weight and audio 0.

        Args:
            items: index of the item of each excerpt.
            starts: first frame of each excerpt, counted from the item's beginning.
            length: of each excerpt, in frames.
            options: what is wanted.
            remix: which excerpts get other sources; the arrays have to be those of audio. Such a mixture is the sum of
                its new sources and of what the item's own sources leave of its mixture, noise or reverberation. Its
                weights follow from the loudness of the excerpt instead of that of the whole item.

        Returns:
            float32 tensors by data key: mix_magnitude and weights (batch, time, frequency, channels), source_magnitudes
            and ideal_binary_mask (batch, time, frequency, channels, sources), mix_audio (batch, channels, samples),
            source_audio (batch, channels, samples, sources).

            The waveforms are laid out as nussl.datasets.transforms.GetAudio does it, which is what nussl's filter banks
            and dual-path blocks take and its SISDRLoss compares with. They have length x hop_length samples from
            sample start x hop_length on, full scale 1.0.
        """
        return self.decode(self.read(items, starts, length, options, remix), length, options)

    # ---------------------------------------------------------------- reading

    def read(
        self,
        items: Sequence[int],
        starts: Sequence[int],
        length: int,
        options: BatchOptions,
        remix: Remix | None = None,
    ) -> RawBatch:
        """What `decode` makes a batch of: excerpts in the types they are stored in, and each item's constants.

        The tensors are in the host's memory, or on the device that holds the store. May be called by several threads.
        """
        items, starts = np.asarray(items, dtype=np.int64), np.asarray(starts, dtype=np.int64)
        raw: RawBatch = {}
        hop_length = self.dataset_config["hop_length"]
        frame_arrays, sample_arrays, before, after = self._needs(length, options)
        for name in frame_arrays:
            raw[name] = self._cut(name, 0, items, starts, length)
        for name in sample_arrays:
            raw[name] = self._cut(name, 1, items, starts * hop_length - before, before + after)
        if sample_arrays:
            raw["step"] = torch.from_numpy(self.constants["step"][items].astype(np.float32))
        if "weights" in options.data_keys:
            bins = self.frames[items] * self.num_frequencies
            raw["gain"] = torch.from_numpy(weight_gains(self.constants["total"][items], bins).astype(np.float32))
            if options.weight_threshold is not None:
                floors = weight_floors(self.constants["peak"][items], options.weight_threshold)
                raw["floor"] = torch.from_numpy(floors.astype(np.float32))
        left = self.frames[items] - starts
        if remix is not None and remix.chosen.any():
            raw |= self._read_remix(remix, before, before + after)
            left = np.where(remix.chosen, np.maximum(left, (self.frames[remix.items] - remix.starts).max(axis=1)), left)
        if (left < length).any():
            raw["frames_left"] = torch.from_numpy(left)
        if self._on_device:
            raw = {key: tensor.to(self.device, non_blocking=True) for key, tensor in raw.items()}
        return raw

    def _read_remix(self, remix: Remix, before: int, span: int) -> RawBatch:
        rows = np.flatnonzero(remix.chosen)
        new = remix.take(rows)
        starts = new.starts * self.dataset_config["hop_length"] - before
        audio = [
            self._cut("source_audio", 1, new.items[:, source], starts[:, source], span)[..., source]
            for source in range(self.num_sources)
        ]
        scales = self.constants["step"][new.items] * new.gains
        return {
            "remix_rows": torch.from_numpy(rows),
            "remix_audio": torch.stack(audio, dim=-1),
            "remix_scales": torch.from_numpy(scales.astype(np.float32)),
        }

    def _needs(self, length: int, options: BatchOptions) -> tuple[list[str], list[str], int, int]:
        """Which arrays, and how many samples before and after an excerpt's first sample."""
        spectral = [key for key in options.data_keys if key not in AUDIO_KEYS]
        wanted = {"mix_magnitude" if key == "weights" else key for key in spectral}
        if all(key in self.arrays for key in wanted):
            frame_arrays, sample_arrays, before, after = [key for key in FRAME_ARRAYS if key in wanted], set(), 0, 0
        else:
            n_fft, hop_length = self.dataset_config["n_fft"], self.dataset_config["hop_length"]
            frame_arrays, sample_arrays = [], {"mix_audio", "source_audio"}
            if not wanted - {"mix_magnitude"}:
                sample_arrays = {"mix_audio"}
            before, after = n_fft // 2, (length - 1) * hop_length + n_fft - n_fft // 2
        waveforms = [key for key in options.data_keys if key in AUDIO_KEYS]
        if waveforms:
            after = max(after, length * self.dataset_config["hop_length"])
        sample_arrays |= set(waveforms)
        if "mix_audio" in sample_arrays and REMAINDER in self.arrays:
            sample_arrays = {REMAINDER, "source_audio"}
        return frame_arrays, [key for key in SAMPLE_ARRAYS if key in sample_arrays], before, after

    def _cut(self, name: str, unit: int, items: np.ndarray, starts: np.ndarray, length: int) -> torch.Tensor:
        """(batch, length, ...): what lies at starts[i] ... starts[i] + length of each item, 0 outside of it."""
        array = self.arrays[name]
        first = self._offsets[items, unit]
        lengths = self.lengths[items, unit]
        if self._on_device:
            position = torch.from_numpy(starts).to(self.device)[:, None] + torch.arange(length, device=self.device)
            size = torch.from_numpy(lengths).to(self.device)[:, None]
            inside = (position >= 0) & (position < size)
            index = (position + torch.from_numpy(first).to(self.device)[:, None]).clamp_(0, array.shape[0] - 1)
            cut = array[index]
            return cut.masked_fill_(~inside.reshape(*inside.shape, *[1] * (cut.ndim - 2)), 0)
        batch = np.empty((len(items), length, *array.shape[1:]), dtype=array.dtype)
        for row, start, offset, size in zip(batch, starts.tolist(), first.tolist(), lengths.tolist(), strict=True):
            begin, end = max(start, 0), min(start + length, size)
            end = max(begin, end)
            row[: begin - start] = 0
            part = row[begin - start : end - start]
            if isinstance(array, np.ndarray):
                part[...] = array[offset + begin : offset + end]
            else:
                array.read_into(part, offset + begin)
            row[end - start :] = 0
        return torch.from_numpy(batch)

    # ---------------------------------------------------------------- decoding

    def decode(self, raw: RawBatch, length: int, options: BatchOptions) -> dict[str, torch.Tensor]:
        """The batch of `excerpts`, from what `read` gave, on the device on which that is.

        Magnitudes and masks of audio are computed in float32: where the features were computed beforehand, in float64,
        a magnitude differs by less than 1e-6 of the loudest, a mask in bins in which two sources are as good as equal.
        """
        keys = options.data_keys
        batch: dict[str, torch.Tensor] = {}
        signals = self._signals(raw) if "step" in raw else None
        inside = None
        if "frames_left" in raw:
            inside = torch.arange(length, device=raw["frames_left"].device) < raw["frames_left"][:, None]
        if not set(keys) <= set(AUDIO_KEYS):
            stored = any(name in raw for name in FRAME_ARRAYS)
            batch = self._unpack(raw, keys) if stored else self._transform(signals, length, options)
            if "weights" in keys:
                batch["weights"] = self._weigh(batch["mix_magnitude"], raw, options)
            if inside is not None:
                for key, values in batch.items():
                    batch[key] = values * inside.reshape(*inside.shape, *[1] * (values.ndim - 2))
        if set(keys) & set(AUDIO_KEYS):
            batch |= self._waveforms(signals, length, keys)
        return {key: batch[key] for key in keys}

    def _unpack(self, raw: RawBatch, keys: Sequence[str]) -> dict[str, torch.Tensor]:
        batch = {}
        for key in FRAME_ARRAYS:
            if key not in raw:
                continue
            if key == "ideal_binary_mask":
                shape = (self.num_frequencies, self.num_channels, self.num_sources)
                batch[key] = _unpack_bits(raw[key], int(np.prod(shape))).reshape(*raw[key].shape[:2], *shape)
            else:
                batch[key] = raw[key].float().mul_(1 / MAGNITUDE_SCALE)
        return batch

    def _signals(self, raw: RawBatch) -> torch.Tensor:
        """The waveforms that were read, in full scale: (batch, signals, channels, samples), the mixture, where it was
        read, before the sources."""
        sources = raw["source_audio"].permute(0, 3, 2, 1) if "source_audio" in raw else None
        mixtures = [raw[key].permute(0, 2, 1) for key in (REMAINDER, "mix_audio") if key in raw]
        batch, channels, samples = mixtures[0].shape if mixtures else sources[:, 0].shape
        count = len(mixtures) + (0 if sources is None else self.num_sources)
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
            rows = raw["remix_rows"]
            new = (raw["remix_audio"] * raw["remix_scales"][:, None, None, :]).permute(0, 3, 2, 1)
            signals[rows, 0] += new.sum(dim=1) - signals[rows, 1:].sum(dim=1)
            signals[rows, 1:] = new
        return signals

    def _weigh(self, magnitude: torch.Tensor, raw: RawBatch, options: BatchOptions) -> torch.Tensor:
        gain, floor = raw["gain"], raw.get("floor")
        if "remix_rows" in raw:
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
        keys, framing = options.data_keys, stft_options(self.dataset_config)
        samples = (length - 1) * framing["hop_length"] + framing["n_fft"]
        wanted = [key for key in ("source_magnitudes", "ideal_binary_mask") if key in keys]
        signals = signals if wanted else signals[:, :1]
        spectra = spectra_of_frames(signals[..., :samples], **framing)
        if spectra.device.type == "cpu":
            return self._fill(spectra, wanted, options)
        targets = Targets(spectra[:, 0], spectra[:, 1:].transpose(0, 1), options.output_type)
        batch = {"mix_magnitude": targets.mix_magnitude().permute(0, 2, 3, 1).contiguous()}
        for key in wanted:
            # (sources, batch, channels, time, frequency)
            batch[key] = getattr(targets, key)().permute(1, 3, 4, 2, 0).float().contiguous()
        return batch

    def _fill(self, spectra: torch.Tensor, wanted: Sequence[str], options: BatchOptions) -> dict[str, torch.Tensor]:
        """What Targets gives, in one pass; spectra are (batch, 1 + sources, channels, time, frequency)."""
        count, signals, channels, frames, frequencies = spectra.shape
        shape = (count, frames, frequencies, channels)
        batch = {"mix_magnitude": torch.empty(shape)} | {key: torch.empty(*shape, signals - 1) for key in wanted}
        unwanted = np.empty((count, 0, 0, 0, 0), np.float32)
        parts = [
            batch[key].numpy() if key in batch else unwanted
            for key in ("mix_magnitude", "source_magnitudes", "ideal_binary_mask")
        ]
        values = torch.view_as_real(spectra).flatten(-2).numpy()
        for row in zip(values, *parts, strict=True):
            fill_targets(row[0], options.output_type == "psa", *row[1:])
        return batch

    def _waveforms(self, signals: torch.Tensor, length: int, keys: Sequence[str]) -> dict[str, torch.Tensor]:
        _, _, before, _ = self._needs(length, BatchOptions(tuple(keys)))
        span = slice(before, before + length * self.dataset_config["hop_length"])
        signals = signals[..., span]
        batch = {"mix_audio": signals[:, 0].contiguous()} if "mix_audio" in keys else {}
        if "source_audio" in keys:
            batch["source_audio"] = signals[:, -self.num_sources :].permute(0, 2, 3, 1).contiguous()
        return batch


def _unpack_bits(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` bits of the last axis as float32 0 and 1, the highest bit of a byte first."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), axis=-1, count=count)).float()
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(-1) >> shifts) & 1
    return bits.flatten(-2)[..., :count].float()


def _torch_type(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
