"""The features of a whole dataset split, compact enough to keep in memory or to map from a cache on disk.

All items follow one another along the time axis; `frame_offsets` says where each begins. Magnitudes are float16:
scaled by MAGNITUDE_SCALE first, because quiet material (scaper mixes at -40 dB) would otherwise fall into float16's
subnormal range, where a bin's level is wrong by several dB. Masks are packed to bits. Weights are not stored: they
follow from the magnitude, and from two numbers per item, its sum and its peak. A store made from audio in memory and
one read from a cache hold the same bits, so a network trained with and without a cache is the same network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from separation.data.items import ItemAudio, Items
from separation.errors import UserError
from separation.features import Features, extract, loss_weights

#: full-scale audio has magnitudes up to 1 (nussl's STFT is divided by the window's sum); float16 ends at 65504
MAGNITUDE_SCALE = 4096.0
#: arrays with the frames of all items along their first axis, by the data key that they serve
FRAME_ARRAYS = ("mix_magnitude", "source_magnitudes", "ideal_binary_mask")


class FrameArray(Protocol):
    """An array whose first axis is time, in memory or on disk."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, frames: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class EncodedItem:
    """One item as it is stored.

    Attributes:
        arrays: some of FRAME_ARRAYS, each (frames, ...): mix_magnitude float16 (frames, frequency, channels),
            source_magnitudes float16 (frames, frequency, channels, sources), ideal_binary_mask uint8 (frames,
            ceil(frequency x channels x sources / 8)).
        total: sum of the mixture's magnitude.
        peak: its largest value.
        shape: (frequency, channels, sources).
        sources: their names.
    """

    arrays: dict[str, np.ndarray]
    total: float
    peak: float
    shape: tuple[int, int, int]
    sources: tuple[str, ...]

    @property
    def frames(self) -> int:
        return len(self.arrays["mix_magnitude"])


def stored_keys(data_keys: Iterable[str]) -> tuple[str, ...]:
    """Which arrays have to be stored to serve `data_keys`, in a fixed order."""
    wanted = {"mix_magnitude", *data_keys}
    return tuple(key for key in FRAME_ARRAYS if key in wanted)


def encode(features: Features, data_keys: Sequence[str]) -> EncodedItem:
    """Packs the features of one item.

    Raises:
        OverflowError: where a magnitude does not fit (audio far above full scale).
    """
    arrays = {}
    for key in stored_keys(data_keys):
        values = getattr(features, key)
        if key == "ideal_binary_mask":
            arrays[key] = np.packbits(values.reshape(len(values), -1), axis=-1)
        else:
            if not values.max() <= np.finfo(np.float16).max / MAGNITUDE_SCALE:
                raise OverflowError(f"a magnitude is {values.max():.3g}")
            # torch converts with the processor's own instructions, numpy in software
            arrays[key] = (torch.from_numpy(values) * MAGNITUDE_SCALE).half().numpy()
    magnitude = features.mix_magnitude
    return EncodedItem(
        arrays,
        total=float(magnitude.sum(dtype=np.float64)),
        peak=float(magnitude.max()),
        shape=features.source_magnitudes.shape[1:],
        sources=features.sources,
    )


def encode_item(item: ItemAudio, dataset_config: Mapping[str, Any], data_keys: Sequence[str]) -> EncodedItem:
    """Extracts and packs the features of one item; UserError names the item whose audio cannot be used."""
    try:
        return encode(extract(item.mixture, item.sources, dataset_config), data_keys)
    except OverflowError as error:
        raise UserError(f"item {item.name}: expected audio within -1 and 1, found that {error}") from error


def encoded_items(
    items: Items, dataset_config: Mapping[str, Any], data_keys: Sequence[str], workers: int = 1
) -> Iterator[EncodedItem]:
    """Encodes all items, in order, `workers` at a time.

    Threads suffice, as transforms and array arithmetic release the GIL. The audio is read by the calling thread alone:
    not every reader of nussl.datasets can be shared.
    """

    def encode_next(item: ItemAudio) -> EncodedItem:
        return encode_item(item, dataset_config, data_keys)

    workers = max(1, workers)
    # the transforms of one item are too small to be shared out
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        audio = (items.arrays(index) for index in range(len(items)))
        # a bounded number in flight, so that a slow disk does not fill the memory with finished items
        pending = deque(pool.submit(encode_next, item) for item in islice(audio, 2 * workers))
        while pending:
            encoded = pending.popleft().result()
            pending.extend(pool.submit(encode_next, item) for item in islice(audio, 1))
            yield encoded


class FeatureStore:
    """Features of all items of a split, to be read by excerpts.

    Args:
        arrays: by data key, see EncodedItem.arrays, of all items one after the other.
        frame_offsets: (items + 1,), where each item begins.
        totals, peaks: (items,), sum and maximum of each item's mixture magnitude.
        shape: (frequency, channels, sources).
        sources: their names.
    """

    def __init__(
        self,
        arrays: Mapping[str, FrameArray],
        frame_offsets: np.ndarray,
        totals: np.ndarray,
        peaks: np.ndarray,
        shape: Sequence[int],
        sources: Sequence[str],
    ):
        self.arrays = dict(arrays)
        self.frame_offsets = np.asarray(frame_offsets)
        self.totals, self.peaks = np.asarray(totals), np.asarray(peaks)
        self.num_frequencies, self.num_channels, self.num_sources = (int(size) for size in shape)
        self.sources = tuple(sources)

    @classmethod
    def from_items(cls, encoded: Iterable[EncodedItem]) -> FeatureStore:
        """Gathers encoded items in memory."""
        items = list(encoded)
        if not items:
            raise UserError("expected at least one item, found none")
        check_alike(items)
        arrays = {key: np.concatenate([item.arrays[key] for item in items]) for key in items[0].arrays}
        offsets = np.concatenate([[0], np.cumsum([item.frames for item in items])])
        totals, peaks = [item.total for item in items], [item.peak for item in items]
        return cls(arrays, offsets, np.array(totals), np.array(peaks), items[0].shape, items[0].sources)

    def __len__(self) -> int:
        return len(self.frame_offsets) - 1

    @property
    def frames(self) -> np.ndarray:
        """Number of frames of each item, (items,)."""
        return np.diff(self.frame_offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return sum(int(np.prod(array.shape)) * array.dtype.itemsize for array in self.arrays.values())

    def in_memory(self) -> FeatureStore:
        """The same store with every array read into memory."""
        arrays = {key: np.array(array[0 : array.shape[0]]) for key, array in self.arrays.items()}
        shape = (self.num_frequencies, self.num_channels, self.num_sources)
        return FeatureStore(arrays, self.frame_offsets, self.totals, self.peaks, shape, self.sources)

    def excerpts(
        self,
        items: Sequence[int],
        starts: Sequence[int],
        length: int,
        *,
        data_keys: Sequence[str],
        weight_type: Sequence[str] = ("magnitude",),
        weight_threshold: float | None = None,
    ) -> dict[str, np.ndarray]:
        """A batch of excerpts, one per entry of `items`, as nussl's networks and losses read them.

        An item shorter than `length` is filled up with frames of magnitude, mask and weight 0.

        Args:
            items: index of the item of each excerpt.
            starts: first frame of each excerpt, counted from the item's beginning.
            length: of each excerpt, in frames.
            data_keys: which of separation.features.DATA_KEYS are wanted.
            weight_type, weight_threshold: see `separation.features.loss_weights`.

        Returns:
            float32 arrays by data key: mix_magnitude and weights (batch, time, frequency, channels),
            source_magnitudes and ideal_binary_mask (batch, time, frequency, channels, sources).
        """
        spectrum = (self.num_frequencies, self.num_channels)
        batch = {
            key: np.zeros(
                (len(items), length, *spectrum, *(() if key in ("mix_magnitude", "weights") else (self.num_sources,))),
                dtype=np.float32,
            )
            for key in data_keys
        }
        for row, (item, start) in enumerate(zip(items, starts, strict=True)):
            first = int(self.frame_offsets[item]) + int(start)
            last = min(first + length, int(self.frame_offsets[item + 1]))
            for key, target in batch.items():
                excerpt = target[row, : last - first]
                if key == "weights":
                    excerpt[...] = loss_weights(
                        self._magnitude("mix_magnitude", first, last),
                        total=self.totals[item],
                        peak=self.peaks[item],
                        bins=int(self.frames[item]) * self.num_frequencies,
                        weight_type=weight_type,
                        weight_threshold=weight_threshold,
                    )
                elif key == "ideal_binary_mask":
                    bits = np.unpackbits(self.arrays[key][first:last], axis=-1, count=excerpt[0].size)
                    excerpt[...] = bits.reshape(excerpt.shape)
                else:
                    excerpt[...] = self._magnitude(key, first, last)
        return batch

    def _magnitude(self, key: str, first: int, last: int) -> np.ndarray:
        return self.arrays[key][first:last].astype(np.float32) * np.float32(1 / MAGNITUDE_SCALE)


def check_alike(items: Iterable[EncodedItem]) -> None:
    """Raises UserError where items differ in frequencies, channels or sources."""
    first = None
    for item in items:
        first = first or item
        if (item.shape, item.sources) != (first.shape, first.sources):
            raise UserError(
                f"expected the same (frequencies, channels, sources) in all items: {first.shape} "
                f"{list(first.sources)}, found {item.shape} {list(item.sources)}"
            )
