"""Arrays along time as uncompressed zarr 3 chunks: written piece by piece, read by mapping the files into memory.

zarr's own reading costs several milliseconds an excerpt, most of it bookkeeping; a mapped file costs one copy.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr

#: upper size of one chunk file
CHUNK_BYTES = 256 * 2**20


class MappedFrames:
    """A zarr array in uncompressed chunks along its first axis, read by mapping the chunk files.

    Args:
        folder: of the array, inside the group's.
        array: its zarr array, for shape, type and chunks.
    """

    def __init__(self, folder: Path, array: zarr.Array):
        self.shape, self.dtype = tuple(array.shape), array.dtype
        self._chunk_frames = array.chunks[0]
        count = -(-self.shape[0] // self._chunk_frames)
        self._chunks = [
            np.memmap(chunk_path(folder, chunk, array.ndim), self.dtype, mode="r", shape=tuple(array.chunks))
            for chunk in range(count)
        ]

    def __getitem__(self, frames: slice) -> np.ndarray:
        first, last, _ = frames.indices(self.shape[0])
        parts = []
        while first < last:
            chunk, start = divmod(first, self._chunk_frames)
            part = self._chunks[chunk][start : start + last - first]
            parts.append(part)
            first += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate([self._chunks[0][:0], *parts])


class FrameAppender:
    """Writes one array, whose length is not known beforehand, as uncompressed zarr chunks along its first axis.

    Chunk files are filled one after the other; zarr wants them equally large, so the last is extended with zeros, or is
    the only one and exactly as long as the array.
    """

    def __init__(self, folder: Path, example: np.ndarray):
        self._folder, self._example = folder, example
        self._frame_bytes = max(1, int(np.prod(example.shape[1:]))) * example.dtype.itemsize
        self._chunk_frames = max(1, CHUNK_BYTES // self._frame_bytes)
        self._frames = 0
        self._digest = hashlib.sha256()

    def append(self, values: np.ndarray) -> None:
        while len(values):
            chunk, used = divmod(self._frames, self._chunk_frames)
            part = np.ascontiguousarray(values[: self._chunk_frames - used])
            path = chunk_path(self._folder, chunk, part.ndim)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as target:
                target.write(part.data)
            self._digest.update(part.data)
            self._frames += len(part)
            values = values[len(part) :]

    def finish(self, group: zarr.Group, name: str) -> dict[str, Any]:
        """Writes the array's zarr metadata, makes sure that everything is on disk, and describes the array."""
        chunk_frames = min(self._chunk_frames, self._frames)
        shape = (self._frames, *self._example.shape[1:])
        for chunk in range(-(-self._frames // chunk_frames)):
            with open(chunk_path(self._folder, chunk, len(shape)), "r+b") as target:
                target.truncate(chunk_frames * self._frame_bytes)
                os.fsync(target.fileno())
        group.create_array(
            name,
            shape=shape,
            dtype=self._example.dtype,
            chunks=(chunk_frames, *shape[1:]),
            compressors=None,
            filters=None,
            fill_value=0,
        )
        return {
            "shape": list(shape),
            "dtype": str(self._example.dtype),
            "bytes": self._frames * self._frame_bytes,
            "sha256": self._digest.hexdigest(),
        }


def chunk_path(folder: Path, chunk: int, dimensions: int) -> Path:
    """Where zarr 3's default key encoding keeps a chunk of an array that is chunked along its first axis alone."""
    return folder.joinpath("c", str(chunk), *["0"] * (dimensions - 1))


def digest_of(array: MappedFrames) -> str:
    """The SHA-256 of an array's bytes, without what fills up its last chunk."""
    digest = hashlib.sha256()
    step = max(1, 2**24 // max(1, int(np.prod(array.shape[1:]))))
    for first in range(0, array.shape[0], step):
        digest.update(np.ascontiguousarray(array[first : first + step]).data)
    return digest.hexdigest()
