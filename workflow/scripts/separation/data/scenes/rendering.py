"""The audio of a scene's events, as scaper 1.6.5 makes it, without a process and a temporary file for each.

scaper sends every event through a `sox` process, even where nothing is to be changed, and builds its loudness meter
anew each time. Here sox runs only where a file differs in rate or channels from the scene, or where pitch or tempo
change. What comes out equals scaper's samples to the rounding of sox, 2^-31 (scaper/core.py, Scaper._generate_audio).
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
    """Of a scene: sample rate (Hz), channels, duration (s), loudness of the background or an event of 0 dB (LUFS)."""

    sample_rate: int
    num_channels: int
    duration: float
    ref_db: float


def render_event(event: Mapping[str, Any], scene: Format) -> np.ndarray:
    """The audio of one event, padded to the scene.

    Args:
        event: the value of a JAMS observation of scaper: role, source_file, source_time, event_time, event_duration,
            snr, pitch_shift, time_stretch.
        scene: the format.

    Returns:
        float64 (frames, channels), as long as the scene.
    """
    frames = int(scene.duration * scene.sample_rate)
    audio, file_rate = _excerpt(event, scene)
    audio = _converted(audio, file_rate, event, scene)
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
    """The mixture in the room of sox, as scaper puts it there.

    Args:
        mixture: float64 (frames, channels).
        sample_rate: Hz.
        reverb: reverberance from 0 to 1.
    """
    import sox

    transformer = sox.Transformer()
    transformer.reverb(reverberance=reverb * 100)
    return transformer.build_array(input_array=mixture, sample_rate_in=sample_rate).reshape(-1, mixture.shape[1])


def _excerpt(event: Mapping[str, Any], scene: Format) -> tuple[np.ndarray, int]:
    """The part of the file that the event names, float64 (frames, channels); a background is repeated as needed."""
    path = event["source_file"]
    try:
        rate, channels, length, offset = _header(path)
        start = int(event["source_time"] * rate)
        stop = int((event["source_time"] + event["event_duration"]) * rate)
        start, count = min(start, length), max(0, min(stop, length) - start)
        if offset:
            at = offset + 2 * channels * start
            steps = np.fromfile(path, dtype="<i2", count=count * channels, offset=at)
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
    """Sample rate (Hz), channels, frames, and where the samples begin in a plain WAV file of 16 bits; 0 for others."""
    with open(path, "rb") as file:
        head = file.read(44)
    plain = len(head) == 44 and head[:4] == b"RIFF" and head[8:20] == b"WAVEfmt \x10\x00\x00\x00"
    if plain and head[20:22] == b"\x01\x00" and head[34:36] == b"\x10\x00" and head[36:40] == b"data":
        channels, rate = struct.unpack("<HI", head[22:28])
        return rate, channels, struct.unpack("<I", head[40:44])[0] // (2 * channels), 44
    info = soundfile.info(path)
    return info.samplerate, info.channels, info.frames, 0


def _converted(audio: np.ndarray, file_rate: int, event: Mapping[str, Any], scene: Format) -> np.ndarray:
    """The excerpt at the scene's rate and channels, with the event's pitch and tempo: sox, where there is work."""
    pitch = event["pitch_shift"] if event["role"] == "foreground" else None
    stretch = event["time_stretch"] if event["role"] == "foreground" else None
    # what comes back may be changed in place
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
