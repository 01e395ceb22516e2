"""The shards of a cache: a few dozen items each, as zarr 3 groups of uncompressed arrays with a checksum.

A shard is written beside its place and moved there when it is whole and on disk, so that several processes can write
different shards of one cache and a kill costs no more than those in the making. Each array is one chunk with zarr's own
crc32c codec behind it: any zarr reader opens and checks it. Training reads spans of frames straight from the chunk
files, as zarr's own reading costs several milliseconds an excerpt, most of it bookkeeping. The files are read, not
mapped into memory: a mapped file that is cut short or unreadable kills the process, a read tells.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from separation.errors import UserError
from separation.files.atomic import umask

#: the folder of the shards in a cache's group
SHARDS = "shards"
#: columns of the table that each shard has of its items, float64, which holds whole numbers up to 2**53
TABLE, COLUMNS = "items", ("frames", "samples", "total", "peak", "step")
#: bytes of the checksum behind a chunk
CHECKSUM = 4


def shard_path(store: Path, number: int) -> Path:
    """The folder of a shard."""
    return store / SHARDS / f"{number:06d}"


def chunk_path(shard: Path, name: str, dimensions: int) -> Path:
    """Where zarr 3's default key encoding keeps the only chunk of an array."""
    return shard.joinpath(name, "c", *["0"] * dimensions)


def write_shard(store: Path, number: int, arrays: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """Writes a shard and moves it into place.

    Args:
        store: the cache's group.
        number: the shard's.
        arrays: by name, the parts that follow one another along the first axis.

    Returns:
        {"arrays": {name: {"shape", "dtype", "bytes", "crc32c"}}}, which is also in the attributes of the shard's group.

    Raises:
        OSError: the disk is full, or the cache was removed meanwhile.
    """
    place = shard_path(store, number)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        described = {name: _write_array(group, partial, name, parts) for name, parts in arrays.items()}
        group.attrs.update({"arrays": described})
        _sync(partial)
        partial.chmod(0o777 & ~umask())
        try:
            partial.rename(place)
        except OSError:
            # a process of a run that was killed went on to the end; what it wrote is the same
            if find_damage_of_shard(store, number, {"arrays": described}, contents=True) is not None:
                raise
        return {"arrays": described}
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_array(group: zarr.Group, shard: Path, name: str, parts: Sequence[np.ndarray]) -> dict[str, Any]:
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


def describe_shard(store: Path, number: int) -> dict[str, Any] | None:
    """What `write_shard` returned of a shard; None where there is none that can be read."""
    place = shard_path(store, number)
    if not (place / "zarr.json").is_file():
        return None
    try:
        return {"arrays": dict(zarr.open_group(place, mode="r").attrs["arrays"])}
    except (ValueError, KeyError, TypeError, zarr.errors.BaseZarrError):
        return None


def find_damage_of_shard(store: Path, number: int, expected: Mapping[str, Any], *, contents: bool) -> str | None:
    """What is wrong with a shard, in a few words, or None.

    Args:
        store, number: which.
        expected: what `write_shard` returned.
        contents: whether all bytes are read and compared with their checksum; else there are looks at sizes alone.
    """
    place = shard_path(store, number)
    if not (place / "zarr.json").is_file():
        return f"shard {number} is missing"
    for name, array in expected["arrays"].items():
        path = chunk_path(place, name, len(array["shape"]))
        if not (place / name / "zarr.json").is_file() or not path.is_file():
            return f"shard {number} lacks the array {name}"
        if path.stat().st_size != array["bytes"] + CHECKSUM:
            return f"shard {number} lacks bytes of the array {name}"
        if contents and _checksum_of(path) != array["crc32c"]:
            return f"shard {number}: the array {name} has other contents than it had"
    return None


def _checksum_of(path: Path) -> str:
    """The crc32c of a chunk file's contents, without the checksum behind them; 8 hex digits."""
    left, checksum = path.stat().st_size - CHECKSUM, 0
    with open(path, "rb") as source:
        while left > 0 and (part := source.read(min(left, 2**22))):
            checksum, left = google_crc32c.extend(checksum, part), left - len(part)
    return f"{checksum:08x}"


def remove_shard(store: Path, number: int) -> None:
    """Removes a shard, so that it is made again."""
    shutil.rmtree(shard_path(store, number), ignore_errors=True)


class ShardedArray:
    """An array of all items of a cache, one after the other, whose parts are in the shards.

    Args:
        store: the cache's group.
        name: of the array.
        shards: what `write_shard` returned of each.

    Shards may hold integers of different sizes; the array has the largest of them.

    A shard is compared with its checksum when something of it is read for the first time.
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
        self._checked: set[int] = set()

    def __getitem__(self, span: slice) -> np.ndarray:
        first, last, _ = span.indices(self.shape[0])
        rows = np.empty((max(last - first, 0), *self.shape[1:]), self.dtype)
        self.read_into(rows, first)
        return rows

    def read_into(self, rows: np.ndarray, first: int) -> None:
        """Fills `rows`, which is contiguous, with the array from row `first` on. May be called by several threads.

        Raises:
            UserError: the cache was removed, cut short or changed since it was opened.
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
            if number not in self._checked:
                self._check(number)
            handle = os.open(path, os.O_RDONLY)
            try:
                while len(target):
                    count = os.preadv(handle, [target], begin)
                    if not count:
                        raise self._damaged(number, "was cut short")
                    target, begin = target[count:], begin + count
            finally:
                os.close(handle)
        except OSError as error:
            reason = "was removed" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise self._damaged(number, reason) from error

    def _check(self, number: int) -> None:
        path, part = self._paths[number], self._parts[number]
        if path.stat().st_size != part["bytes"] + CHECKSUM or _checksum_of(path) != part["crc32c"]:
            raise self._damaged(number, "has other contents than it had")
        self._checked.add(number)

    def _damaged(self, number: int, what: str) -> UserError:
        # what was found once is not met again: without its shard, the cache is filled before it is used
        remove_shard(self._store, number)
        return UserError(
            f"the cache {what} while it was read; run the same command again, which fills it again and goes on",
            file=self._paths[number],
        )
