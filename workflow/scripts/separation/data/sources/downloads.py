"""Fetching files over the network: checked, resumed, tried again a few times, and never half there."""

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

from separation.errors import UserError

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # of each address
TIMEOUT = 30  # seconds without a byte
WAITS = (1, 2, 4, 8)  # seconds between attempts
_BLOCK = 1 << 20
_SECONDS_BETWEEN_REPORTS = 5.0


def fetch_file(download: Mapping[str, Any], downloads: Path, *, offline: bool) -> Path:
    """The file of a recipe's `download`, fetched where it is not there yet.

    What was fetched before an interruption lies beside it as `<file>.part` and is gone on with.

    Args:
        download: `file`, `urls`, `checksum` (sha256:... or md5:...), perhaps `size` in bytes.
        downloads: where it is kept, and where a user may put it.
        offline: fetch nothing.

    Returns:
        its path; the content has the checksum.

    Raises:
        UserError: it is missing and nothing may be fetched, no address gives it, or the content is another one.
    """
    target = Path(downloads) / download["file"]
    kind, expected = download["checksum"].split(":")
    place = f"put the file with {download['checksum']} there"
    if target.is_file():
        if _digest(target, kind) == expected:
            return target
        raise UserError(
            f"expected {download['checksum']}, found {kind}:{_digest(target, kind)}; delete it", file=target
        )
    if offline:
        raise UserError(f"it is missing and offline is set; {place} ({download['urls'][0]})", file=target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    causes = []
    for url in download["urls"]:
        for attempt in range(ATTEMPTS):
            try:
                _go_on(url, part, download.get("size"))
            except _Gone as error:
                causes.append(f"{url}: {error}")
                break
            except (OSError, ValueError) as error:
                causes.append(f"{url}: {error}")
                logger.warning("attempt %d of %d at %s failed: %s", attempt + 1, ATTEMPTS, url, error)
                if attempt < ATTEMPTS - 1:
                    time.sleep(WAITS[min(attempt, len(WAITS) - 1)])
                continue
            found = _digest(part, kind)
            if found == expected:
                with open(part, "rb") as whole:
                    os.fsync(whole.fileno())
                os.replace(part, target)
                return target
            causes.append(f"{url}: expected {download['checksum']}, found {kind}:{found}")
            part.unlink()
            break
    raise UserError(f"cannot be fetched: {causes[-1]}; {place}", file=target)


class _Gone(Exception):
    """The address will not give the file however often it is asked."""


def _go_on(url: str, part: Path, size: int | None) -> None:
    """Fetches what is missing of a file.

    Raises:
        OSError: the connection broke, or gave less than announced.
        _Gone: the server says that it has no such file.
    """
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing, or the file is another one now: its checksum tells
            return
        if error.code in (408, 425, 429) or error.code >= 500:
            raise OSError(f"the server answers {error.code}") from None
        raise _Gone(f"the server answers {error.code} {error.reason}") from None
    with answer:
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        announced = int(length) + (have if resumed else 0) if length else size
        done, began, reported = (have if resumed else 0), time.monotonic(), time.monotonic()
        with open(part, "ab" if resumed else "wb") as target:
            while block := answer.read(_BLOCK):
                target.write(block)
                done += len(block)
                now = time.monotonic()
                if now - reported > _SECONDS_BETWEEN_REPORTS:
                    reported = now
                    rate = (done - (have if resumed else 0)) / (now - began)
                    left = f", {(announced - done) / rate:.0f} s left" if announced else ""
                    logger.info("%s: %.0f of %.0f MB%s", part.name, done / 1e6, (announced or 0) / 1e6, left)
    if announced is not None and done < announced:
        raise OSError(f"it broke off after {done} of {announced} bytes")


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar archive into a folder, which appears at once, whole; one that is there is left alone.

    Raises:
        UserError: it is no such archive, or an entry would lie outside of the folder.
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
                    packed.extractall(inside)  # leaves out what would lead outside
            else:
                with tarfile.open(archive) as packed:
                    _extract(packed, inside)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"cannot be unpacked: {error}", file=archive) from error
        os.replace(inside, folder)


def _extract(packed: tarfile.TarFile, folder: Path) -> None:
    """Unpacks files and folders; raises tarfile.TarError for an entry that would lie outside."""
    if hasattr(tarfile, "data_filter"):
        packed.extractall(folder, filter="data")
        return
    # Python 3.11 has the filter since 3.11.4
    for member in packed.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is no file or folder within the archive")
    packed.extractall(folder)


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
