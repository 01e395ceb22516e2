"""Shards of a cache: a few dozen items each, as zarr 3 groups of uncompressed arrays with a checksum.

A shard is written under a temporary name and renamed once it is complete and on disk, so that several processes can
write shards of one cache, and a kill loses only the unfinished ones. Each array is one chunk with zarr's crc32c codec,
which any zarr reader opens and verifies. Training reads spans of frames straight from the chunk files, as reading
through zarr costs several milliseconds an excerpt, most of it bookkeeping. The files are read, not mapped into memory:
a truncated or unreadable mapped file kills the process, a read raises an error.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from separation.errors import UserError
from separation.files.atomic import umask

if TYPE_CHECKING:
    import zarr

#: folder of the shards in a cache's group
SHARDS = "shards"
#: table of the items of a shard and its columns, float64, which is exact for integers up to 2**53
TABLE, COLUMNS = "items", ("frames", "samples", "total", "peak", "step")
#: size of the checksum at the end of a chunk, bytes
CHECKSUM = 4


def shard_path(store: Path, number: int) -> Path:
    """The folder of a shard."""
    return store / SHARDS / f"{number:06d}"


def chunk_path(shard: Path, name: str, dimensions: int) -> Path:
    """The file of the only chunk of an array, by zarr 3's default key encoding."""
    return shard.joinpath(name, "c", *["0"] * dimensions)


def write_shard(store: Path, number: int, arrays: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """Writes a shard and moves it into place.

    Args:
        store: Group of the cache.
        number: Number of the shard.
        arrays: Arrays by name, each in parts that are joined along the first axis.

    Returns:
        {"arrays": {name: {"shape", "dtype", "bytes", "crc32c"}}}, which is also in the attributes of the shard's group.

    Raises:
        OSError: The disk is full, or the cache was removed meanwhile.
    """
    import zarr

    path = shard_path(store, number)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        described = {name: _write_array(group, partial, name, parts) for name, parts in arrays.items()}
        group.attrs.update({"arrays": described})
        _sync(partial)
        partial.chmod(0o777 & ~umask())
        try:
            partial.rename(path)
        except OSError:
            # a process of a killed run may have finished the same shard meanwhile
            if find_damage_of_shard(store, number, {"arrays": described}, contents=True) is not None:
                raise
        return {"arrays": described}
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_array(group: zarr.Group, shard: Path, name: str, parts: Sequence[np.ndarray]) -> dict[str, Any]:
    from zarr.codecs import Crc32cCodec

    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    dtype = parts[0].dtype
    group.create_array(
        name, shape=shape, dtype=dtype, chunks=shape, compressors=Crc32cCodec(), filters=None, fill_value=0
    )
    path = chunk_path(shard, name, len(shape))
    path.parent.mkdir(parents=True)
    checksum = 0
    with open(path, "wb") as target:
        for part in parts:
            data = part.tobytes()
            checksum = google_crc32c.extend(checksum, data)
            target.write(data)
        target.write(checksum.to_bytes(CHECKSUM, "little"))
        target.flush()
        os.fsync(target.fileno())
    size = int(np.prod(shape)) * dtype.itemsize
    return {"shape": list(shape), "dtype": str(dtype), "bytes": size, "crc32c": f"{checksum:08x}"}


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def attributes_of(group: Path) -> dict[str, Any] | None:
    """The attributes of a zarr 3 group, in its zarr.json; None if they cannot be read.

    Read without zarr, whose import takes longer than all that training reads of a small cache.
    """
    try:
        metadata = json.loads((group / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    return attributes if isinstance(attributes, dict) else None


def describe_shard(store: Path, number: int) -> dict[str, Any] | None:
    """The description of a shard that `write_shard` returned; None if the shard is missing or cannot be read."""
    attributes = attributes_of(shard_path(store, number)) or {}
    return {"arrays": attributes["arrays"]} if isinstance(attributes.get("arrays"), dict) else None


def find_damage_of_shard(store: Path, number: int, expected: Mapping[str, Any], *, contents: bool) -> str | None:
    """The damage of a shard in a few words, or None.

    Args:
        store: Group of the cache.
        number: Number of the shard.
        expected: Description that `write_shard` returned.
        contents: Whether to verify checksums, not only sizes.
    """
    shard = shard_path(store, number)
    if not (shard / "zarr.json").is_file():
        return f"shard {number} is missing"
    for name, array in expected["arrays"].items():
        path = chunk_path(shard, name, len(array["shape"]))
        if not (shard / name / "zarr.json").is_file() or not path.is_file():
            return f"shard {number}: the array {name} is missing"
        if path.stat().st_size != array["bytes"] + CHECKSUM:
            return f"shard {number}: size mismatch of the array {name}"
        if contents and _checksum_of(path) != array["crc32c"]:
            return f"shard {number}: checksum mismatch of the array {name}"
    return None


def _checksum_of(path: Path) -> str:
    """The crc32c of a chunk file without the checksum at its end; 8 hex digits."""
    left, checksum = path.stat().st_size - CHECKSUM, 0
    with open(path, "rb") as source:
        while left > 0 and (part := source.read(min(left, 2**22))):
            checksum, left = google_crc32c.extend(checksum, part), left - len(part)
    return f"{checksum:08x}"


def remove_shard(store: Path, number: int) -> None:
    """Removes a shard, so that it is rebuilt."""
    shutil.rmtree(shard_path(store, number), ignore_errors=True)


class ShardedArray:
    """An array over all items of a cache, joined from its parts in the shards.

    Shards may hold integers of different sizes; the array has the largest type. The checksum of a shard is verified
    when the shard is first read.

    Args:
        store: Group of the cache.
        name: Name of the array.
        shards: Descriptions of all shards, see `write_shard`.
    """

    def __init__(self, store: Path, name: str, shards: Sequence[Mapping[str, Any]]):
        parts = [shard["arrays"][name] for shard in shards]
        self._store, self._parts = store, parts
        self._paths = [chunk_path(shard_path(store, n), name, len(part["shape"])) for n, part in enumerate(parts)]
        self._offsets = np.concatenate([[0], np.cumsum([part["shape"][0] for part in parts])])
        self.shape = (int(self._offsets[-1]), *parts[0]["shape"][1:])
        self._dtypes = [np.dtype(part["dtype"]) for part in parts]
        self.dtype = np.result_type(*set(self._dtypes))
        self._row_size = int(np.prod(self.shape[1:]))
        self._verified: set[int] = set()

    def __getitem__(self, span: slice) -> np.ndarray:
        first, last, _ = span.indices(self.shape[0])
        rows = np.empty((max(last - first, 0), *self.shape[1:]), self.dtype)
        self.read_into(rows, first)
        return rows

    def read_into(self, rows: np.ndarray, first: int) -> None:
        """Fills `rows`, which is contiguous, with the array from row `first` on. Several threads may call this at once.

        Raises:
            UserError: The cache was removed, truncated or changed since it was opened.
        """
        number = int(np.searchsorted(self._offsets, first, side="right")) - 1
        while len(rows):
            dtype = self._dtypes[number]
            part = rows[: int(self._offsets[number + 1]) - first]
            stored = part if dtype == self.dtype else np.empty(part.shape, dtype)
            begin = (first - int(self._offsets[number])) * self._row_size * dtype.itemsize
            self._read(number, memoryview(stored.reshape(-1).view(np.uint8)), begin)
            if stored is not part:
                part[...] = stored
            rows, number = rows[len(part) :], number + 1
            first = int(self._offsets[number])

    def _read(self, number: int, target: memoryview, begin: int) -> None:
        path = self._paths[number]
        try:
            if number not in self._verified:
                self._verify(number)
            handle = os.open(path, os.O_RDONLY)
            try:
                while len(target):
                    count = os.preadv(handle, [target], begin)
                    if not count:
                        raise self._damaged(number, "was truncated")
                    target, begin = target[count:], begin + count
            finally:
                os.close(handle)
        except OSError as error:
            reason = "was removed" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise self._damaged(number, reason) from error

    def _verify(self, number: int) -> None:
        path, part = self._paths[number], self._parts[number]
        if path.stat().st_size != part["bytes"] + CHECKSUM or _checksum_of(path) != part["crc32c"]:
            raise self._damaged(number, "was changed (checksum mismatch)")
        self._verified.add(number)

    def _damaged(self, number: int, damage: str) -> UserError:
        # a cache without this shard is filled again before its next use
        remove_shard(self._store, number)
        return UserError(
            f"the cache {damage} while it was being read; rerun the same command to fill it again and resume",
            file=self._paths[number],
        )
