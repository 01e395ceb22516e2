"""The rules resample_source and resample_shard: every file at one sample rate and number of channels."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from separation.data.audio.pcm import to_pcm, write_pcm
from separation.data.manifests import crc32c, finish_source_manifest, read_source_manifest, start_manifest
from separation.errors import UserError
from separation.files.atomic import read_json, write_json
from separation.files.layout import MANIFEST
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)

SECONDS_PER_PROCESS = 3000  # of audio: resampling them takes about as long as starting a process


def resample_source(
    spec: dict[str, Any], organized: Path, manifest: Path, workers: int = 1, shards: Sequence[Path] = ()
) -> None:  # fmt: skip
    """Converts all files to one sample rate and number of channels, as 16-bit WAV files of the same relative names.

    Args:
        spec: `sample_rate` in Hz and `num_channels` (default 1, the mean of the channels).
        organized: Manifest of organize_source.
        manifest: Written last.
        workers: Number of processes; the files are the same bytes for any number.
        shards: Records of resample_shard for all files, in order; with them, nothing is resampled here.

    Raises:
        UserError: A file is missing or changed, or has too few channels.
    """
    sample_rate = spec["sample_rate"]
    source = read_source_manifest(organized)
    lower = sorted({entry["sample_rate"] for entry in source["files"] if entry["sample_rate"] < sample_rate})
    if lower:
        logger.warning(
            "files with %s Hz are upsampled to %d Hz and have no content above half their own rate",
            lower,
            sample_rate,
        )
    folder = start_manifest(manifest)
    if shards:
        files = [entry for shard in shards for entry in read_json(shard)["files"]]
        if len(files) != len(source["files"]):
            raise UserError(f"expected the records of {len(source['files'])} files, found {len(files)}", file=folder)
    else:
        files = _resample_files(source["files"], Path(organized).parent, folder, spec, workers)
    kept = [Path(shard).relative_to(folder).as_posix() for shard in shards]
    finish_source_manifest(manifest, spec, files, source["attribution"], problems=source.get("problems"), kept=kept)


def resample_shard(
    spec: dict[str, Any], organized: Path, record: Path, number: int, count: int, workers: int = 1
) -> None:  # fmt: skip
    """Resamples one of `count` consecutive parts of a source's files.

    Args:
        spec: As in resample_source.
        organized: As in resample_source.
        record: List of the files, `shards/<number>.json` in their folder; written last.
        number: Number of the part, from 0.
        count: Number of parts.
        workers: As in resample_source.
    """
    source = read_source_manifest(organized)
    folder = start_manifest(Path(record).resolve().parents[1] / MANIFEST)
    files = source["files"]
    shard_files = files[len(files) * number // count : len(files) * (number + 1) // count]
    part = f", shard {number + 1} of {count}"
    write_json(record, {"files": _resample_files(shard_files, Path(organized).parent, folder, spec, workers, part)})


def _resample_files(
    files: list[dict[str, Any]], organized: Path, folder: Path, spec: dict[str, Any], workers: int, part: str = ""
) -> list[dict[str, Any]]:  # fmt: skip
    calls = [(entry, organized, folder, spec["sample_rate"], spec.get("num_channels", 1)) for entry in files]
    seconds = sum(entry["frames"] / entry["sample_rate"] for entry in files)
    share = max(1, math.ceil(len(files) * SECONDS_PER_PROCESS / max(seconds, 1)))
    return run_in_order(resample_file, calls, workers=workers, share=share, items=f"files resampled{part}")


def resample_file(
    entry: dict[str, Any], organized: Path, folder: Path, sample_rate: int, num_channels: int
) -> dict[str, Any]:
    """Resamples one file.

    Args:
        entry: Entry in the manifest's `files`.
        organized: Folder that the entry's path is relative to.
        folder: Folder of the new file, which has the same path with the suffix .wav.
        sample_rate: New rate in Hz.
        num_channels: 1 averages the channels; any other number must be the file's own.

    Returns:
        The new file's entry.

    Raises:
        UserError: The file has another number of channels.
    """
    audio, source_rate = soundfile.read(organized / entry["path"], dtype="float64", always_2d=True)
    if num_channels == 1 and audio.shape[1] > 1:
        # ten times as fast as audio.mean(axis=1), which adds up a few columns row by row
        audio = (sum(audio.T[1:], start=audio[:, 0]) / audio.shape[1])[:, None]
    elif audio.shape[1] != num_channels:
        raise UserError(
            f"expected a file of {num_channels} channels, found {audio.shape[1]}",
            file=organized / entry["path"],
            key="num_channels",
        )
    steps = resample_audio(audio, source_rate, sample_rate)
    relative = str(Path(entry["path"]).with_suffix(".wav"))
    content = write_pcm(folder / relative, steps, sample_rate)
    return {key: value for key, value in entry.items() if key != "sha256"} | {
        "path": relative,
        "frames": len(steps),
        "sample_rate": sample_rate,
        "size": len(content),
        "crc32c": crc32c(content),
    }


def resample_audio(audio: np.ndarray, source_rate: int, sample_rate: int) -> np.ndarray:
    """Resamples audio without delay, by soxr at quality VHQ.

    Args:
        audio: float64 (frames, channels).
        source_rate: Present rate in Hz.
        sample_rate: New rate in Hz.

    Returns:
        16-bit steps, int64 (round(frames * sample_rate / source_rate), channels); rounded half to even, clipped.
    """
    return to_pcm(soxr.resample(audio, source_rate, sample_rate, quality="VHQ"))
