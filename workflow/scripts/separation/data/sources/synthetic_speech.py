"""Synthetic voices: random syllables from a source-filter synthesizer, for machines without real recordings.

A voice is a pulse train with a wandering pitch, or noise, through resonators at the formants of vowels and consonants,
after the cascade branch of D. H. Klatt, "Software for a cascade/parallel formant synthesizer", J. Acoust. Soc. Am. 67
(3), 1980. The syllables have no meaning in any language; pitch, formants, rhythm and pauses are those of speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 16000
ATTRIBUTION = """\
The utterances in this folder were made by this workflow: synthetic voices, no recordings of anybody. They take the
place of real recordings where those cannot be had, and results on them are no results on speech. They are in the public
domain (CC0-1.0, https://creativecommons.org/publicdomain/zero/1.0/).
"""
_FRAME = 0.01  # seconds between changes of the filters
# first three formants of vowels of a man, Hz (rounded from G. E. Peterson, H. L. Barney, "Control methods used in a
# study of the vowels", J. Acoust. Soc. Am. 24 (2), 1952)
_VOWELS = np.array(
    [[270, 2290, 3010], [390, 1990, 2550], [530, 1840, 2480], [660, 1720, 2410], [730, 1090, 2440],
     [570, 840, 2410], [440, 1020, 2240], [300, 870, 2240], [640, 1190, 2390], [490, 1350, 1690]]
)  # fmt: skip
_BANDWIDTHS = np.array([70.0, 100.0, 140.0, 250.0])


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes:
        pitch: Mean pitch in Hz.
        span: Range of the pitch in semitones.
        formants: Formant frequencies relative to a man's.
        rate: Syllables per second.
        breath: Breathiness.
        tilt: Spectral tilt of the glottal pulses, 0 to 1.
    """

    pitch: float
    span: float
    formants: float
    rate: float
    breath: float
    tilt: float


VOICES = {
    "voice_0": Voice(105, 5, 0.98, 4.6, 0.02, 0.93),
    "voice_1": Voice(205, 7, 1.17, 5.2, 0.06, 0.90),
    "voice_2": Voice(132, 4, 1.04, 5.8, 0.03, 0.95),
    "voice_3": Voice(240, 8, 1.22, 4.4, 0.04, 0.86),
    "voice_4": Voice(178, 6, 1.12, 4.9, 0.08, 0.92),
    "voice_5": Voice(92, 5, 0.94, 4.2, 0.02, 0.91),
}


def utterance(voice: Voice, duration: float, rng: np.random.Generator) -> np.ndarray:
    """One utterance of a voice: phrases of syllables with short pauses.

    Args:
        voice: The speaker.
        duration: Length in seconds.
        rng: Random generator for all choices.

    Returns:
        float64 (frames,) at SAMPLE_RATE, peak 0.7.
    """
    frames = round(duration / _FRAME)
    voiced, noise, formants, hiss = (np.zeros(frames), np.zeros(frames), np.zeros((frames, 3)), np.full(frames, 4000.0))
    formants[:] = _VOWELS[6]
    at = 0
    while at < frames:
        at = _syllable(voice, rng, at, voiced, noise, formants, hiss)
        if rng.random() < 0.12:
            at += round(rng.uniform(0.12, 0.35) / _FRAME)
    smooth = np.hanning(7) / np.hanning(7).sum()
    voiced, noise = (np.convolve(track, smooth, mode="same") for track in (voiced, noise))
    wide = np.hanning(9) / np.hanning(9).sum()
    formants = np.stack([np.convolve(np.pad(each, 4, mode="edge"), wide, mode="valid") for each in formants.T], axis=1)
    audio = _synthesize(voice, rng, voiced, noise, formants * voice.formants, hiss)[: round(duration * SAMPLE_RATE)]
    audio = np.pad(audio, (0, round(duration * SAMPLE_RATE) - len(audio)))
    return 0.7 * audio / np.abs(audio).max()


def _syllable(
    voice: Voice, rng: np.random.Generator, at: int, voiced: np.ndarray, noise: np.ndarray, formants: np.ndarray,
    hiss: np.ndarray,
) -> int:  # fmt: skip
    """Writes a consonant, a vowel and sometimes a final consonant from frame `at` on; returns the frame after them."""
    length = rng.lognormal(0, 0.25) / voice.rate
    vowel = _VOWELS[rng.integers(len(_VOWELS))] * rng.normal(1, 0.03, 3)
    following = _VOWELS[rng.integers(len(_VOWELS))] if rng.random() < 0.2 else vowel
    kinds = ["fricative", "stop", "nasal", "glide"]
    parts = [(kinds[rng.choice(4, p=[0.3, 0.35, 0.2, 0.15])], 0.35), ("vowel", 0.65)]
    if rng.random() < 0.3:
        parts = [(parts[0][0], 0.28), ("vowel", 0.5), (kinds[rng.choice(4, p=[0.45, 0.2, 0.35, 0.0])], 0.22)]
    loud = rng.uniform(0.6, 1.0)
    for kind, share in parts:
        count = max(2, round(share * length / _FRAME))
        part = slice(at, min(at + count, len(voiced)))
        size = part.stop - part.start
        if size <= 0:
            break
        if kind == "vowel":
            voiced[part] = loud
            formants[part] = np.linspace(vowel, following, count)[:size]
        elif kind == "fricative":
            noise[part] = rng.uniform(0.15, 0.4)
            hiss[part] = rng.uniform(2200, 6500)
            voiced[part] = rng.choice([0.0, 0.25])
            formants[part] = vowel
        elif kind == "stop":
            burst = max(part.start, part.stop - 2)
            noise[burst : part.stop], hiss[burst : part.stop] = rng.uniform(0.2, 0.5), rng.uniform(1500, 4500)
            formants[part] = vowel * np.array([0.5, 1.0, 1.0])
        else:
            voiced[part] = loud * (0.35 if kind == "nasal" else 0.6)
            formants[part] = (280, rng.uniform(900, 1600), 2300) if kind == "nasal" else vowel * [0.6, 0.85, 0.95]
        at += count
    return at


def _synthesize(
    voice: Voice, rng: np.random.Generator, voiced: np.ndarray, noise: np.ndarray, formants: np.ndarray,
    hiss: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Pulses and noise through the resonators."""
    from scipy.signal import lfilter

    step = round(_FRAME * SAMPLE_RATE)
    frames = len(voiced)
    time = np.arange(frames) * _FRAME
    # pitch falls during the utterance and varies with every word
    knots = np.arange(0, time[-1] + 0.6, 0.3)
    wander = np.interp(time, knots, rng.normal(0, voice.span / 4, len(knots)))
    pitch = voice.pitch * 2 ** ((wander + voice.span * (0.25 - 0.4 * time / time[-1])) / 12)
    samples = np.arange(frames * step)
    pitch = np.interp(samples, np.arange(frames) * step, pitch) * (1 + 0.006 * rng.standard_normal(frames * step))
    phase = np.cumsum(pitch / SAMPLE_RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = lfilter([1 - voice.tilt], [1, -voice.tilt], pulses) * 6
    white = rng.standard_normal(frames * step)
    level = np.interp(samples, np.arange(frames) * step, voiced)
    excitation = level * (source + voice.breath * white)
    fourth = np.full((frames, 1), 3500.0 * voice.formants)
    tracks = np.minimum(np.concatenate([formants, fourth], axis=1), 0.47 * SAMPLE_RATE)
    spoken = _resonate(excitation, tracks, _BANDWIDTHS, step)
    hissed = np.interp(samples, np.arange(frames) * step, noise) * white
    return spoken / (np.abs(spoken).max() + 1e-9) + 0.35 * _resonate(hissed, hiss[:, None], np.array([900.0]), step)


def _resonate(signal: np.ndarray, centres: np.ndarray, bandwidths: np.ndarray, step: int) -> np.ndarray:
    """Cascaded resonators (Klatt 1980, equation 1) whose centres (frames, resonators) change every `step` samples.

    Windows of two steps, overlapping by one, are filtered with their own response and added.
    """
    from scipy.signal import get_window

    frames = len(centres)
    window = get_window("hann", 2 * step)
    padded = np.pad(signal, (0, step))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * step)[::step][:frames] * window
    size = 4 * step  # room for the resonators to ring
    unit = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    radius = np.exp(-np.pi * bandwidths / SAMPLE_RATE)
    second = -(radius**2)
    first = 2 * radius * np.cos(2 * np.pi * centres / SAMPLE_RATE)
    response = np.ones((frames, len(unit)), dtype=complex)
    for number in range(centres.shape[1]):
        gain = 1 - first[:, number] - second[number]
        response *= gain[:, None] / (1 - first[:, number, None] * unit - second[number] * unit**2)
    filtered = np.fft.irfft(np.fft.rfft(windows, size) * response, size)
    result = np.zeros((frames + 3) * step)
    for offset in range(4):
        result[offset * step : (offset + frames) * step] += filtered[:, offset * step : (offset + 1) * step].ravel()
    return result[: len(signal)]
