"""The rule organize_source: a source's files by split and class, without unsuitable ones."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from separation.data.audio.pcm import unsynced_atomic_path
from separation.data.manifests import (
    finish_source_manifest,
    read_source_manifest,
    start_manifest,
    write_times,
)
from separation.data.organizing.assignment import assign
from separation.data.organizing.guards import apply_guards, find_problems, write_problems
from separation.data.sources.access import Access
from separation.errors import UserError
from separation.files.atomic import link_atomically
from separation.files.layout import problem_table

logger = logging.getLogger(__name__)

# measurements that only the guards need
_MEASURED = ("audio", "peak", "rms", "clipped", "damaged", "num_channels")


def organize_source(spec: dict[str, Any], fetched: Path, manifest: Path, access: Access | None = None) -> None:
    """Arranges a source the way scaper expects it, as relative symbolic links `<split>/<class>/<song>.wav`.

    Where the recipe has guards, all files that would spoil mixtures are listed in one table. The guards decide whether
    such a file stops the run, is skipped, or is used.

    Args:
        spec: `organize` of a recipe: `by` and its options; `guards` for files from elsewhere.
        fetched: Manifest of fetch_source.
        manifest: Written last.
        access: Locations of lists and tables.

    Raises:
        UserError: `by` is unknown, a fetched file is missing or changed, a file's class or split is unknown, or a guard
            stops the run.
    """
    organize, guards = spec["organize"], spec.get("guards")
    by = organize.get("by", "class")
    if guards is None and by != "class":
        raise UserError(f"expected class, found {by!r}", key="organize.by")
    source = read_source_manifest(fetched)
    folder = start_manifest(manifest)
    files, counts = source["files"], {}
    if guards is not None:
        files, empty = _assign_files(source, organize, guards["splits"], Path(fetched).parent, access or Access())
        problems = find_problems(files, guards, empty)
        write_problems(problem_table(manifest), problems)
        files, counts = apply_guards(files, problems, source["name"])
    copy = bool(organize.get("copy"))
    entries = [_link_or_copy(entry, Path(fetched).parent, folder, copy=copy) for entry in _with_file_names(files)]
    if guards is not None:
        write_times(manifest, entries)
    finish_source_manifest(manifest, spec, entries, source["attribution"], problems=counts)


def _assign_files(
    source: dict[str, Any], organize: dict[str, Any], splits: list[str], fetched: Path, access: Access
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The files of the splits with class, song and speaker; and the folders without audio, with their class."""
    if all("class" in entry for entry in source["files"]):  # known from the source itself
        return [entry for entry in source["files"] if entry["split"] in splits], {}
    measured = {entry["path"]: entry for entry in source["files"]}
    found, without = assign(list(measured), organize, splits, _list_reader(fetched, access))
    if without:
        logger.warning("%d files match no rule of the recipe, such as %s", len(without), without[0])
    files = [measured[entry["path"]] | entry for entry in found if entry["split"] in splits]
    if not files:
        raise UserError(
            f"none of the {len(measured)} audio files belongs to the splits {', '.join(splits)}", key="organize"
        )
    return files, _empty_classes(source.get("empty_folders", []), organize, splits)


def _list_reader(fetched: Path, access: Access) -> Callable[[str], str]:
    """A function that returns the text of a list or table by its path in the recipe."""

    def read(path: str) -> str:
        file = Path(access.locations.get("lists", {}).get(path) or fetched / path)
        if not file.is_file():
            raise UserError(f"expected the list in the source, found none: {path}", key="organize")
        return file.read_text(encoding="utf-8-sig")

    return read


def _empty_classes(folders: list[str], organize: dict[str, Any], splits: list[str]) -> dict[str, str]:
    """The class of each folder without audio: the one that a file in it would have."""
    if not folders or organize.get("by", "class") not in ("class", "pattern"):
        return {}
    everything_in_one = {"splits": {splits[0]: 1.0}, **organize}
    found, _ = assign([f"{folder}/x.wav" for folder in folders], everything_in_one, splits, None)
    return {str(Path(entry["path"]).parent): entry["class"] for entry in found}


def _with_file_names(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files with songs that are valid file names and unique within class and split."""
    taken: set[tuple[str, str, str]] = set()
    result = []
    for entry in files:
        song, number = entry["song"].replace("/", "."), 2
        name = song
        while (entry["split"], entry["class"], name) in taken:
            name, number = f"{song}~{number}", number + 1
        taken.add((entry["split"], entry["class"], name))
        result.append(entry | {"song": name})
    return result


def _link_or_copy(entry: dict[str, Any], fetched: Path, folder: Path, *, copy: bool) -> dict[str, Any]:
    """Links or copies one file into the folder of its split and class; its entry in the manifest."""
    target = fetched / entry["path"]
    relative = f"{entry['split']}/{entry['class']}/{entry['song']}{target.suffix}"
    link = folder / relative
    link.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        with unsynced_atomic_path(link) as temporary:
            shutil.copyfile(target, temporary)
    else:
        link_atomically(link, os.path.relpath(target, link.parent))
    return {key: value for key, value in entry.items() if key not in _MEASURED} | {"path": relative}
