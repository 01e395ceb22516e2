"""Encoding of one item of a dataset, in the smallest types that are precise enough.

Magnitudes are float16. They are scaled by MAGNITUDE_SCALE first, because quiet material (scaper mixes at -40 dB) would
otherwise be in float16's subnormal range, where the level of a bin is wrong by several dB. Masks are packed to bits.
Audio is int16. A mixture that is stored with its sources is stored as the remainder after subtracting them, mostly 0 or
a last bit, which fits in a byte. Weights are not stored: they follow from the magnitude, and from its sum and its peak
over the item.

Audio of 16-bit files is stored exactly. Finer audio (24 bits, float), or audio above full scale, is scaled to the peak
of the item, by one factor for mixture and sources, and rounded: the error of a sample is at most 1/65534 of that peak.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from separation.data.items import ItemAudio, Items
from separation.errors import UserError
from separation.experiment.options import DatasetOptions
from separation.features.spectra import AUDIO_KEYS, FEATURES, Features, count_frames, extract
from separation.machine.threads import single_threaded_workers

KINDS = ("features", "audio")
#: full-scale audio has magnitudes up to 1 (nussl's STFT is divided by the window's sum); float16 ends at 65504
MAGNITUDE_SCALE = 4096.0
#: the step of 16-bit audio
PCM_STEP = 2.0**-15
#: arrays with the frames of all items along their first axis, named after their data key
FRAME_ARRAYS = FEATURES
#: the mixture minus all its sources, modulo 2**16
REMAINDER = "mix_remainder"
#: arrays with the samples of all items along their first axis
SAMPLE_ARRAYS = (REMAINDER, *AUDIO_KEYS)


@dataclass(frozen=True)
class EncodedItem:
    """One item as it is stored.

    Attributes:
        arrays: Some of FRAME_ARRAYS, each (frames, ...): mix_magnitude float16 (frames, frequency, channels),
            source_magnitudes float16 (frames, frequency, channels, sources), ideal_binary_mask uint8 (frames,
            ceil(frequency x channels x sources / 8)); some of SAMPLE_ARRAYS, each int16: mix_remainder and mix_audio
            (samples, channels), source_audio (samples, channels, sources).
        frames, samples: Length of the item.
        total: Sum of the mixture's magnitude.
        peak: Largest value of the mixture's magnitude.
        step: Value of one quantization step of the audio; full scale is 1.0.
        shape: (frequency, channels, sources).
        sources: Names of the sources.
    """

    arrays: dict[str, np.ndarray]
    frames: int
    samples: int
    total: float
    peak: float
    step: float
    shape: tuple[int, int, int]
    sources: tuple[str, ...]


def stored_arrays(kind: str, data_keys: Iterable[str]) -> tuple[str, ...]:
    """The arrays that a cache of this kind needs for `data_keys`, in a fixed order.

    Raises:
        UserError: The kind is unknown.
    """
    keys = set(data_keys)
    if kind == "audio":
        return REMAINDER, "source_audio"
    if kind != "features":
        raise UserError(f"expected one of {', '.join(KINDS)}, found {kind!r}", key="dataset_config.cache_kind")
    if keys - set(AUDIO_KEYS):
        keys.add("mix_magnitude")
    if keys >= set(AUDIO_KEYS):
        keys = keys - {"mix_audio"} | {REMAINDER}
    return tuple(key for key in (*FRAME_ARRAYS, *SAMPLE_ARRAYS) if key in keys)


def encode(features: Features, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays `names` of FRAME_ARRAYS, packed.

    Raises:
        OverflowError: A magnitude is too large for float16 (audio far above full scale).
    """
    arrays = {}
    for key in names:
        values = getattr(features, key)
        if key == "ideal_binary_mask":
            arrays[key] = np.packbits(values.reshape(len(values), -1), axis=-1)
        else:
            if not values.max() <= np.finfo(np.float16).max / MAGNITUDE_SCALE:
                raise OverflowError(f"a magnitude is {values.max():.3g}")
            # torch converts with the processor's own instructions, numpy in software
            arrays[key] = (torch.from_numpy(values) * MAGNITUDE_SCALE).half().numpy()
    return arrays


def encode_audio(mixture: np.ndarray, sources: Sequence[np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """SAMPLE_ARRAYS of one item, and their quantization step: 2**-15 if that is exact, see the module.

    Args:
        mixture, sources: Audio, float32, (channels, samples) each.

    Raises:
        OverflowError: A sample is not finite.
    """
    audio = np.stack([mixture, *sources], axis=-1).transpose(1, 0, 2)
    steps = audio * np.float32(1 / PCM_STEP)
    low, high = float(steps.min(initial=0)), float(steps.max(initial=0))
    if not np.isfinite([low, high]).all():
        raise OverflowError("a sample is not a finite number")
    coded, step = np.rint(steps), PCM_STEP
    if low < -32768 or high > 32767 or not np.array_equal(coded, steps):
        step = max(-low, high) * PCM_STEP / 32767
        coded = np.rint(audio.astype(np.float64) / step)
    coded = coded.astype(np.int16)
    mix, kept = np.ascontiguousarray(coded[..., 0]), np.ascontiguousarray(coded[..., 1:])
    return {
        "mix_audio": mix,
        "source_audio": kept,
        # an overflow cancels out when the sources are added again, as both wrap around
        REMAINDER: mix - kept.sum(axis=-1, dtype=np.int16),
    }, step


def encode_item(item: ItemAudio, options: DatasetOptions, names: Sequence[str]) -> EncodedItem:
    """Computes and packs the arrays `names` of one item.

    Raises:
        UserError: The audio is too loud or not finite; the message names the item.
    """
    frame_arrays = [name for name in names if name in FRAME_ARRAYS]
    channels, samples = item.mixture.shape
    try:
        arrays, step, mixture = {}, PCM_STEP, None
        if frame_arrays:
            features = extract(item.mixture, item.sources, options, set(frame_arrays) - {"mix_magnitude"})
            arrays, mixture = encode(features, frame_arrays), features.mix_magnitude
        if len(frame_arrays) < len(names):
            audio, step = encode_audio(item.mixture, list(item.sources.values()))
            arrays |= {name: audio[name] for name in names if name in SAMPLE_ARRAYS}
    except OverflowError as error:
        raise UserError(f"item {item.name}: expected finite audio within -1 and 1, but {error}") from error
    if mixture is None:
        mixture = extract(item.mixture, item.sources, options, ()).mix_magnitude
    return EncodedItem(
        arrays,
        frames=int(count_frames(samples, n_fft=options.n_fft, hop_length=options.hop_length)),
        samples=samples,
        total=float(mixture.sum(dtype=np.float64)),
        peak=float(mixture.max()),
        step=step,
        shape=(options.n_fft // 2 + 1, channels, len(item.sources)),
        sources=tuple(item.sources),
    )


def encoded_items(
    items: Items, options: DatasetOptions, names: Sequence[str], workers: int = 1
) -> Iterator[EncodedItem]:
    """Encodes all items, in order, `workers` at a time.

    Threads suffice, as transforms and array arithmetic release the GIL. Only the calling thread reads audio: not every
    reader of nussl.datasets is thread-safe.
    """

    def encode_next(item: ItemAudio) -> EncodedItem:
        return encode_item(item, options, names)

    workers = max(1, workers)
    # the transforms of one item are too small for several threads
    with single_threaded_workers(workers) as pool:
        audio = (items.arrays(index) for index in range(len(items)))
        # a bounded number in flight: with a slow disk, finished items would otherwise fill the memory
        pending = deque(pool.submit(encode_next, item) for item in islice(audio, 2 * workers))
        while pending:
            encoded = pending.popleft().result()
            pending.extend(pool.submit(encode_next, item) for item in islice(audio, 1))
            yield encoded


def check_same_shape(items: Iterable[EncodedItem]) -> None:
    """Raises UserError if items differ in frequencies, channels or sources."""
    first = None
    for item in items:
        first = first or item
        if (item.shape, item.sources) != (first.shape, first.sources):
            raise UserError(
                f"expected the same (frequencies, channels, sources) in all items: {first.shape} "
                f"{list(first.sources)}, found {item.shape} {list(item.sources)}"
            )
