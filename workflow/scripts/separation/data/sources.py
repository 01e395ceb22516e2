"""From a source to files that can be mixed: fetch (or build) it, organize it by class, resample it.

Each step reads the manifest of the one before, writes its files into the folder of its own manifest, and the manifest
last. A step that was killed leaves no manifest, and one that is started again writes its files anew, each atomically.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from separation.data.audio_files import to_pcm, write_pcm_atomically
from separation.data.parallel import run_in_order
from separation.data.source_files import finish_manifest, read_source_manifest, remove_strays, start_manifest
from separation.data.toy_music import build_toy_music
from separation.data.toy_speech import build_toy_speech
from separation.errors import UserError
from separation.files import sha256_of

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
}
FILES_PER_PROCESS = 60  # take as long as starting one


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
    _finish(manifest, spec, built["files"], built["attribution"])


def organize_source(spec: dict[str, Any], fetched: Path, manifest: Path) -> None:
    """Orders a source the way scaper looks for it, by relative symbolic links: `<split>/<class>/<song>.wav`.

    Args:
        spec: `organize`: `by`, which is `class`.
        fetched: the manifest of fetch_source.
        manifest: written last.

    Raises:
        UserError: another `by`, or a fetched file is missing or changed.
    """
    if spec["organize"]["by"] != "class":
        raise UserError(f"expected class, found {spec['organize']['by']!r}", key="organize.by")
    source = read_source_manifest(fetched)
    folder = start_manifest(manifest)
    files = []
    for entry in source["files"]:
        target = Path(fetched).parent / entry["path"]
        relative = f"{entry['split']}/{entry['class']}/{entry['song']}{target.suffix}"
        link = folder / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(os.path.relpath(target, link.parent))
        os.replace(new, link)
        files.append(entry | {"path": relative})
    _finish(manifest, spec, files, source["attribution"])


def resample_source(spec: dict[str, Any], organized: Path, manifest: Path, workers: int = 1) -> None:
    """Brings all files to one sample rate and number of channels, as 16-bit WAV files of the same relative names.

    Args:
        spec: `sample_rate` in Hz and `num_channels` (1 where left out: the mean of the channels).
        organized: the manifest of organize_source.
        manifest: written last.
        workers: number of processes; the files are the same bytes for any.

    Raises:
        UserError: a file is missing or changed, or has fewer channels than asked for.
    """
    sample_rate, num_channels = spec["sample_rate"], spec.get("num_channels", 1)
    source = read_source_manifest(organized)
    lower = sorted({entry["sample_rate"] for entry in source["files"] if entry["sample_rate"] < sample_rate})
    if lower:
        logger.warning(
            "some files have %s Hz and hold nothing above half of that; sample_rate is %d Hz", lower, sample_rate
        )
    folder = start_manifest(manifest)
    calls = [(entry, Path(organized).parent, folder, sample_rate, num_channels) for entry in source["files"]]
    files = run_in_order(resample_file, calls, workers=workers, share=FILES_PER_PROCESS, what="files resampled")
    _finish(manifest, spec, files, source["attribution"])


def resample_file(
    entry: dict[str, Any], organized: Path, folder: Path, sample_rate: int, num_channels: int
) -> dict[str, Any]:
    """Resamples one file with soxr at its very high quality.

    Args:
        entry: of a manifest's `files`.
        organized: the folder that the entry's path starts from.
        folder: where the new file goes, under the same path with the suffix .wav.
        sample_rate: Hz.
        num_channels: 1 mixes down; as many as the file has leaves them.

    Returns:
        the entry of the new file.
    """
    audio, source_rate = soundfile.read(organized / entry["path"], dtype="float64", always_2d=True)
    if num_channels == 1:
        audio = audio.mean(axis=1, keepdims=True)
    elif audio.shape[1] != num_channels:
        raise UserError(
            f"expected a file of {num_channels} channels, found {audio.shape[1]}",
            file=organized / entry["path"],
            key="num_channels",
        )
    steps = to_pcm(np.atleast_2d(soxr.resample(audio, source_rate, sample_rate, quality="VHQ")))
    relative = str(Path(entry["path"]).with_suffix(".wav"))
    write_pcm_atomically(folder / relative, steps, sample_rate)
    return entry | {
        "path": relative,
        "frames": len(steps),
        "sample_rate": sample_rate,
        "size": (folder / relative).stat().st_size,
        "sha256": sha256_of(folder / relative),
    }


def _finish(manifest: Path, spec: dict[str, Any], files: list[dict[str, Any]], attribution: str) -> None:
    remove_strays(manifest, [entry["path"] for entry in files])
    finish_manifest(manifest, spec, {"files": files, "attribution": attribution})
