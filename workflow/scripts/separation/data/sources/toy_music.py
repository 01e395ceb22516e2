"""Toy music: random songs of four stems, rendered with a General MIDI SoundFont from a Python package."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import logging
from importlib import metadata
from pathlib import Path
from typing import Any

import midirenderer
import mido
import numpy as np
import soundfile
import soxr

from separation.data.manifests import write_audio
from separation.data.sources.toy_songs import PROGRAMS, STEMS, Note, Song, compose
from separation.errors import UserError
from separation.experiment.ids import seed_from_text
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)

DEFAULTS = {"seed": 0, "songs": {"train": 24, "val": 6, "test": 8}, "song_duration": 30.0, "sample_rate": 16000}
PEAK = 0.8  # greatest peak among a song's stems and their sum
TICKS_PER_BEAT = 480
DRUM_CHANNEL = 9
SONGS_PER_PROCESS = 3  # rendering them takes about as long as starting a process

_ATTRIBUTION = """\
The stems in this folder were composed by this workflow from random numbers and rendered with the SoundFont

    TimGM6mb.sf2   (C) 2004 Tim Brechbill
    SHA-256        {sha256}
    as shipped by  pretty_midi {pretty_midi} on PyPI (unmodified)

by way of midirenderer {midirenderer} (MIT licence).

Licence of the SoundFont: GNU General Public License, version 2. This is what the copyright file of Debian's package
timgm6mb-soundfont states for TimGM6mb.sf2 (Debian ships a later revision of the file), with the author's words: "I
created some of the samples myself and all others are either public domain or fall under the terms of the GNU General
Public License." https://www.gnu.org/licenses/old-licenses/gpl-2.0.html

The audio holds samples of that SoundFont: whoever passes it on should pass on this file with it.
"""


def build_toy_music(args: dict[str, Any], folder: Path, workers: int) -> dict[str, Any]:
    """Renders all songs of all splits as `<split>/<song>/<stem>.wav`, mono, 16 bits.

    No two splits share a song. A song depends only on the seed, its split and its number: more songs or other splits
    do not change it.

    Args:
        args: `seed`, `songs` (number per split), `song_duration` (s), `sample_rate` (Hz); see DEFAULTS.
        folder: Folder of the splits.
        workers: Number of processes; the files are the same bytes for any number.

    Returns:
        `files`: one dict per stem; `attribution`: author and licence of the samples.

    Raises:
        UserError: An argument is unknown or out of range.
    """
    settings = _settings_of(args)
    songs = [(split, index) for split, count in settings["songs"].items() for index in range(count)]
    duration, sample_rate = float(settings["song_duration"]), int(settings["sample_rate"])
    calls = [(settings["seed"], split, index, duration, sample_rate, folder) for split, index in songs]
    files = run_in_order(write_song, calls, workers=workers, share=SONGS_PER_PROCESS, items="songs")
    attribution = _ATTRIBUTION.format(
        sha256=hashlib.sha256(_soundfont()).hexdigest(),
        pretty_midi=metadata.version("pretty_midi"),
        midirenderer=metadata.version("midirenderer"),
    )
    return {"files": [entry for song in files for entry in song], "attribution": attribution}


def _settings_of(args: dict[str, Any]) -> dict[str, Any]:
    settings = DEFAULTS | args
    unknown = sorted(set(settings) - set(DEFAULTS))
    if unknown:
        raise UserError(f"unknown key; expected one of {', '.join(DEFAULTS)}", key=f"source.args.{unknown[0]}")
    songs = settings["songs"]
    if (
        not isinstance(songs, dict)
        or not songs
        or not all(type(count) is int and count >= 0 for count in songs.values())
    ):
        raise UserError(
            f"expected a number of songs per split, such as {{train: 24}}, found {songs!r}", key="source.args.songs"
        )
    if type(settings["seed"]) is not int or settings["seed"] < 0:
        raise UserError(f"expected a whole number from 0, found {settings['seed']!r}", key="source.args.seed")
    for key in ("song_duration", "sample_rate"):
        if isinstance(settings[key], bool) or not isinstance(settings[key], int | float) or settings[key] <= 0:
            raise UserError(f"expected a number above 0, found {settings[key]!r}", key=f"source.args.{key}")
    return settings


def write_song(
    seed: int, split: str, index: int, duration: float, sample_rate: int, folder: Path
) -> list[dict[str, Any]]:
    """Renders one song and writes its stems.

    Returns:
        For each stem: `path` below the folder, `split`, `song`, `class`, `frames`, `sample_rate`, `size` (bytes),
        `sha256`.
    """
    name = f"{split}_{index:03d}"
    entries = []
    for stem, audio in render_song(seed, split, index, duration, sample_rate).items():
        entry = {"path": f"{split}/{name}/{stem}.wav", "split": split, "song": name, "class": stem}
        entries.append(write_audio(folder, entry, audio, sample_rate))
    return entries


def render_song(seed: int, split: str, index: int, duration: float, sample_rate: int) -> dict[str, np.ndarray]:
    """Composes and renders song number `index` of a split.

    Returns:
        Stems by name, float32 (frames,), each `duration` seconds long; scaled by one factor per song, so that neither a
        stem nor their sum exceeds PEAK.
    """
    split_number = seed_from_text(split)
    programs = {stem: _program_in_turn(choices, [seed, split_number], index) for stem, choices in PROGRAMS.items()}
    song = compose(np.random.default_rng([seed, split_number, index]), duration, programs)
    stems = {stem: render_stem(song, stem, duration, sample_rate) for stem in STEMS}
    peak = max(np.abs(audio).max() for audio in (*stems.values(), sum(stems.values())))
    return {stem: audio * np.float32(PEAK / peak) for stem, audio in stems.items()}


def _program_in_turn(programs: tuple[int, ...], seed: list[int], index: int) -> int:
    """The program of song `index`: each is used once before one repeats, so that a few songs have them all.

    The order is drawn again for every round, so that combinations of instruments vary.
    """
    round_number, position = divmod(index, len(programs))
    order = np.random.default_rng([*seed, len(programs), round_number]).permutation(len(programs))
    return programs[order[position]]


def render_stem(song: Song, stem: str, duration: float, sample_rate: int) -> np.ndarray:
    """Renders one stem to mono.

    Returns:
        float32 (round(duration * sample_rate),).
    """
    rendered = midirenderer.render_wave_from(_soundfont(), midi_bytes(song, stem, duration))
    audio, rendered_rate = soundfile.read(io.BytesIO(rendered), dtype="float32", always_2d=True)
    audio = soxr.resample((audio[:, 0] + audio[:, 1]) / 2, rendered_rate, sample_rate, quality="VHQ")
    frames = round(duration * sample_rate)
    return np.pad(audio[:frames], (0, max(0, frames - len(audio))))


@functools.cache
def _soundfont() -> bytes:
    # located, not imported: pretty_midi searches for a synthesizer on import
    package = importlib.util.find_spec("pretty_midi")
    return (Path(package.origin).parent / "TimGM6mb.sf2").read_bytes()


def midi_bytes(song: Song, stem: str, duration: float) -> bytes:
    """One stem of a song as a Standard MIDI File of type 0 that lasts `duration` seconds."""
    channel = DRUM_CHANNEL if stem == "drums" else 0
    end = round(duration * song.tempo / 60 * TICKS_PER_BEAT)
    # (tick, rank, message): within a tick, notes end before others start, and a bend precedes its note
    events = []
    for note, stop in _without_overlaps(song.notes[stem]):
        start = round(note.start * TICKS_PER_BEAT)
        if start >= end:
            continue
        on = mido.Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
        events.append((start, 2, on))
        events.append((min(stop, end), 0, mido.Message("note_off", channel=channel, note=note.pitch)))
        if stem == "vocals":
            events += [(tick, 1, bend) for tick, bend in _bends(song, note, start, min(stop, end))]
    events.sort(key=lambda event: event[:2])

    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(song.tempo)))
    track.append(mido.Message("program_change", channel=channel, program=song.programs[stem]))
    track.append(mido.Message("control_change", channel=channel, control=91, value=song.reverb[stem]))
    now = 0
    for tick, _, message in events:
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=end - now))
    content = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=TICKS_PER_BEAT, tracks=[track]).save(file=content)
    return content.getvalue()


def _without_overlaps(notes: list[Note]) -> list[tuple[Note, int]]:
    """The notes with their last tick, cut where the same key is struck again: one note-off would end both."""
    following: dict[int, int] = {}
    result = []
    for note in sorted(notes, key=lambda each: each.start, reverse=True):
        start, stop = round(note.start * TICKS_PER_BEAT), round((note.start + note.duration) * TICKS_PER_BEAT)
        stop = max(start + 1, min(stop, following.get(note.pitch, stop)))
        following[note.pitch] = start
        result.append((note, stop))
    return result[::-1]


def _bends(song: Song, note: Note, start: int, stop: int) -> list[tuple[int, mido.Message]]:
    """Pitch bends of a lead note, every 15 ms: an 80 ms rise from `scoop` cents below, and vibrato after 150 ms."""
    seconds_per_tick = 60 / song.tempo / TICKS_PER_BEAT
    every = max(1, round(0.015 / seconds_per_tick))
    bends = []
    for tick in range(start, stop, every):
        elapsed = (tick - start) * seconds_per_tick
        onset = np.clip((elapsed - 0.15) / 0.2, 0, 1)
        cents = note.vibrato * onset * np.sin(2 * np.pi * song.vibrato_rate * elapsed)
        cents -= note.scoop * np.clip(1 - elapsed / 0.08, 0, 1)
        # the bend range of General MIDI is two semitones up and down
        bends.append((tick, mido.Message("pitchwheel", pitch=int(np.clip(round(cents / 200 * 8192), -8192, 8191)))))
        if not note.vibrato and elapsed > 0.08:
            break
    return bends
