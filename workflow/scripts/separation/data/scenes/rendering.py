"""Audio of events, equal to scaper 1.6.5 but without a process and a temporary file per event.

scaper passes every event through a `sox` process, even if nothing changes, and rebuilds its loudness meter each time.
Here sox runs only if a file's rate or channels differ from the scene, or for changes of pitch or tempo. The samples
equal those of scaper up to the rounding of sox, 2^-31 (scaper/core.py, Scaper._generate_audio).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from separation.data.scenes.loudness import integrated_loudness
from separation.errors import UserError

FADE = 0.01  # seconds, at both ends of an event


@dataclass(frozen=True)
class Format:
    """Format of a scene.

    Attributes:
        sample_rate: Rate in Hz.
        num_channels: Number of channels.
        duration: Length in seconds.
        ref_db: Loudness of the background, or of an event of 0 dB, in LUFS.
    """

    sample_rate: int
    num_channels: int
    duration: float
    ref_db: float


def render_event(event: Mapping[str, Any], scene: Format) -> np.ndarray:
    """The audio of one event, padded to the scene.

    Args:
        event: Value of a JAMS observation of scaper: role, source_file, source_time, event_time, event_duration, snr,
            pitch_shift, time_stretch.
        scene: Format of the scene.

    Returns:
        float64 (frames, channels), as long as the scene.
    """
    frames = int(scene.duration * scene.sample_rate)
    audio, file_rate = _excerpt(event, scene)
    audio = _convert(audio, file_rate, event, scene)
    loudness = integrated_loudness(audio, scene.sample_rate)
    background = event["role"] == "background"
    gain = scene.ref_db - loudness if background else scene.ref_db + event["snr"] - loudness
    audio *= np.exp(gain * np.log(10) / 20)
    if background:
        return audio[:frames]
    rise, fall = _fades(scene.sample_rate)
    audio[: len(rise)] *= rise[: len(audio)]
    audio[-len(fall) :] *= fall[-len(audio) :]
    before = int(scene.sample_rate * event["event_time"])
    if before == 0 and len(audio) == frames:
        return audio
    padded = np.zeros((frames, scene.num_channels))
    audio = audio[: max(0, frames - before)]
    padded[before : before + len(audio)] = audio
    return padded


def with_reverb(mixture: np.ndarray, sample_rate: int, reverb: float) -> np.ndarray:
    """The mixture with reverb from sox, with scaper's settings.

    Args:
        mixture: Audio, float64 (frames, channels).
        sample_rate: Rate in Hz.
        reverb: Reverberance from 0 to 1.
    """
    import sox

    transformer = sox.Transformer()
    transformer.reverb(reverberance=reverb * 100)
    return transformer.build_array(input_array=mixture, sample_rate_in=sample_rate).reshape(-1, mixture.shape[1])


def _excerpt(event: Mapping[str, Any], scene: Format) -> tuple[np.ndarray, int]:
    """The event's part of its file, float64 (frames, channels), and the file's rate; a short background is repeated."""
    path = event["source_file"]
    try:
        rate, channels, length, offset = _header(path)
        start = int(event["source_time"] * rate)
        stop = int((event["source_time"] + event["event_duration"]) * rate)
        start, count = min(start, length), max(0, min(stop, length) - start)
        if offset:
            first = offset + 2 * channels * start
            steps = np.fromfile(path, dtype="<i2", count=count * channels, offset=first)
            audio = np.multiply(steps.reshape(-1, channels), 2.0**-15, dtype=np.float64)
        else:
            audio, _ = soundfile.read(path, frames=count, start=start, dtype="float64", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"cannot be read: {error}", file=path) from error
    if event["role"] == "background":
        audio = np.tile(audio, (int(max(scene.duration // (length / rate) + 1, 1)), 1))[:stop]
    return audio, rate


@functools.lru_cache(maxsize=65536)
def _header(path: str) -> tuple[int, int, int, int]:
    """Sample rate (Hz), channels, frames, and the offset of the samples in a plain 16-bit WAV file, 0 for others."""
    with open(path, "rb") as file:
        head = file.read(44)
    is_plain = len(head) == 44 and head[:4] == b"RIFF" and head[8:20] == b"WAVEfmt \x10\x00\x00\x00"
    if is_plain and head[20:22] == b"\x01\x00" and head[34:36] == b"\x10\x00" and head[36:40] == b"data":
        channels, rate = struct.unpack("<HI", head[22:28])
        return rate, channels, struct.unpack("<I", head[40:44])[0] // (2 * channels), 44
    info = soundfile.info(path)
    return info.samplerate, info.channels, info.frames, 0


def _convert(audio: np.ndarray, file_rate: int, event: Mapping[str, Any], scene: Format) -> np.ndarray:
    """The excerpt at the scene's rate and channels, with the event's pitch and tempo; by sox, if anything changes."""
    pitch = event["pitch_shift"] if event["role"] == "foreground" else None
    stretch = event["time_stretch"] if event["role"] == "foreground" else None
    if file_rate == scene.sample_rate and audio.shape[1] == scene.num_channels and pitch is None and stretch is None:
        return audio
    import sox

    transformer = sox.Transformer()
    transformer.convert(samplerate=scene.sample_rate, n_channels=scene.num_channels, bitdepth=None)
    transformer.set_output_format(rate=scene.sample_rate, channels=scene.num_channels)
    if pitch is not None:
        transformer.pitch(pitch)
    if stretch is not None:
        transformer.tempo(1.0 / float(stretch), audio_type="s")
    return transformer.build_array(input_array=audio, sample_rate_in=file_rate).reshape(-1, scene.num_channels).copy()


@functools.cache
def _fades(sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    count = int(FADE * sample_rate)
    rise = np.sin(np.linspace(0, np.pi / 2, count))[:, None]
    return rise, np.sin(np.linspace(np.pi / 2, 0, count))[:, None]
