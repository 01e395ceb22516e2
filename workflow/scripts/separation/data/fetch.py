"""From a source to files that can be mixed: fetch (or build) it, organize it by class, resample it.

Each step reads the manifest of the one before, writes its files into the folder of its own manifest, and the manifest
last. A step that was killed leaves no manifest, and one that is started again writes its files anew, each atomically.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.data.audio.pcm import pcm_file, quick_path
from separation.data.manifests import (
    PROBLEMS,
    crc32c,
    finish_manifest,
    read_source_manifest,
    remove_strays,
    start_manifest,
    write_times,
)
from separation.data.organizing.assignment import assign
from separation.data.organizing.guards import find_problems, settle, write_problems
from separation.data.sources.folders import build_from_folders, place_link
from separation.data.sources.musdb import build_musdb
from separation.data.sources.toy_music import build_toy_music
from separation.data.sources.toy_speech import build_toy_speech
from separation.errors import UserError
from separation.files.atomic import read_json, write_json
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """How a source is reached, which changes nothing of what it is.

    Attributes:
        workers: number of processes.
        downloads: where what is fetched is kept.
        offline: fetch nothing.
        places: where a user's folders, lists and scripts lie; see recipes.Steps.
    """

    workers: int = 1
    downloads: Path = Path("results/data/downloads")
    offline: bool = False
    places: Mapping[str, Any] = field(default_factory=dict)


# A builder takes (source, folder, access), writes or links its files below the folder, returns `files`, dicts of path,
# split, song, class, frames, sample_rate, size and sha256, and `attribution`: by whom, what licence.
Builder = Callable[[dict[str, Any], Path, Access], dict[str, Any]]
BUILDERS: dict[str, Builder] = {
    "toy_music": lambda source, folder, access: build_toy_music(source.get("args") or {}, folder, access.workers),
    "toy_speech": lambda source, folder, access: build_toy_speech(
        source.get("args") or {}, folder, access.workers, access.downloads, access.offline
    ),
    "folder": build_from_folders,
    "script": build_from_folders,
    "musdb18": build_musdb,
}
SECONDS_PER_PROCESS = 3000  # of audio, which are resampled in about the time that starting a process takes


def fetch_source(spec: dict[str, Any], manifest: Path, workers: int = 1, access: Access | None = None) -> None:
    """Builds or fetches the audio of a source, files or links beside the manifest.

    Args:
        spec: `source`: `name`, `kind` (one of BUILDERS) and `args` of that builder.
        manifest: written last.
        workers: number of processes; the files are the same bytes for any.
        access: how the source is reached; `workers` where it is left out.

    Raises:
        UserError: the kind is unknown, the builder refuses an argument, or something cannot be fetched.
    """
    source = spec["source"]
    if source["kind"] not in BUILDERS:
        raise UserError(f"expected one of {', '.join(sorted(BUILDERS))}, found {source['kind']!r}", key="source.kind")
    folder = start_manifest(manifest)
    built = BUILDERS[source["kind"]](source, folder, access or Access(workers))
    logger.info("%d files of source %s", len(built["files"]), source["name"])
    if "times" in built:
        write_times(manifest, built["files"])
    more = {key: built[key] for key in ("empty_folders", "name") if key in built}
    _finish(manifest, spec, built["files"], built["attribution"], kept=built.get("kept", ()), **more)


def organize_source(spec: dict[str, Any], fetched: Path, manifest: Path, access: Access | None = None) -> None:
    """Orders a source the way scaper looks for it, by relative symbolic links: `<split>/<class>/<song>.wav`.

    Where the recipe has guards, files that would spoil the mixtures are found and told in one table; the guards say
    whether they are left out or end the run.

    Args:
        spec: `organize`: `by` and what belongs to it, as in a recipe; `guards` for files from elsewhere.
        fetched: the manifest of fetch_source.
        manifest: written last.
        access: where lists and tables lie.

    Raises:
        UserError: another `by`, a fetched file is missing or changed, nothing tells a file's class or split, or a guard
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
        files, counts = _guarded(source, organize, guards, Path(fetched), folder, access or Access())
    entries = []
    for entry in _with_names(files):
        target = Path(fetched).parent / entry["path"]
        relative = f"{entry['split']}/{entry['class']}/{entry['song']}{target.suffix}"
        link = folder / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        if organize.get("copy"):
            with quick_path(link) as temporary:
                shutil.copyfile(target, temporary)
        else:
            place_link(link, os.path.relpath(target, link.parent))
        entries.append({key: value for key, value in entry.items() if key not in _MEASURED} | {"path": relative})
    if guards is not None:
        write_times(manifest, entries)
    _finish(manifest, spec, entries, source["attribution"], counts)


# what measures say beyond what a manifest needs
_MEASURED = ("audio", "peak", "rms", "clipped", "damaged", "num_channels")


def _guarded(
    source: dict[str, Any], organize: dict[str, Any], guards: dict[str, Any], fetched: Path, folder: Path,
    access: Access,
) -> tuple[list[dict[str, Any]], dict[str, int]]:  # fmt: skip
    """The files with class, song, speaker and split that pass the guards, and how many problems there were."""
    if all("class" in entry for entry in source["files"]):  # the source knows
        files = [entry for entry in source["files"] if entry["split"] in guards["splits"]]
        problems = find_problems(files, guards, {})
        write_problems(folder / PROBLEMS, problems)
        return settle(files, problems, source["name"])
    measured = {entry["path"]: entry for entry in source["files"]}

    def read(path: str) -> str:
        place = Path(access.places.get("lists", {}).get(path) or fetched.parent / path)
        if not place.is_file():
            raise UserError(f"expected the list in the source, found none: {path}", key="organize")
        return place.read_text(encoding="utf-8-sig")

    found, without = assign(list(measured), organize, guards["splits"], read)
    if without:
        logger.warning("%d files have no place in the recipe, such as %s", len(without), without[0])
    files = [measured[entry["path"]] | entry for entry in found if entry["split"] in guards["splits"]]
    if not files:
        raise UserError(
            f"none of the {len(measured)} audio files has a place in the splits {', '.join(guards['splits'])}",
            key="organize",
        )
    # a folder stands for the class that a file in it would have
    names = [f"{path}/x.wav" for path in source.get("empty_folders", [])]
    emptied, _ = assign(names, {"splits": {guards["splits"][0]: 1.0}, **organize}, guards["splits"], read) if (
        names and organize.get("by", "class") in ("class", "pattern")
    ) else ([], [])  # fmt: skip
    problems = find_problems(files, guards, {str(Path(each["path"]).parent): each["class"] for each in emptied})
    write_problems(folder / PROBLEMS, problems)
    return settle(files, problems, source["name"])


def _with_names(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files with songs that can be file names, no two of a class and split alike."""
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


def resample_source(
    spec: dict[str, Any], organized: Path, manifest: Path, workers: int = 1, shards: Sequence[Path] = ()
) -> None:  # fmt: skip
    """Brings all files to one sample rate and number of channels, as 16-bit WAV files of the same relative names.

    Args:
        spec: `sample_rate` in Hz and `num_channels` (1 where left out: the mean of the channels).
        organized: the manifest of organize_source.
        manifest: written last.
        workers: number of processes; the files are the same bytes for any.
        shards: what resample_shard has written for all files, in order; none are resampled here then.

    Raises:
        UserError: a file is missing or changed, or has fewer channels than asked for.
    """
    sample_rate = spec["sample_rate"]
    source = read_source_manifest(organized)
    lower = sorted({entry["sample_rate"] for entry in source["files"] if entry["sample_rate"] < sample_rate})
    if lower:
        logger.warning(
            "some files have %s Hz and hold nothing above half of that; sample_rate is %d Hz", lower, sample_rate
        )
    folder = start_manifest(manifest)
    if shards:
        files = [entry for shard in shards for entry in read_json(shard)["files"]]
        if len(files) != len(source["files"]):
            raise UserError(f"expected the records of {len(source['files'])} files, found {len(files)}", file=folder)
    else:
        files = _resampled(source["files"], Path(organized).parent, folder, spec, workers)
    kept = [Path(shard).relative_to(folder).as_posix() for shard in shards]
    _finish(manifest, spec, files, source["attribution"], source.get("problems"), kept)


def resample_shard(
    spec: dict[str, Any], organized: Path, shard: Path, number: int, count: int, workers: int = 1
) -> None:  # fmt: skip
    """Resamples every `count`th stretch of a source's files into the folder above that of the shard's record.

    Args:
        spec, organized, workers: as of resample_source.
        shard: the record, `shards/<number>.json`, written last.
        number, count: which of how many.
    """
    source = read_source_manifest(organized)
    folder = Path(shard).resolve().parents[1]
    (folder / "manifest.json").unlink(missing_ok=True)
    files = source["files"]
    own = files[len(files) * number // count : len(files) * (number + 1) // count]
    entries = _resampled(own, Path(organized).parent, folder, spec, workers, part=f", shard {number + 1} of {count}")
    write_json(shard, {"files": entries})


def _resampled(
    files: list[dict[str, Any]], organized: Path, folder: Path, spec: dict[str, Any], workers: int, part: str = ""
) -> list[dict[str, Any]]:  # fmt: skip
    calls = [(entry, organized, folder, spec["sample_rate"], spec.get("num_channels", 1)) for entry in files]
    seconds = sum(entry["frames"] / entry["sample_rate"] for entry in files)
    share = max(1, math.ceil(len(files) * SECONDS_PER_PROCESS / max(seconds, 1)))
    return run_in_order(resample_file, calls, workers=workers, share=share, what=f"files resampled{part}")


def resample_file(
    entry: dict[str, Any], organized: Path, folder: Path, sample_rate: int, num_channels: int
) -> dict[str, Any]:
    """Resamples one file.

    Args:
        entry: of a manifest's `files`.
        organized: the folder that the entry's path starts from.
        folder: where the new file goes, under the same path with the suffix .wav.
        sample_rate: Hz.
        num_channels: 1 mixes down; as many as the file has leaves them.

    Returns:
        the entry of the new file.
    """
    from separation.data.audio.resampling import resample  # takes half a second to import, which no other step needs

    with soundfile.SoundFile(organized / entry["path"]) as file:
        source_rate = file.samplerate
        # the same numbers of 16-bit files, read six times as fast
        audio = file.read(dtype="int16" if file.subtype == "PCM_16" else "float64", always_2d=True)
    if num_channels == 1 and audio.shape[1] > 1:
        # the mean over few columns, column by column: many times as fast as audio.mean(axis=1)
        total = sum(audio.T[1:], start=audio[:, 0].astype(np.float64))
        audio = (total * (2.0**-15 if audio.dtype == np.int16 else 1) / audio.shape[1])[:, None]
    elif audio.shape[1] != num_channels:
        raise UserError(
            f"expected a file of {num_channels} channels, found {audio.shape[1]}",
            file=organized / entry["path"],
            key="num_channels",
        )
    steps = resample(audio, source_rate, sample_rate)
    relative = str(Path(entry["path"]).with_suffix(".wav"))
    content = pcm_file(steps, sample_rate)
    (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    with quick_path(folder / relative) as temporary:
        temporary.write_bytes(content)
    return {key: value for key, value in entry.items() if key != "sha256"} | {
        "path": relative,
        "frames": len(steps),
        "sample_rate": sample_rate,
        "size": len(content),
        "crc32c": crc32c(content),
    }


def _finish(
    manifest: Path,
    spec: dict[str, Any],
    files: list[dict[str, Any]],
    attribution: str,
    problems: dict[str, int] | None = None,
    kept: Sequence[str] = (),
    **more: Any,
) -> None:
    remove_strays(manifest, [*(entry["path"] for entry in files), *kept])
    contents = {"files": files, "attribution": attribution, **more}
    finish_manifest(manifest, spec, contents | ({"problems": problems} if problems else {}))
