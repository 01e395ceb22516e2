"""Downloads: checked, resumed, retried, and complete or absent."""

from __future__ import annotations

import hashlib
import logging
import os
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from separation.errors import UserError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # per URL
TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 20
_SECONDS_BETWEEN_REPORTS = 5.0


def fetch_file(download: Mapping[str, Any], downloads: Path, *, offline: bool) -> Path:
    """Downloads a file unless it exists.

    An interrupted download stays beside the file as `<file>.part` and is resumed.

    Args:
        download: Entry of a recipe's `download`: `file`, `urls`, `checksum` (sha256:... or md5:...), optionally `size`
            in bytes.
        downloads: Folder of the file; a user may put it there instead.
        offline: Whether downloads are forbidden.

    Returns:
        The file's path. Its content has the checksum.

    Raises:
        UserError: The file is missing and offline is set, no URL works, or the checksum does not match.
    """
    target = Path(downloads) / download["file"]
    expected = download["checksum"]
    remedy = f"put a file with {expected} at this path"
    if target.is_file():
        if (found := _checksum(target, expected)) == expected:
            return target
        raise UserError(f"expected {expected}, found {found}; delete the file to download it again", file=target)
    if offline:
        raise UserError(f"missing, and offline is set; {remedy} ({download['urls'][0]})", file=target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    for url in download["urls"]:
        try:
            _attempts(url)(_download_rest, url, part, download.get("size"))
        except (_Refused, OSError, ValueError) as error:
            cause = f"{url}: {error}"
            continue
        if (found := _checksum(part, expected)) == expected:
            with open(part, "rb") as whole:
                os.fsync(whole.fileno())
            os.replace(part, target)
            return target
        cause = f"{url}: expected {expected}, found {found}"
        part.unlink()
    raise UserError(f"cannot be fetched: {cause}; {remedy}", file=target)


def _attempts(url: str) -> Retrying:
    """Retries after 1, 2, 4 and 8 seconds; every failed attempt is logged."""

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception()
        logger.warning("attempt %d of %d at %s failed: %s", state.attempt_number, ATTEMPTS, url, error)

    return Retrying(
        retry=retry_if_exception_type((OSError, ValueError)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(),
        after=report,
        reraise=True,
    )


class _Refused(Exception):
    """An answer that further attempts would not change."""


def _download_rest(url: str, part: Path, size: int | None) -> None:
    """Downloads the missing bytes of a file.

    Raises:
        OSError: The connection fails, or ends before the announced number of bytes.
        _Refused: The server does not have the file.
    """
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing, or the server's file has changed: the checksum decides
            return
        if error.code in (408, 425, 429) or error.code >= 500:
            raise OSError(f"the server answers {error.code}") from None
        raise _Refused(f"the server answers {error.code} {error.reason}") from None
    with answer:
        if answer.status != 206:
            have = 0  # the server sends the whole file
        length = answer.headers.get("Content-Length")
        total = int(length) + have if length else size
        done = _write_answer(answer, part, have, total)
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _write_answer(answer: Any, part: Path, have: int, total: int | None) -> int:
    """Appends an answer to the first `have` bytes of a file, with progress in the log; the number of bytes then."""
    done, began, reported = have, time.monotonic(), time.monotonic()
    with open(part, "ab" if have else "wb") as target:
        while block := answer.read(_BLOCK):
            target.write(block)
            done += len(block)
            now = time.monotonic()
            if now - reported > _SECONDS_BETWEEN_REPORTS:
                reported = now
                rate = (done - have) / (now - began)
                left = f", {(total - done) / rate:.0f} s left" if total else ""
                logger.info("%s: %.0f of %.0f MB%s", part.name, done / 1e6, (total or 0) / 1e6, left)
    return done


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into a new folder, which appears only when complete; does nothing if it exists.

    Raises:
        UserError: The file is not an archive, or an entry would be outside the folder.
    """
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        inside = Path(temporary) / "unpacked"
        inside.mkdir()
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(inside)  # drops leading slashes and `..`
            else:
                with tarfile.open(archive) as packed:
                    _extract(packed, inside)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"cannot be unpacked: {error}", file=archive) from error
        os.replace(inside, folder)


def _extract(packed: tarfile.TarFile, folder: Path) -> None:
    """Unpacks files and folders; raises tarfile.TarError for an entry outside the folder."""
    if hasattr(tarfile, "data_filter"):
        packed.extractall(folder, filter="data")
        return
    # Python before 3.11.4 has no filters
    for member in packed.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is not a file or folder within the archive")
    packed.extractall(folder)


def _checksum(path: Path, like: str) -> str:
    """The checksum of a file, of the same kind as another one: `sha256:...`, `md5:...`."""
    kind = like.split(":")[0]
    with open(path, "rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
