"""Mixtures to listen to in the report: audio and spectrograms as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from separation.files.atomic import read_json
from separation.files.layout import EvaluationFolder

ROLES = ("best", "median", "worst")
# Limits that keep the page small: length of a clip, and PCM bytes of all clips
MAX_SECONDS = 20.0
MIN_SECONDS = 2.0
MAX_BYTES = 24_000_000
SPECTROGRAM_SIZE = (360, 110)
SPECTROGRAM_RANGE = 65.0  # dB below the loudest bin
SILENCE = 1e-12


@dataclass(frozen=True)
class Clip:
    """One clip of a mixture; `audio` and `image` are data URIs, `scores` maps metrics to dB (None: undefined)."""

    name: str
    kind: str
    audio: str
    image: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class PlayedItem:
    """One mixture with its clips, the mixture first, then reference and estimate of each source."""

    item: str
    roles: tuple[str, ...]
    seconds: float
    whole: bool
    sample_rate: int
    clips: list[Clip]


def read_items(evaluations: Sequence[EvaluationFolder]) -> list[PlayedItem]:
    """Reads the audio that evaluations kept: the best, median and worst mixture.

    Args:
        evaluations: Evaluations with audio kept by `separation.evaluation.kept_audio`.
    """
    chosen = []
    for evaluation in evaluations:
        for entry in read_json(evaluation.estimate_index)["items"]:
            roles = tuple(role for role in ROLES if role in entry["role"].split(", "))
            if roles:
                chosen.append((evaluation.estimates, entry, roles))
    seconds = _seconds_each(
        [folder / entry["mixture"] for folder, entry, _ in chosen for _ in range(_num_clips(entry))]
    )
    found = [_read_item(folder, entry, roles, seconds) for folder, entry, roles in chosen]
    return sorted(found, key=lambda item: ROLES.index(item.roles[0]))


def _num_clips(entry: dict) -> int:
    return 1 + 2 * len(entry["sources"])


def _seconds_each(clips: Sequence[Path]) -> float:
    """The length of each clip at which all clips together fit into MAX_BYTES."""
    bytes_per_second = 0
    for path in clips:
        about = soundfile.info(path)
        bytes_per_second += 2 * about.samplerate * about.channels
    return max(MIN_SECONDS, min(MAX_SECONDS, MAX_BYTES / max(1, bytes_per_second)))


def _read_item(folder: Path, entry: dict, roles: tuple[str, ...], seconds: float) -> PlayedItem:
    files = [("mixture", "mixture", folder / entry["mixture"], {})]
    for source, paths in entry["sources"].items():
        files.append((source, "reference", folder / paths["reference"], {}))
        files.append((source, "estimate", folder / paths["estimate"], paths.get("scores", {})))
    loaded = [(name, kind, *read_beginning(path, seconds), scores) for name, kind, path, scores in files]
    levels = [spectrogram(audio, rate) for _, _, audio, rate, _, _ in loaded]
    # One scale for all clips of a mixture, so that faint leakage looks faint
    loudest = max(float(level.max(initial=-300.0)) for level in levels)
    clips = [
        Clip(name, kind, audio_uri(audio, rate), png_uri(level, loudest), scores)
        for (name, kind, audio, rate, _, scores), level in zip(loaded, levels, strict=True)
    ]
    _, _, audio, rate, whole, _ = loaded[0]
    return PlayedItem(entry["item"], roles, len(audio) / rate, whole, rate, clips)


def read_beginning(path: Path, seconds: float = MAX_SECONDS) -> tuple[np.ndarray, int, bool]:
    """Reads up to `seconds` of a file: samples (frames, channels), sample rate, whether that is the whole file."""
    with soundfile.SoundFile(path) as source:
        frames = int(seconds * source.samplerate)
        return source.read(frames, always_2d=True), source.samplerate, source.frames <= frames


def audio_uri(audio: np.ndarray, sample_rate: int) -> str:
    """The samples (frames, channels) at 16 bits, as FLAC, which is smaller than WAV and plays in every browser.

    Short clips are WAV, because Chromium fails to seek in a FLAC of a second or less.
    """
    kind = "flac" if len(audio) > 2 * sample_rate else "wav"
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, sample_rate, format=kind.upper(), subtype="PCM_16")
    return f"data:audio/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def spectrogram(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Levels in dB, shape (frequencies, frames), of SPECTROGRAM_SIZE, or narrower if there are fewer frames.

    Frequencies rise with the row, linearly from 0 to half the sample rate; channels are averaged in power.
    """
    width, height = SPECTROGRAM_SIZE
    window_length = 2 ** int(np.ceil(np.log2(0.032 * sample_rate)))
    padded = np.pad(audio, ((0, max(0, window_length - len(audio))), (0, 0)))
    starts = np.unique(np.linspace(0, len(padded) - window_length, width).astype(int))
    window = np.hanning(window_length)[:, None]
    power = np.stack(
        [np.square(np.abs(np.fft.rfft(padded[at : at + window_length] * window, axis=0))).mean(axis=1) for at in starts]
    )
    edges = np.linspace(0, power.shape[1], min(height, power.shape[1]) + 1).astype(int)
    pooled = np.maximum.reduceat(power, edges[:-1], axis=1)
    return 10 * np.log10(pooled.T + SILENCE)


def png_uri(levels: np.ndarray, loudest: float) -> str:
    """The levels in dB as a PNG with low frequencies at the bottom; black is SPECTROGRAM_RANGE below `loudest`."""
    shades = np.clip((levels - loudest) / SPECTROGRAM_RANGE + 1, 0, 1)
    # The eye distinguishes no more than 64 shades here, and 256 would take twice the bytes
    image = Image.fromarray((shades[::-1] * 63).round().astype(np.uint8)).convert("P")
    image.putpalette(palette(64))
    buffer = io.BytesIO()
    image.resize(SPECTROGRAM_SIZE, Image.Resampling.NEAREST).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def palette(shades: int) -> list[int]:
    """Red, green and blue of each shade, evenly brighter from black through violet and orange to pale yellow."""
    stops = np.array([[4, 4, 12], [52, 16, 90], [132, 32, 108], [208, 68, 70], [248, 148, 48], [252, 250, 190]])
    at = np.linspace(0, len(stops) - 1, shades)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(int).ravel().tolist()
