"""Feature store: all items of a dataset split, in memory or in a cache on disk, read in batches of excerpts.

The items follow one another along the time axis, in the types of separation.features.encoding. A batch is read in those
types, which is cheap and can be done ahead; separation.features.decode then decodes it on the device that trains. A
store built from audio in memory and one read from a cache hold the same bits, so a network trained with a cache equals
one trained without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from separation.errors import UserError
from separation.experiment.options import DatasetOptions
from separation.features.decode import BatchOptions, Decoder, RawBatch
from separation.features.encoding import FRAME_ARRAYS, REMAINDER, SAMPLE_ARRAYS, EncodedItem, check_same_shape
from separation.features.spectra import AUDIO_KEYS, weight_floors, weight_gains


class TimeArray(Protocol):
    """An array on disk whose first axis is time."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, span: slice) -> np.ndarray: ...

    def read_into(self, rows: np.ndarray, first: int) -> None: ...


@dataclass(frozen=True)
class Remix:
    """New mixtures for some excerpts of a plan, with sources from other items.

    Attributes:
        chosen: Whether an excerpt is remixed, (excerpts,), bool.
        items: Item that each source comes from, (excerpts, sources).
        starts: First frame of each source in its item, (excerpts, sources).
        gains: Linear gain of each source, (excerpts, sources).
    """

    chosen: np.ndarray
    items: np.ndarray
    starts: np.ndarray
    gains: np.ndarray

    def take(self, excerpts: Any) -> Remix:
        """The remix of some excerpts, selected by any index of an array."""
        return Remix(self.chosen[excerpts], self.items[excerpts], self.starts[excerpts], self.gains[excerpts])


class FeatureStore:
    """All items of a split, read by excerpts.

    Args:
        arrays: Arrays by name, see EncodedItem.arrays, with the items one after the other.
        lengths: Frames and samples of each item, (items, 2).
        constants: {"total", "peak", "step"}, (items,) each, see EncodedItem.
        sources: Names of the sources.
        options: Number of channels and STFT parameters.

    Attributes:
        decode: Decodes a batch that `read` returned, see separation.features.decode.Decoder.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray | torch.Tensor | TimeArray],
        lengths: np.ndarray,
        constants: Mapping[str, np.ndarray],
        sources: Sequence[str],
        options: DatasetOptions,
    ):
        self.arrays: dict[str, Any] = dict(arrays)
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.constants = {key: np.asarray(values) for key, values in constants.items()}
        self.sources = tuple(sources)
        self.options = options
        self.num_sources, self.num_channels = len(self.sources), options.num_channels
        self.num_frequencies = options.n_fft // 2 + 1
        self.decode = Decoder(options, self.num_sources)
        self._offsets = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(self.lengths, axis=0)])
        self._on_device = any(isinstance(array, torch.Tensor) for array in self.arrays.values())

    @classmethod
    def from_items(cls, encoded: Iterable[EncodedItem], options: DatasetOptions) -> FeatureStore:
        """A store in memory with the encoded items."""
        items = list(encoded)
        if not items:
            raise UserError("expected at least one item, found none")
        check_same_shape(items)
        arrays = {key: np.concatenate([item.arrays[key] for item in items]) for key in items[0].arrays}
        lengths = np.array([(item.frames, item.samples) for item in items])
        constants = {key: np.array([getattr(item, key) for item in items]) for key in ("total", "peak", "step")}
        options = dataclasses.replace(options, num_channels=items[0].shape[1])
        return cls(arrays, lengths, constants, items[0].sources, options)

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
        """The GPU that holds the arrays; None if they are in the host's memory or on disk."""
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
        return FeatureStore(arrays, self.lengths, self.constants, self.sources, self.options)

    def excerpts(
        self,
        items: Sequence[int],
        starts: Sequence[int],
        length: int,
        options: BatchOptions,
        remix: Remix | None = None,
    ) -> dict[str, torch.Tensor]:
        """A batch of excerpts, one per entry of `items`, as nussl's networks and losses read them.

        Shorter items are zero-padded.

        Args:
            items: Index of the item of each excerpt.
            starts: First frame of each excerpt, counted from the start of the item.
            length: Length of each excerpt, in frames.
            options: Contents of the batch.
            remix: Excerpts with new sources; requires arrays of audio. The new mixture is the sum of the new sources
                and of the rest of the item's mixture, such as noise or reverberation. Its weights follow from the
                loudness of the excerpt instead of that of the whole item.

        Returns:
            float32 tensors by data key: mix_magnitude and weights (batch, time, frequency, channels), source_magnitudes
            and ideal_binary_mask (batch, time, frequency, channels, sources), mix_audio (batch, channels, samples),
            source_audio (batch, channels, samples, sources).

            Waveforms have the layout of nussl.datasets.transforms.GetAudio, which nussl's filter banks, dual-path
            blocks and SISDRLoss take: length x hop_length samples from sample start x hop_length on, full scale 1.0.
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
        """The excerpts as they are stored, with the constants of their items: the input of `decode`.

        The tensors are in the host's memory, or on the device that holds the store. Several threads may call this at
        once.
        """
        items, starts = np.asarray(items, dtype=np.int64), np.asarray(starts, dtype=np.int64)
        raw: RawBatch = {}
        hop_length = self.options.hop_length
        frame_arrays, sample_arrays, before, after = self._needs(length, options)
        # excerpts
        for name in frame_arrays:
            raw[name] = self._cut(name, 0, items, starts, length)
        for name in sample_arrays:
            raw[name] = self._cut(name, 1, items, starts * hop_length - before, before + after)
        # constants of the items
        if sample_arrays:
            raw["step"] = torch.from_numpy(self.constants["step"][items].astype(np.float32))
        if "weights" in options.data_keys:
            bins = self.frames[items] * self.num_frequencies
            raw["gain"] = torch.from_numpy(weight_gains(self.constants["total"][items], bins).astype(np.float32))
            if options.weight_threshold is not None:
                floors = weight_floors(self.constants["peak"][items], options.weight_threshold)
                raw["floor"] = torch.from_numpy(floors.astype(np.float32))
        # sources of a remix, and the frames up to the end of each excerpt's item
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
        starts = new.starts * self.options.hop_length - before
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
        """Frame arrays and sample arrays to read, and the samples to read before and after an excerpt's start."""
        spectral = [key for key in options.data_keys if key not in AUDIO_KEYS]
        needed = {"mix_magnitude" if key == "weights" else key for key in spectral}
        if all(key in self.arrays for key in needed):
            frame_arrays, sample_arrays, before, after = [key for key in FRAME_ARRAYS if key in needed], set(), 0, 0
        else:
            n_fft, hop_length = self.options.n_fft, self.options.hop_length
            frame_arrays, sample_arrays = [], {"mix_audio", "source_audio"}
            if not needed - {"mix_magnitude"}:
                sample_arrays = {"mix_audio"}
            before, after = n_fft // 2, (length - 1) * hop_length + n_fft - n_fft // 2
        waveforms = [key for key in options.data_keys if key in AUDIO_KEYS]
        if waveforms:
            after = max(after, length * self.options.hop_length)
        sample_arrays |= set(waveforms)
        if "mix_audio" in sample_arrays and REMAINDER in self.arrays:
            sample_arrays = {REMAINDER, "source_audio"}
        return frame_arrays, [key for key in SAMPLE_ARRAYS if key in sample_arrays], before, after

    def _cut(self, name: str, unit: int, items: np.ndarray, starts: np.ndarray, length: int) -> torch.Tensor:
        """Rows starts[i] ... starts[i] + length of each item, 0 outside of the item: (batch, length, ...)."""
        array = self.arrays[name]
        first = self._offsets[items, unit]
        lengths = self.lengths[items, unit]
        if self._on_device:
            # one gather on the device
            position = torch.from_numpy(starts).to(self.device)[:, None] + torch.arange(length, device=self.device)
            size = torch.from_numpy(lengths).to(self.device)[:, None]
            inside = (position >= 0) & (position < size)
            index = (position + torch.from_numpy(first).to(self.device)[:, None]).clamp_(0, array.shape[0] - 1)
            cut = array[index]
            return cut.masked_fill_(~inside.reshape(*inside.shape, *[1] * (cut.ndim - 2)), 0)
        # excerpt by excerpt, straight into the batch
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


def _torch_type(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
