"""What is wrong with an audio file, as far as the file alone tells: read once, measured, hashed."""

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
    """Reads a file to its end.

    Returns:
        `size` (bytes) and `sha256` of the file, None where its bytes cannot be had; then either `unreadable`, why it
        cannot be decoded, or `frames`, `sample_rate` (Hz), `num_channels`, `audio` (hex digits that are equal for files
        of equal samples and rate, whatever their format), `peak` (half of what lies between the lowest and the highest
        sample of a channel, so that a constant is silence) and `rms` (full scale 1), `clipped` (share of samples in
        runs of three or more at full scale), and `damaged`, what is wrong with the samples, "" for nothing.
    """
    try:
        entry: dict[str, Any] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    except OSError as error:
        leads_nowhere = path.is_symlink() and isinstance(error, FileNotFoundError)
        cause = "a link that leads nowhere" if leads_nowhere else error.strerror
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
    frames, square, clipped, bad = 0, 0.0, 0, 0
    lowest, highest = np.full(channels, np.inf), np.full(channels, -np.inf)
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            break
        frames += len(block)
        audio.update(block.tobytes())
        finite = np.isfinite(block)
        if not finite.all():
            bad += int((~finite).sum())
            block = np.where(finite, block, 0)
        level = np.abs(block)
        if float(level.max()) >= FULL_SCALE:
            clipped += _in_runs(level >= FULL_SCALE)
        lowest, highest = np.minimum(lowest, block.min(axis=0)), np.maximum(highest, block.max(axis=0))
        square += float(np.square(block, dtype=np.float64).sum())
    if not frames:
        return {"unreadable": "it holds no audio"}
    damaged = f"{bad} samples are not finite" if bad else ""
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
    """How many samples lie in runs of CLIPPED_RUN or more along the frames; full: bool (frames, channels)."""
    inner = full.copy()
    for shift in range(1, CLIPPED_RUN):
        inner[:-shift] &= full[shift:]
        inner[-shift:] = False
    member = inner.copy()
    for shift in range(1, CLIPPED_RUN):
        member[shift:] |= inner[:-shift]
    return int(member.sum())


def _cut_short(path: Path) -> str:
    """What is missing at the end of a RIFF file; libsndfile takes a file that was cut short for a shorter one."""
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
                # writers of streams leave these lengths open
                if length in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000) or file.tell() + length <= size:
                    return ""
                return f"it ends {file.tell() + length - size} of {length} bytes early"
            file.seek(length + length % 2, os.SEEK_CUR)
