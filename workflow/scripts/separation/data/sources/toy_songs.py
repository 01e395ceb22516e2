"""Random songs in four parts, as lists of notes: lead voice, bass, drums and chords.

The songs are simple music: a chord progression in a key, a bass that follows it, drum patterns with fills, phrases with
rests. Every choice comes from one generator, in a fixed order, so that a seed determines a song. The lead voice and the
chords share a register, and songs differ in key, tempo, instruments and density, so that a fixed mask per frequency
cannot separate them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

STEMS = ("vocals", "bass", "drums", "other")

# General MIDI programs, counted from 0. Lead voices sustain and take vibrato, as a singer does; no program is in two
# lists, so that a stem can be recognized by its sound. (TimGM6mb plays choirs as a static loop, which is too easy.)
PROGRAMS = {
    "vocals": (65, 66, 68, 69, 71),  # alto and tenor sax, oboe, English horn, clarinet: one family, as voices are
    "bass": (32, 33, 34, 35, 38, 39),  # acoustic, fingered, picked and fretless bass, two synth basses
    "drums": (0,),  # the standard kit
    "other": (0, 4, 11, 16, 24, 25, 27, 48, 89),  # two pianos, vibraphone, organ, three guitars, strings, pad
}

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
# scale degrees, counted from 0, one per bar
MAJOR_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (1, 4, 0, 5), (0, 3, 0, 4), (5, 3, 0, 4), (0, 2, 3, 4), (3, 4, 2, 5))
MINOR_PROGRESSIONS = ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 6), (0, 2, 6, 3), (5, 6, 0, 0), (0, 3, 6, 2))

STEPS = 16  # sixteenths in a bar of 4/4
KICK, SNARE, SIDE_STICK, CLAP, CLOSED_HAT, OPEN_HAT, RIDE, CRASH = 36, 38, 37, 39, 42, 46, 51, 49
TOMS = (50, 48, 47, 45, 43, 41)
# sixteenths on which the kick and the snare fall
KICKS = ((0, 8), (0, 6, 8), (0, 7, 10), (0, 4, 8, 12), (0, 3, 8, 11), (0, 10), (0, 2, 8, 10))
SNARES = ((4, 12), (4, 12, 15), (4, 7, 12), (8,), (4, 12))
# rhythms of chords and of the bass, sixteenths on which a note starts
STRUMS = ((0, 4, 8, 12), (0, 3, 6, 10, 12), (2, 6, 10, 14), (0, 6, 8, 14), (0, 2, 4, 6, 8, 10, 12, 14), (0, 3, 8, 11))
BASS_RHYTHMS = ((0, 4, 8, 12), (0, 2, 4, 6, 8, 10, 12, 14), (0, 6, 8, 14), (0, 3, 6, 8, 11, 14), (0, 8), (0, 7, 8, 12))


@dataclass(frozen=True)
class Note:
    """One note: start and duration in beats, MIDI pitch and velocity, vibrato in cents, cents below pitch at onset."""

    start: float
    duration: float
    pitch: int
    velocity: int
    vibrato: float = 0.0
    scoop: float = 0.0


@dataclass
class Song:
    """A song: tempo in beats per minute, and per stem the General MIDI program and its notes."""

    tempo: float
    programs: dict[str, int]
    reverb: dict[str, int]
    vibrato_rate: float
    notes: dict[str, list[Note]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Style:
    """Properties that are constant within a song."""

    tonic: int
    scale: tuple[int, ...]
    progressions: tuple[tuple[int, ...], tuple[int, ...]]
    sevenths: bool
    lead_centre: int
    chord_centre: int
    density: float
    vibrato: float


def compose(rng: np.random.Generator, duration: float, programs: dict[str, int]) -> Song:
    """Composes a song of at least `duration` seconds.

    Args:
        rng: Random generator for all choices.
        duration: Least duration in seconds.
        programs: General MIDI program of each of STEMS.

    Returns:
        The song, with notes for each of STEMS.
    """
    tempo = float(rng.uniform(84, 148))
    minor = bool(rng.random() < 0.5)
    progressions = MINOR_PROGRESSIONS if minor else MAJOR_PROGRESSIONS
    first, second = rng.choice(len(progressions), size=2, replace=False)
    lead_centre = int(rng.integers(56, 73))
    style = _Style(
        tonic=int(rng.integers(0, 12)),
        scale=MINOR if minor else MAJOR,
        progressions=(progressions[first], progressions[second]),
        sevenths=bool(rng.random() < 0.4),
        lead_centre=lead_centre,
        # near the lead's register, above or below it
        chord_centre=lead_centre + int(rng.integers(-3, 9)),
        density=float(rng.uniform(0.35, 0.75)),
        vibrato=float(rng.uniform(30, 70)),
    )
    song = Song(
        tempo=tempo,
        programs=programs,
        reverb={stem: int(rng.integers(0, 50)) for stem in STEMS},
        vibrato_rate=float(rng.uniform(4.8, 6.4)),
    )
    bars = int(np.ceil(duration * tempo / 60 / 4)) + 1
    # verse, verse, chorus, verse of four bars each, repeated
    sections = [(0, 0, 1, 0)[bar // 4 % 4] for bar in range(bars)]
    chords = [style.progressions[section][bar % 4] for bar, section in enumerate(sections)]
    song.notes["drums"] = _drums(rng, sections)
    song.notes["bass"] = _bass(rng, style, sections, chords)
    song.notes["other"] = _chords(rng, style, sections, chords)
    song.notes["vocals"] = _lead(rng, style, chords)
    return song


def _pitch(style: _Style, degree: int) -> int:
    """The pitch of a scale degree above the tonic in octave 0; degrees may exceed an octave."""
    octave, step = divmod(degree, len(style.scale))
    return style.tonic + 12 * octave + style.scale[step]


def _nearest(pitch_class: int, centre: float) -> int:
    """The pitch of a pitch class that is nearest to `centre`."""
    return pitch_class % 12 + 12 * round((centre - pitch_class % 12) / 12)


def _velocity(rng: np.random.Generator, accent: float) -> int:
    return int(np.clip(70 + 35 * accent + rng.normal(0, 6), 30, 127))


def _humanized(rng: np.random.Generator, step: float) -> float:
    """The start in beats of a note on sixteenth `step`, with the timing error of a player."""
    return max(0.0, step / 4 + float(rng.normal(0, 0.012)))


def _choose(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def _drums(rng: np.random.Generator, sections: list[int]) -> list[Note]:
    """Kick, snare and cymbals, with a fill at the end of every fourth bar and a crash after it."""
    kits = [
        {
            "kick": _choose(rng, KICKS),
            "snare": _choose(rng, SNARES),
            "snare_sound": _choose(rng, (SNARE, SNARE, SIDE_STICK, CLAP)),
            "cymbal": _choose(rng, (CLOSED_HAT, CLOSED_HAT, RIDE)),
            "every": _choose(rng, (1, 2, 2, 4)),
        }
        for _ in range(2)
    ]
    notes = []

    def hit(bar: int, step: int, sound: int, accent: float) -> None:
        notes.append(Note(_humanized(rng, bar * STEPS + step), 0.2, sound, _velocity(rng, accent)))

    for bar, section in enumerate(sections):
        kit = kits[section]
        fill = bar % 4 == 3 and rng.random() < 0.8
        end = 12 if fill else STEPS
        if bar % 4 == 0 and rng.random() < 0.7:
            hit(bar, 0, CRASH, 0.6)
        for step in range(end):
            if step in kit["kick"] or rng.random() < 0.03:
                hit(bar, step, KICK, 0.9)
            if step in kit["snare"]:
                hit(bar, step, kit["snare_sound"], 0.8)
            elif rng.random() < 0.04:
                hit(bar, step, SNARE, -0.6)
            if step % kit["every"] == 0:
                sound = OPEN_HAT if kit["cymbal"] == CLOSED_HAT and rng.random() < 0.08 else kit["cymbal"]
                hit(bar, step, sound, 0.3 if step % 4 == 0 else -0.2)
        if fill:
            for index, step in enumerate(range(end, STEPS)):
                hit(bar, step, _choose(rng, (SNARE, TOMS[index], TOMS[index + 2])), 0.7)
    return notes


def _bass(rng: np.random.Generator, style: _Style, sections: list[int], chords: list[int]) -> list[Note]:
    """Roots, fifths and octaves in the section's rhythm, with a step towards the next root at the end of a bar."""
    rhythms = [_choose(rng, BASS_RHYTHMS) for _ in range(2)]
    centre, legato = float(rng.uniform(33, 43)), float(rng.uniform(0.5, 0.95))
    notes = []
    for bar, (section, degree) in enumerate(zip(sections, chords, strict=True)):
        root = _nearest(_pitch(style, degree), centre)
        fifth = root + (_pitch(style, degree + 4) - _pitch(style, degree)) % 12
        following = _nearest(_pitch(style, chords[(bar + 1) % len(chords)]), centre)
        steps = rhythms[section]
        for index, step in enumerate(steps):
            length = ((*steps, STEPS)[index + 1] - step) / 4
            pitch = root if index == 0 else int(rng.choice([root, fifth, root + 12], p=[0.6, 0.27, 0.13]))
            if index == len(steps) - 1 and step >= 8 and rng.random() < 0.35 and following != root:
                pitch = following + int(np.sign(root - following))
            start = _humanized(rng, bar * STEPS + step)
            notes.append(Note(start, length * legato, pitch, _velocity(rng, 0.6 if index == 0 else 0.2)))
    return notes


def _chords(rng: np.random.Generator, style: _Style, sections: list[int], chords: list[int]) -> list[Note]:
    """Chords near the song's register: held, strummed or broken, one style per section."""
    styles = [_choose(rng, ("held", "strummed", "strummed", "broken", "broken")) for _ in range(2)]
    rhythms = [_choose(rng, STRUMS) for _ in range(2)]
    every = [_choose(rng, (1, 2, 2)) for _ in range(2)]
    voices = (0, 2, 4, 6) if style.sevenths else (0, 2, 4)
    notes = []
    for bar, (section, degree) in enumerate(zip(sections, chords, strict=True)):
        pitches = sorted({_nearest(_pitch(style, degree + voice), style.chord_centre) for voice in voices})
        if rng.random() < 0.3:
            pitches.append(pitches[0] + 12)
        first = bar * STEPS
        if styles[section] == "held":
            notes += [Note(_humanized(rng, first), 3.9, pitch, _velocity(rng, 0.2)) for pitch in pitches]
        elif styles[section] == "strummed":
            steps = (*rhythms[section], STEPS)
            for step, stop in itertools.pairwise(steps):
                length, accent = min(0.9 * (stop - step) / 4, 1.5), float(rng.uniform(-0.2, 0.5))
                start = _humanized(rng, first + step)
                notes += [
                    Note(start + 0.01 * index, length, pitch, _velocity(rng, accent))
                    for index, pitch in enumerate(pitches)
                ]
        else:
            order = pitches + pitches[-2:0:-1]
            for index, step in enumerate(range(0, STEPS, every[section])):
                pitch = order[index % len(order)]
                notes.append(
                    Note(_humanized(rng, first + step), 0.5, pitch, _velocity(rng, 0.3 if step % 4 == 0 else 0))
                )
    return notes


def _lead(rng: np.random.Generator, style: _Style, chords: list[int]) -> list[Note]:
    """Phrases of two bars with vibrato and scoops; of four phrases, all but the third share a rhythm."""
    centre_degree = round((style.lead_centre - style.tonic) * len(style.scale) / 12)
    motifs = [_phrase_rhythm(rng, style.density) for _ in range(2)]
    degree = centre_degree
    notes = []
    for phrase in range((len(chords) + 1) // 2):
        motif = motifs[0] if phrase % 4 != 2 else motifs[1]
        if rng.random() < 0.25:
            motif = _phrase_rhythm(rng, style.density)
        for step, length in motif:
            bar = 2 * phrase + step // STEPS
            if bar >= len(chords):
                break
            # a step or a small leap, biased towards the middle of the register
            pull = np.clip((centre_degree - degree) / 4, -1, 1)
            degree += int(np.round(rng.normal(pull, 1.6)))
            if step % 8 == 0:
                # the nearest degree of the chord
                degree = next(
                    near for near in (degree, degree - 1, degree + 1) if (near - chords[bar]) % 7 in (0, 2, 4)
                )
            degree = int(np.clip(degree, centre_degree - 5, centre_degree + 5))
            sounding = 0.92 * length / 4
            notes.append(
                Note(
                    _humanized(rng, 2 * phrase * STEPS + step),
                    sounding,
                    _pitch(style, degree),
                    _velocity(rng, float(rng.uniform(0.2, 0.9))),
                    vibrato=style.vibrato if sounding > 0.4 else 0.0,
                    scoop=float(rng.uniform(60, 180)) if rng.random() < 0.35 else 0.0,
                )
            )
    return notes


def _phrase_rhythm(rng: np.random.Generator, density: float) -> list[tuple[int, int]]:
    """(start, length) in sixteenths of the notes of a two-bar phrase, which ends with a rest of one to three beats."""
    step = int(_choose(rng, (0, 0, 0, 2, 4)))
    end = 2 * STEPS - int(rng.integers(4, 13))
    notes = []
    while step < end:
        length = int(rng.choice([1, 2, 3, 4, 6, 8], p=_lengths(density)))
        length = min(length, end - step)
        if notes and rng.random() < 0.08:
            step += length  # a breath
            continue
        notes.append((step, length))
        step += length
    return notes


def _lengths(density: float) -> np.ndarray:
    """Probabilities of notes of 1, 2, 3, 4, 6 and 8 sixteenths; dense songs have short notes."""
    dense, sparse = np.array([0.2, 0.45, 0.15, 0.15, 0.05, 0.0]), np.array([0.0, 0.15, 0.15, 0.3, 0.2, 0.2])
    return density * dense + (1 - density) * sparse
