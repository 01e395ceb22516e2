"""Sources of audio files in folders: the user's own, unpacked downloads, or the output of a script."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from separation.data.organizing.file_checks import measure_file
from separation.data.sources.access import Access, folders_of
from separation.files.atomic import link_atomically
from separation.files.listing import is_audio, listing
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)

FILES_PER_PROCESS = 100
UNKNOWN_LICENCE = "Licence: not stated by the recipe (source.licence).\n"
_TABLE_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")


def build_from_folders(source: dict[str, Any], folder: Path, access: Access) -> dict[str, Any]:
    """Links to all audio files of a source, and measures each file.

    Args:
        source: Source section of a recipe, as it enters ids.
        folder: Folder of the links, which keep the files' relative paths.
        access: How the source is reached.

    Returns:
        `files`: one dict per file, its `path` and the result of file_checks.measure_file; `attribution`;
        `empty_folders`: folders without audio; `kept`: links to lists and tables.

    Raises:
        UserError: A folder is missing, or a download fails.
    """
    roots = folders_of(access)
    return {
        "name": source["name"],
        "files": link_files(roots, folder, access.workers),
        "empty_folders": [path for name, root in sorted(roots.items()) for path in _empty_folders(name, root)],
        "attribution": attribution_of(source, roots),
        "kept": _link_tables(roots, folder),
        "times": True,
    }


def _empty_folders(name: str, root: Path) -> list[str]:
    """The topmost folders below a root that hold no audio at any depth."""
    full, found = {root}, []
    for relative, _ in listing(root):
        if is_audio(relative):
            full |= {parent for parent in (root / relative).parents if parent.is_relative_to(root)}
    for parent, folders, _ in os.walk(root, followlinks=True):
        folders.sort()
        for inner in list(folders):
            path = Path(parent) / inner
            if path not in full:
                folders.remove(inner)
                if not inner.startswith((".", "_")):
                    found.append((Path(name) / path.relative_to(root)).as_posix())
    return found


def _link_tables(roots: dict[str, Path], folder: Path) -> list[str]:
    """Links to lists and tables among the audio; their paths."""
    return [
        _link(path, file, folder)
        for path, file in _files_of(roots)
        if file.suffix.lower() in _TABLE_SUFFIXES
    ]  # fmt: skip


def link_files(roots: dict[str, Path], folder: Path, workers: int) -> list[dict[str, Any]]:
    """Links to the audio files below the roots and measures them.

    Args:
        roots: Folders by name; a name becomes the first part of its files' paths.
        folder: Folder of the links.
        workers: Number of processes.

    Returns:
        The manifest entries, ordered by path.
    """
    calls = [(_link(path, file, folder), file) for path, file in _files_of(roots) if is_audio(file)]
    logger.info("%d audio files in %s", len(calls), ", ".join(str(root) for root in roots.values()))
    return run_in_order(measured_entry, calls, workers=workers, share=FILES_PER_PROCESS, items="files read")


def measured_entry(relative: str, path: Path) -> dict[str, Any]:
    """The manifest entry of one file."""
    return {"path": relative, **measure_file(path)}


def _files_of(roots: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """The path within the source, and the file, of everything below the roots."""
    for name, root in sorted(roots.items()):
        for relative, _ in listing(root):
            yield (f"{name}/{relative}" if name else relative), root / relative


def _link(path: str, file: Path, folder: Path) -> str:
    """Links `path` below the folder to a file, and returns it."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    link_atomically(folder / path, str(file.absolute()))
    return path


def attribution_of(source: dict[str, Any], roots: dict[str, Path]) -> str:
    """The recipe's licence statement and the licence files in the folders."""
    licence = f"{source['licence'].strip()}\n" if source.get("licence") else UNKNOWN_LICENCE
    parts = [f"Source: {source['name']}\n", licence]
    for root in roots.values():
        for path in sorted(root.iterdir()):
            if path.is_file() and path.name.upper().startswith(("LICEN", "ATTRIBUTION", "COPYING")):
                parts.append(f"{path.name} of the folder:\n\n{path.read_text(encoding='utf-8', errors='replace')}")
    return "\n".join(parts)
