"""Measurements of audio files: readability, level, clipping, checksums."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.files.atomic import sha256_of

BLOCK = 1 << 18  # frames read at a time
FULL_SCALE = 1 - 2.0**-10
CLIPPED_RUN = 3  # samples in a row at full scale
_FORMATS_BY_FFMPEG = frozenset([".m4a", ".aac", ".mp4", ".wma"])


def measure_file(path: Path) -> dict[str, Any]:
    """Reads a file to its end and measures it.

    Returns:
        `size` (bytes) and `sha256` of the file, or None for both if it cannot be opened; `unreadable`, the reason, if
        it cannot be decoded, and otherwise:
        `frames`, `sample_rate` (Hz), `num_channels`;
        `audio`, a checksum of samples and rate that does not depend on the file format;
        `peak`, half the range of a channel's samples (0 for a constant), and `rms`, both with full scale 1;
        `clipped`, the share of samples in runs of three or more at full scale;
        `damaged`, the damage to the samples, "" for none.
    """
    try:
        entry: dict[str, Any] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    except OSError as error:
        is_dangling = path.is_symlink() and isinstance(error, FileNotFoundError)
        cause = "dangling link" if is_dangling else error.strerror
        return {"size": None, "sha256": None, "unreadable": cause}
    try:
        with soundfile.SoundFile(path) as file:
            return entry | _read(file, path)
    except (OSError, soundfile.LibsndfileError, ValueError, AssertionError) as error:
        hint = "; convert it to WAV or FLAC first" if path.suffix.lower() in _FORMATS_BY_FFMPEG else ""
        cause = getattr(error, "error_string", None) or str(error) or "no audio"
        return entry | {"unreadable": " ".join(f"{cause}{hint}".split()).rstrip(".")}


def _read(file: soundfile.SoundFile, path: Path) -> dict[str, Any]:
    announced, channels = file.frames, file.channels
    audio = hashlib.sha256(f"{file.samplerate} {channels}".encode())
    frames, square, clipped, not_finite = 0, 0.0, 0, 0
    lowest, highest = np.full(channels, np.inf), np.full(channels, -np.inf)
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            break
        frames += len(block)
        audio.update(block.tobytes())
        finite = np.isfinite(block)
        if not finite.all():
            not_finite += int((~finite).sum())
            block = np.where(finite, block, 0)
        level = np.abs(block)
        if float(level.max()) >= FULL_SCALE:
            clipped += _in_runs(level >= FULL_SCALE)
        lowest, highest = np.minimum(lowest, block.min(axis=0)), np.maximum(highest, block.max(axis=0))
        square += float(np.square(block, dtype=np.float64).sum())
    if not frames:
        return {"unreadable": "no audio in the file"}
    damaged = f"{not_finite} samples are not finite" if not_finite else ""
    missing = announced - frames
    if missing > 0:
        damaged = f"it ends {missing} of {announced} frames early"
    damaged = damaged or _cut_short(path)
    return {
        "frames": frames,
        "sample_rate": file.samplerate,
        "num_channels": channels,
        "audio": audio.hexdigest(),
        "peak": float((highest - lowest).max() / 2),
        "rms": float(np.sqrt(square / (frames * channels))),
        "clipped": clipped / (frames * channels),
        "damaged": damaged,
    }


def _in_runs(full: np.ndarray) -> int:
    """Number of samples in runs of CLIPPED_RUN or more along the frames; full: bool (frames, channels)."""
    inner = full.copy()
    for shift in range(1, CLIPPED_RUN):
        inner[:-shift] &= full[shift:]
        inner[-shift:] = False
    member = inner.copy()
    for shift in range(1, CLIPPED_RUN):
        member[shift:] |= inner[:-shift]
    return int(member.sum())


def _cut_short(path: Path) -> str:
    """The missing bytes of a truncated RIFF file, which libsndfile reads as a shorter one; "" for none."""
    if path.suffix.lower() not in (".wav", ".wave"):
        return ""
    with open(path, "rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF":
            return ""
        size = os.fstat(file.fileno()).st_size
        while True:
            chunk = file.read(8)
            if len(chunk) < 8:
                return ""
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                # placeholders for unknown lengths, written by streaming encoders
                if length in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000) or file.tell() + length <= size:
                    return ""
                return f"it ends {file.tell() + length - size} of {length} bytes early"
            file.seek(length + length % 2, os.SEEK_CUR)
