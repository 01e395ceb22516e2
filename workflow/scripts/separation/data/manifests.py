"""What the steps from source to mixture share: manifests that say what files a folder holds, and their check."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c

from separation.errors import UserError
from separation.files.atomic import read_json, sha256_of, write_json, write_text
from separation.files.build_once import LOCK, RECORD, beside

MANIFEST_FORMAT = 1
ATTRIBUTION = "ATTRIBUTION.txt"  # whom the audio is by, and its licence
# beside a manifest whose files lie elsewhere: when each was last written, so that an older file in its place is noticed
TIMES = "times.json"
PROBLEMS = "problems.csv"


def start_manifest(manifest: Path) -> Path:
    """Makes the folder of a manifest and takes an old manifest away: while files change, nothing vouches for them.

    Returns:
        the folder.
    """
    folder = Path(manifest).parent
    folder.mkdir(parents=True, exist_ok=True)
    Path(manifest).unlink(missing_ok=True)
    return folder


def finish_manifest(manifest: Path, spec: dict[str, Any], contents: dict[str, Any]) -> None:
    """Writes the attribution, and the manifest as the last file of its folder: `format`, `recipe` and the contents."""
    write_text(Path(manifest).parent / ATTRIBUTION, contents["attribution"])
    write_json(manifest, {"format": MANIFEST_FORMAT, "recipe": spec, **contents})


def finish_source_manifest(
    manifest: Path,
    spec: dict[str, Any],
    files: list[dict[str, Any]],
    attribution: str,
    *,
    problems: dict[str, int] | None = None,
    kept: Iterable[str] = (),
    **more: Any,
) -> None:
    """Removes files of earlier runs and writes the manifest of a step from source to mixture.

    Args:
        manifest: Path of the manifest.
        spec: Settings that the files depend on.
        files: Entries of the files.
        attribution: Authors and licence.
        problems: Number of problems by `<kind>_<action>`.
        kept: Relative paths of further files that stay.
        more: Further contents.
    """
    remove_strays(manifest, [*(entry["path"] for entry in files), *kept])
    contents = {"files": files, "attribution": attribution, **more}
    finish_manifest(manifest, spec, contents | ({"problems": problems} if problems else {}))


def write_times(manifest: Path, files: Iterable[dict[str, Any]]) -> None:
    """Notes when the files of a manifest, or what their links lead to, were last written."""
    folder = Path(manifest).parent
    readable = [entry["path"] for entry in files if entry["size"] is not None]
    write_json(folder / TIMES, {path: (folder / path).stat().st_mtime_ns for path in readable})


def read_source_manifest(manifest: Path) -> dict[str, Any]:
    """Reads a manifest and makes sure that its files are the ones it was written for.

    A file of another size than the manifest says, or written after the manifest (or, where times.json tells, at another
    time than then), is hashed; one whose content changed is an error. (Another file with the same content, as a copy of
    the folder may hold, is none.)

    Raises:
        UserError: a file is missing, or its content changed.
    """
    manifest = Path(manifest)
    contents = read_json(manifest)
    written = manifest.stat().st_mtime_ns
    times = read_json(manifest.with_name(TIMES)) if manifest.with_name(TIMES).exists() else {}
    for entry in contents["files"]:
        if entry["size"] is None:
            continue  # its bytes could not be read then either
        path = manifest.parent / entry["path"]
        remedy = f"delete {manifest} and run the workflow again to make it anew"
        try:
            found = path.stat()
        except FileNotFoundError:
            raise UserError(f"this file of {manifest} is missing; {remedy}", file=path) from None
        known = times.get(entry["path"])
        if found.st_size == entry["size"] and (known == found.st_mtime_ns if known else found.st_mtime_ns <= written):
            continue
        if not _is_unchanged(path, entry):
            raise UserError(f"its content is no longer what {manifest} says; put the file back, or {remedy}", file=path)
    return contents


def crc32c(content: bytes) -> str:
    """The checksum of audio that a step made, several times as fast as SHA-256; 8 hex digits."""
    return f"{google_crc32c.value(content):08x}"


def _is_unchanged(path: Path, entry: dict[str, Any]) -> bool:
    if "crc32c" in entry:
        return crc32c(path.read_bytes()) == entry["crc32c"]
    return sha256_of(path) == entry["sha256"]


def remove_strays(manifest: Path, kept: Iterable[str]) -> None:
    """Removes from the folder of a manifest what an earlier run left there and this one did not write.

    Args:
        manifest: stays, as does the attribution beside it.
        kept: relative paths of the files that stay.
    """
    folder = Path(manifest).parent
    stay = {
        Path(manifest),
        *(folder / name for name in (ATTRIBUTION, TIMES, PROBLEMS)),
        *(folder / path for path in kept),
        *(beside(Path(manifest), suffix) for suffix in (LOCK, RECORD)),
    }
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif path not in stay:
            path.unlink(missing_ok=True)


def by_split_and_class(files: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """split -> class -> song -> path, each level sorted."""
    result: dict[str, dict[str, dict[str, str]]] = {}
    for entry in sorted(files, key=lambda each: (each["split"], each["class"], each["song"])):
        result.setdefault(entry["split"], {}).setdefault(entry["class"], {})[entry["song"]] = entry["path"]
    return result
