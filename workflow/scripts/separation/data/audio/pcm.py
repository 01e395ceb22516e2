"""PCM audio: rounding to whole steps, and WAV files."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

BITDEPTHS = (16, 24, 32)


@contextmanager
def unsynced_atomic_path(target: str | Path) -> Iterator[Path]:
    """Like files.atomic.atomic_path without flushing to disk, for thousands of files with one manifest.

    Only one process may write a target at a time; the folder must exist.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}")
    yield temporary
    os.replace(temporary, target)


def to_pcm(audio: np.ndarray, bitdepth: int = 16) -> np.ndarray:
    """Rounds audio to whole steps of `bitdepth` bits, half to even, and clips it to [-1, 1).

    Args:
        audio: Floating-point array of any shape.
        bitdepth: One of BITDEPTHS.

    Returns:
        Steps of 2^(1 - bitdepth), int64 array of the same shape.
    """
    full_scale = 2 ** (bitdepth - 1)
    steps = np.multiply(audio, float(full_scale), dtype=np.float64)
    np.rint(steps, out=steps)
    np.clip(steps, -full_scale, full_scale - 1, out=steps)
    return steps.astype(np.int64)


def write_pcm(target: str | Path, steps: np.ndarray, sample_rate: int) -> bytes:
    """Writes a 16-bit WAV file and creates its folder.

    Args:
        target: Path of the file.
        steps: Steps from to_pcm, (frames,) or (frames, channels).
        sample_rate: Rate in Hz.

    Returns:
        Content of the file.
    """
    content = pcm_file(steps, sample_rate)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with unsynced_atomic_path(target) as temporary:
        temporary.write_bytes(content)
    return content


def pcm_file(steps: np.ndarray, sample_rate: int, bitdepth: int = 16) -> bytes:
    """The content of a WAV file, equal to that of libsndfile and encoded many times as fast.

    Args:
        steps: Whole numbers of any type, (frames,) or (frames, channels).
        sample_rate: Rate in Hz.
        bitdepth: One of BITDEPTHS.
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
