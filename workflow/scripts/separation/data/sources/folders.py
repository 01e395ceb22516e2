"""Sources of audio files that lie somewhere: in a user's folders, in archives that are fetched, or made by a script."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.data.organizing.file_checks import measure_file
from separation.data.sources.downloads import fetch_file, unpack
from separation.machine.parallel import run_in_order
from separation.planning.dataset_steps import AUDIO_SUFFIXES
from separation.planning.splits import listing

if TYPE_CHECKING:
    from separation.data.fetch import Access

logger = logging.getLogger(__name__)

FILES_PER_PROCESS = 100
UNKNOWN = "Licence: not stated by the recipe (source.licence).\n"


def build_from_folders(source: dict[str, Any], folder: Path, access: Access) -> dict[str, Any]:
    """Links to all audio files of a source, each read once and measured.

    The files come from the folders in `access.places`; where there are none, from the source's downloads.

    Args:
        source: of a recipe, as it goes into ids.
        folder: where the links go, under the files' own relative paths.
        access: how the source is reached.

    Returns:
        `files`: one dict per file, of `path` and what measures.measure_file says; `attribution`.

    Raises:
        UserError: a folder is missing, or a download fails.
    """
    roots = folders_of(access)
    return {
        "name": source["name"],
        "files": link_files(roots, folder, access.workers),
        "empty_folders": [path for name, root in sorted(roots.items()) for path in _empty_folders(name, root)],
        "attribution": attribution_of(source, roots),
        "kept": _link_texts(roots, folder),
        "times": True,
    }


def folders_of(access: Access) -> dict[str, Path]:
    """The folders of a source by name: a user's own, what a script made, or what is fetched.

    Raises:
        UserError: a download fails.
    """
    if "made" in access.places:
        return {"": Path(access.places["made"])}
    folders = {name: Path(path) for name, path in access.places.get("folders", {}).items()}
    return folders or _fetched(access)


def _empty_folders(name: str, root: Path) -> list[str]:
    """The folders below a root with nothing to hear in them or below them, the uppermost of each."""
    full, found = {root}, []
    for relative, _ in listing(root):
        if Path(relative).suffix.lower() in AUDIO_SUFFIXES:
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


def _link_texts(roots: dict[str, Path], folder: Path) -> list[str]:
    """Links to the lists and tables that may lie among the audio; their paths."""
    kept = []
    for name, root in sorted(roots.items()):
        for relative, _ in listing(root):
            if Path(relative).suffix.lower() in (".txt", ".csv", ".tsv", ".lst"):
                path = f"{name}/{relative}" if name else relative
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                place_link(folder / path, str((root / relative).absolute()))
                kept.append(path)
    return kept


def _fetched(access: Access) -> dict[str, Path]:
    """The folders into which the downloads are unpacked: of one alone, or of several by the files' names."""
    roots = {}
    for download in access.places["download"]:
        fetched = fetch_file(download, access.downloads, offline=access.offline)
        name = download["file"].split(".")[0] if len(access.places["download"]) > 1 else ""
        roots[name] = access.downloads / "unpacked" / download["checksum"].replace(":", "-")
        if download.get("unpack", True):
            unpack(fetched, roots[name])
        else:
            roots[name].mkdir(parents=True, exist_ok=True)
            place_link(roots[name] / fetched.name, str(fetched.resolve()))
    return roots


def link_files(roots: dict[str, Path], folder: Path, workers: int) -> list[dict[str, Any]]:
    """Links to the audio files below the roots and measures them; entries in order of their paths.

    Args:
        roots: name -> folder; the files of a root with a name lie below that name.
        folder: where the links go.
        workers: number of processes.
    """
    calls = []
    for name, root in sorted(roots.items()):
        for relative, _ in listing(root):
            if Path(relative).suffix.lower() in AUDIO_SUFFIXES:
                path = f"{name}/{relative}" if name else relative
                link = folder / path
                link.parent.mkdir(parents=True, exist_ok=True)
                place_link(link, str((root / relative).absolute()))
                calls.append((path, root / relative))
    logger.info("%d audio files in %s", len(calls), ", ".join(str(root) for root in roots.values()))
    return run_in_order(measured_entry, calls, workers=workers, share=FILES_PER_PROCESS, what="files read")


def measured_entry(relative: str, path: Path) -> dict[str, Any]:
    """The entry of one file."""
    return {"path": relative, **measure_file(path)}


def place_link(link: Path, target: str) -> None:
    """Puts a symbolic link in place, at once."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)


def attribution_of(source: dict[str, Any], roots: dict[str, Path]) -> str:
    """What the recipe says of the licence, and the licence files that lie in the folders."""
    parts = [f"Source: {source['name']}\n", f"{source['licence'].strip()}\n" if source.get("licence") else UNKNOWN]
    for root in roots.values():
        for path in sorted(root.iterdir()):
            if path.is_file() and path.name.upper().startswith(("LICEN", "ATTRIBUTION", "COPYING")):
                parts.append(f"{path.name} of the folder:\n\n{path.read_text(encoding='utf-8', errors='replace')}")
    return "\n".join(parts)
