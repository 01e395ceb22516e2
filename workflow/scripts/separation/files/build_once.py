"""What several workflows may want to make at the same time is made by one of them: a lock for each artefact.

Two clones that share DATA, CACHE and ARTIFACTS do not see each other: both plan what is not there yet. The job that
comes second waits, and finds what it was to make. That it is what it should be follows from its place, whose name is
the hash of its recipe, and from its inputs: it is no older than they are, or was made from files of the same contents,
as a record beside it says. (Snakemake gives outputs a new time whenever a job ends, though it left them as they were.)
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
from separation.files.locks import FileLock, this_process

logger = logging.getLogger(__name__)

#: what the locks and the records are called: `.<output>` and one of these
LOCK, RECORD = ".lock", ".made.json"
#: seconds after which the Snakemake of a job that failed has removed what it left
CLEARING = 3.0


def beside(output: Path, suffix: str) -> Path:
    """The lock or the record of an artefact, by its first output."""
    return output.with_name(f".{output.name}{suffix}")


@contextmanager
def made_once(outputs: Sequence[Path], inputs: Sequence[Path]) -> Iterator[bool]:
    """Lets one process at a time make an artefact.

    Args:
        outputs: its files; the lock lies beside the first.
        inputs: what they are made from.

    Yields:
        whether they have to be made; False where they are there, as another workflow has just made them.
    """
    with held(beside(outputs[0], LOCK)) as waited:
        if _whole(outputs, inputs):
            yield False
            return
        if waited:
            time.sleep(CLEARING)
        contents = _contents(inputs)
        yield True
        if all(output.exists() for output in outputs):
            write_json(beside(outputs[0], RECORD), {"inputs": contents})


@contextmanager
def shard_once(whole: Path, record: Path, inputs: Sequence[Path]) -> Iterator[bool]:
    """`made_once` for a part of an artefact, which nobody needs once the whole is there.

    Args:
        whole: what the parts come together in; while there is work on parts, nobody puts it together.
        record: what tells that the part is there, so that several workflows can share the work.
        inputs: what both are made from.
    """
    with held(beside(whole, LOCK), shared=True):
        if _whole([whole], inputs):
            yield False
            return
        with made_once([record], inputs) as needed:
            yield needed


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[bool]:
    """Holds a lock on a file while the block runs; says once whom it waits for.

    Yields:
        whether it had to wait.

    Raises:
        UserError: another user's lock cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = _waited_for(path, shared)
    try:
        yield waited
    finally:
        if lock is not None:
            lock.release()


def _waited_for(path: Path, shared: bool) -> tuple[FileLock | None, bool]:
    waited = False
    try:
        lock = FileLock.take(path, shared=shared)
        if lock is None:
            _tell_wait(path)
            lock, waited = FileLock.take(path, shared=shared, wait=True), True
    except OSError as error:
        logger.warning("%s cannot be locked (%s): let one workflow at a time use this folder", path, error)
        return None, False
    if lock is None:
        raise UserError("this user may not use the lock; folders that several share need write permission", file=path)
    if not shared:
        lock.tell(this_process())
    return lock, waited


def _whole(outputs: Sequence[Path], inputs: Sequence[Path]) -> bool:
    if not all(output.exists() for output in outputs):
        return False
    oldest = min(output.stat().st_mtime_ns for output in outputs)
    if all(path.stat().st_mtime_ns <= oldest for path in inputs):
        return True
    try:
        recorded = read_json(beside(outputs[0], RECORD))["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(contents in recorded for contents in _contents(inputs))


def _contents(inputs: Sequence[Path]) -> list[list[str]]:
    # by name alone: another clone may reach the folders by another path
    return [[path.name, sha256_of(path)] for path in inputs]


def _tell_wait(path: Path) -> None:
    holder = ""
    with suppress(OSError):
        holder = path.read_text(errors="replace").strip()
    line = f"waiting for {path.parent}, which another workflow makes" + (f" ({holder})" if holder else "")
    logger.info("%s", line)
    print(line, file=sys.stderr, flush=True)
