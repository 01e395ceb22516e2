"""Reading and writing PCM files, with rounding that is the same everywhere."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from separation.files.atomic import atomic_path

SUBTYPES = {16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}


@contextmanager
def quick_path(target: str | Path) -> Iterator[Path]:
    """As files.atomic_path, but without waiting for the disk: for thousands of files of which one manifest tells.

    Not for two writers of one target at a time; the folder must be there.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}")
    yield temporary
    os.replace(temporary, target)


def to_pcm(audio: np.ndarray, bitdepth: int = 16) -> np.ndarray:
    """Rounds audio in [-1, 1) to whole steps of `bitdepth` bits, half to even; what lies outside is clipped.

    Args:
        audio: floating point, any shape.
        bitdepth: 16, 24 or 32.

    Returns:
        int64 array of the same shape, in steps of 2^(1 - bitdepth).
    """
    full_scale = 2 ** (bitdepth - 1)
    steps = np.multiply(audio, float(full_scale), dtype=np.float64)
    np.rint(steps, out=steps)
    np.clip(steps, -full_scale, full_scale - 1, out=steps)
    return steps.astype(np.int64)


def write_pcm(target: str | Path, steps: np.ndarray, sample_rate: int, bitdepth: int = 16) -> None:
    """Writes whole steps, as to_pcm gives them, as a WAV file of that bit depth.

    Args:
        target: the file; its folder must be there.
        steps: integers, (frames,) or (frames, channels).
        sample_rate: Hz.
        bitdepth: 16, 24 or 32.
    """
    # libsndfile takes the upper bits of an int32, so nothing is rounded a second time
    words = (steps << (32 - bitdepth)).astype(np.int32)
    soundfile.write(target, words, sample_rate, subtype=SUBTYPES[bitdepth], format="WAV")


def write_pcm_atomically(target: str | Path, steps: np.ndarray, sample_rate: int, bitdepth: int = 16) -> None:
    """As write_pcm, by way of a temporary file beside the target; the folder is made where it is missing."""
    with atomic_path(target) as temporary:
        write_pcm(temporary, steps, sample_rate, bitdepth)


def pcm_file(steps: np.ndarray, sample_rate: int, bitdepth: int = 16) -> bytes:
    """A WAV file as bytes, the same that write_pcm writes, many times as fast.

    Args:
        steps: whole numbers of any type, (frames,) or (frames, channels).
        sample_rate: Hz.
        bitdepth: 16, 24 or 32.
    """
    channels = 1 if steps.ndim == 1 else steps.shape[1]
    if bitdepth == 16:
        data = steps.astype("<i2", copy=False).tobytes()
    elif bitdepth == 32:
        data = steps.astype("<i4").tobytes()
    else:  # the three lower bytes of four
        data = steps.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
    width = bitdepth // 8 * channels
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + len(data) + len(data) % 2, b"WAVE", b"fmt ", 16, 1, channels, sample_rate,
        sample_rate * width, width, bitdepth, b"data", len(data),
    )  # fmt: skip
    return b"".join((header, data, bytes(len(data) % 2)))
