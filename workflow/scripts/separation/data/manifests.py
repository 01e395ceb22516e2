"""Manifests: the files of a folder, their checksums, and the recipe they were built from."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from separation.data.audio.pcm import to_pcm, write_pcm
from separation.errors import UserError
from separation.files.atomic import read_json, sha256_of, write_json, write_text
from separation.files.build_once import lock_path, record_path
from separation.files.layout import attribution_file, file_times, problem_table

MANIFEST_FORMAT = 1


def start_manifest(manifest: Path) -> Path:
    """Creates the folder of a manifest and deletes an old manifest, which would not match files that change.

    Returns:
        The folder.
    """
    folder = Path(manifest).parent
    folder.mkdir(parents=True, exist_ok=True)
    Path(manifest).unlink(missing_ok=True)
    return folder


def finish_manifest(manifest: Path, spec: dict[str, Any], contents: dict[str, Any]) -> None:
    """Writes the attribution and then the manifest, the last file of its folder: `format`, `recipe` and contents."""
    write_text(attribution_file(manifest), contents["attribution"])
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
    """Records when the files of a manifest, or the targets of its links, were last written."""
    folder = Path(manifest).parent
    readable = [entry["path"] for entry in files if entry["size"] is not None]
    write_json(file_times(manifest), {path: (folder / path).stat().st_mtime_ns for path in readable})


def read_source_manifest(manifest: Path) -> dict[str, Any]:
    """Reads a manifest and checks that its files are unchanged.

    A file is hashed if its size differs from the manifest, or if it was written after the manifest (or, where
    times.json lists it, at another time than recorded). The same content with another time, as in a copy of the
    folder, is valid.

    Raises:
        UserError: A file is missing, or its content changed.
    """
    manifest = Path(manifest)
    contents = read_json(manifest)
    written = manifest.stat().st_mtime_ns
    times = read_json(file_times(manifest)) if file_times(manifest).exists() else {}
    for entry in contents["files"]:
        if entry["size"] is None:
            continue  # the file was unreadable then
        path = manifest.parent / entry["path"]
        remedy = f"delete {manifest} and run the workflow again to rebuild it"
        try:
            found = path.stat()
        except FileNotFoundError:
            raise UserError(f"missing, but listed in {manifest}; {remedy}", file=path) from None
        recorded = times.get(entry["path"])
        unchanged_time = found.st_mtime_ns == recorded if recorded else found.st_mtime_ns <= written
        if found.st_size == entry["size"] and unchanged_time:
            continue
        if not _is_unchanged(path, entry):
            raise UserError(f"checksum mismatch with {manifest}; restore the file, or {remedy}", file=path)
    return contents


def write_audio(folder: Path, entry: dict[str, Any], audio: np.ndarray, sample_rate: int) -> dict[str, Any]:
    """Writes the 16-bit WAV file of a manifest entry.

    Args:
        folder: Folder of the manifest.
        entry: The entry, with its relative `path`.
        audio: Audio, (frames,) or (frames, channels).
        sample_rate: Rate in Hz.

    Returns:
        The entry with `frames`, `sample_rate`, `size` in bytes and `sha256`.
    """
    content = write_pcm(folder / entry["path"], to_pcm(audio), sample_rate)
    measured = {"frames": len(audio), "sample_rate": sample_rate, "size": len(content)}
    return entry | measured | {"sha256": hashlib.sha256(content).hexdigest()}


def crc32c(content: bytes) -> str:
    """The CRC-32C of audio that a step wrote, 8 hex digits; several times as fast as SHA-256."""
    return f"{google_crc32c.value(content):08x}"


def _is_unchanged(path: Path, entry: dict[str, Any]) -> bool:
    if "crc32c" in entry:
        return crc32c(path.read_bytes()) == entry["crc32c"]
    return sha256_of(path) == entry["sha256"]


def remove_strays(manifest: Path, kept: Iterable[str]) -> None:
    """Removes files of earlier runs from the folder of a manifest.

    Args:
        manifest: Path of the manifest, which stays, as do the attribution, problems, times and locks beside it.
        kept: Relative paths of the files that stay.
    """
    manifest = Path(manifest)
    folder = manifest.parent
    stay = {
        manifest,
        *(path(manifest) for path in (attribution_file, file_times, problem_table, lock_path, record_path)),
        *(folder / path for path in kept),
    }
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif path not in stay:
            path.unlink(missing_ok=True)


def by_split_and_class(files: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """Paths by split, class and song, each level sorted."""
    result: dict[str, dict[str, dict[str, str]]] = {}
    for entry in sorted(files, key=lambda each: (each["split"], each["class"], each["song"])):
        result.setdefault(entry["split"], {}).setdefault(entry["class"], {})[entry["song"]] = entry["path"]
    return result
