"""Locks that let only one of several workflows build an artifact.

Two clones that share DATA, CACHE and ARTIFACTS are independent: both plan missing files. The second job
waits and then finds the finished artifact. It may use it: the path contains the hash of the recipe, and the artifact is
not older than its inputs or was built from files with the same contents, which a record beside it lists. (Snakemake
sets a new time on outputs whenever a job ends, even if their contents are unchanged.)
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from separation.errors import UserError
from separation.files.atomic import read_json, sha256_of, write_json
from separation.files.locks import FileLock, describe_process

logger = logging.getLogger(__name__)

#: seconds in which Snakemake removes the outputs of a failed job
CLEANUP_SECONDS = 3.0


def lock_path(output: Path) -> Path:
    """The lock of an artifact, by its first output."""
    return output.with_name(f".{output.name}.lock")


def record_path(output: Path) -> Path:
    """The record of the inputs that an artifact was built from, by its first output."""
    return output.with_name(f".{output.name}.made.json")


@contextmanager
def build_once(outputs: Sequence[Path], inputs: Sequence[Path]) -> Iterator[bool]:
    """Lets one process at a time build an artifact.

    Args:
        outputs: Files of the artifact; the lock is beside the first.
        inputs: Files that it is built from.

    Yields:
        Whether the block has to build it; False where another workflow has built it.
    """
    with locked(lock_path(outputs[0])) as waited:
        if _is_complete(outputs, inputs):
            yield False
            return
        if waited:
            time.sleep(CLEANUP_SECONDS)
        contents = _contents(inputs)
        yield True
        if all(output.exists() for output in outputs):
            write_json(record_path(outputs[0]), {"inputs": contents})


@contextmanager
def build_shard_once(artifact: Path, record: Path, inputs: Sequence[Path]) -> Iterator[bool]:
    """`build_once` for a shard of an artifact, which is not needed once the artifact is complete.

    Args:
        artifact: File that combines the shards; it is locked while shards are built.
        record: File that marks the shard as finished, so that several workflows can share the work.
        inputs: Files that both are built from.
    """
    with locked(lock_path(artifact), shared=True):
        if _is_complete([artifact], inputs):
            yield False
            return
        with build_once([record], inputs) as needed:
            yield needed


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Holds a lock on a file while the block runs; prints once which process it waits for.

    Yields:
        Whether it had to wait.

    Raises:
        UserError: There is no permission to open the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = _wait_for_lock(path, shared)
    try:
        yield waited
    finally:
        if lock is not None:
            lock.release()


def _wait_for_lock(path: Path, shared: bool) -> tuple[FileLock | None, bool]:
    waited = False
    try:
        lock = FileLock.acquire(path, shared=shared)
        if lock is None:
            _print_wait(path)
            lock, waited = FileLock.acquire(path, shared=shared, wait=True), True
    except OSError as error:
        logger.warning("cannot lock %s (%s); run only one workflow at a time on this folder", path, error)
        return None, False
    if lock is None:
        raise UserError("no permission to use this lock; shared folders need write permission for all users", file=path)
    if not shared:
        lock.write(describe_process())
    return lock, waited


def _is_complete(outputs: Sequence[Path], inputs: Sequence[Path]) -> bool:
    if not all(output.exists() for output in outputs):
        return False
    oldest = min(output.stat().st_mtime_ns for output in outputs)
    if all(path.stat().st_mtime_ns <= oldest for path in inputs):
        return True
    try:
        recorded = read_json(record_path(outputs[0]))["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(contents in recorded for contents in _contents(inputs))


def _contents(inputs: Sequence[Path]) -> list[list[str]]:
    # by name only: another clone may use another path to the same folder
    return [[path.name, sha256_of(path)] for path in inputs]


def _print_wait(path: Path) -> None:
    holder = ""
    with suppress(OSError):
        holder = path.read_text(errors="replace").strip()
    line = f"waiting for {path.parent}: another workflow is building it" + (f" ({holder})" if holder else "")
    logger.info("%s", line)
    print(line, file=sys.stderr, flush=True)
