"""Utterances of several speakers, from real recordings or synthetic voices, in splits that share no utterance."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.data.audio.pcm import to_pcm, write_pcm_atomically
from separation.data.sources import synthetic_speech
from separation.data.sources.debian_speech import attribution_of_packages, recordings_of_packages
from separation.errors import UserError
from separation.experiment.ids import text_number
from separation.files.atomic import sha256_of
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)

DEFAULTS: dict[str, Any] = {
    "recordings": "debian",
    "seed": 0,
    "utterances": {"train": 100, "val": 16, "test": 24},
    "min_duration": 2.5,
    "max_duration": 12.0,
    "test_speakers": "seen",
    "classes": "voice",
}
# of whom the recordings are, as their packages say or as the voices are made
FEMALE = frozenset({"allison_en", "june_fr", "ivrvoice_ru", "fish_small_cs", "voice_1", "voice_3", "voice_4"})
# speakers of the test split alone, where they are to be unseen: one woman and one man of each kind of recordings
UNSEEN = {"debian": ("ivrvoice_ru", "fish_big_cs"), "synthetic": ("voice_4", "voice_5")}
UTTERANCES_PER_PROCESS = 100


def build_toy_speech(
    args: dict[str, Any], folder: Path, workers: int, downloads: Path, offline: bool
) -> dict[str, Any]:
    """Writes the utterances of all splits as `<split>/<speaker>/<utterance>.wav`, mono, 16 bits.

    Their classes are `female` and `male` (`classes: voice`), or all are of the class `speech` (`one`); mixtures take
    several sources of one class from different speakers. No utterance is in two splits.
    Speakers of the test split are those of the training split (`test_speakers: seen`), or others (`unseen`).

    Args:
        args: `recordings` (debian: recordings out of Debian's packages; synthetic: voices that the workflow makes),
            `seed`, `utterances` (per split: for each speaker at most), `min_duration` and `max_duration` of an
            utterance (s), `test_speakers`, `classes`; DEFAULTS where left out.
        folder: where the splits go.
        workers: number of processes; the files are the same bytes for any.
        downloads: where packages are kept.
        offline: fetch nothing.

    Returns:
        `files`: one dict per utterance, `attribution`: by whom they are, and their licence.

    Raises:
        UserError: an argument is unknown or out of range, or recordings cannot be had.
    """
    settings = _checked(args)
    if settings["recordings"] == "debian":
        recordings = recordings_of_packages(downloads, offline=offline)
        usable = {speaker: _usable(named, settings) for speaker, named in recordings.items()}
        chosen = _chosen(usable, settings)
        calls = [
            (split, _class(speaker, settings), speaker, name, usable[speaker][name], folder)
            for split, speaker, names in chosen
            for name in names
        ]  # fmt: skip
        files = run_in_order(write_recording, calls, workers=workers, share=UTTERANCES_PER_PROCESS, items="utterances")
        attribution = attribution_of_packages()
    else:
        voices = {voice: range(sum(settings["utterances"].values())) for voice in synthetic_speech.VOICES}
        calls = [
            (split, _class(voice, settings), voice, number, settings, folder)
            for split, voice, numbers in _chosen(voices, settings)
            for number in numbers
        ]  # fmt: skip
        files = run_in_order(write_synthetic, calls, workers=workers, share=UTTERANCES_PER_PROCESS, items="utterances")
        attribution = synthetic_speech.ATTRIBUTION
    return {"files": files, "attribution": attribution}


def _checked(args: dict[str, Any]) -> dict[str, Any]:
    settings = DEFAULTS | args
    for key, allowed in {
        "recordings": ("debian", "synthetic"),
        "test_speakers": ("seen", "unseen"),
        "classes": ("voice", "one"),
    }.items():
        if settings[key] not in allowed:
            raise UserError(f"expected {' or '.join(allowed)}, found {settings[key]!r}", key=f"source.args.{key}")
    unknown = sorted(set(settings) - set(DEFAULTS))
    if unknown:
        raise UserError(f"unknown key; expected one of {', '.join(DEFAULTS)}", key=f"source.args.{unknown[0]}")
    if not settings["max_duration"] >= settings["min_duration"] > 0:
        raise UserError(
            f"expected at least min_duration, {settings['min_duration']}, found {settings['max_duration']}",
            key="source.args.max_duration",
        )
    return settings


def _class(speaker: str, settings: dict[str, Any]) -> str:
    if settings["classes"] == "one":
        return "speech"
    return "female" if speaker in FEMALE else "male"


def _usable(named: list[tuple[str, Path]], settings: dict[str, Any]) -> dict[str, Path]:
    """The recordings that are neither too short nor too long, by name."""
    durations = {name: soundfile.info(path).duration for name, path in named}
    return {
        name: path for name, path in named if settings["min_duration"] <= durations[name] <= settings["max_duration"]
    }


def _chosen(usable: dict[str, Any], settings: dict[str, Any]) -> list[tuple[str, str, list]]:
    """(split, speaker, utterances): each speaker's utterances in an order drawn from the seed, dealt out to the splits.

    The test split takes its share first, so that asking for more training utterances leaves it as it was.
    """
    unseen = UNSEEN[settings["recordings"]] if settings["test_speakers"] == "unseen" else ()
    chosen = []
    for speaker, names in usable.items():
        order = np.random.default_rng([settings["seed"], text_number(speaker)]).permutation(len(names))
        names = [list(names)[place] for place in order]
        first = 0
        for split in sorted(settings["utterances"], key=lambda name: (name != "test", name != "val", name)):
            count = settings["utterances"][split]
            if not unseen or (split == "test") == (speaker in unseen):
                chosen.append((split, speaker, names[first : first + count]))
            first += count
    return chosen


def write_recording(split: str, label: str, speaker: str, name: str, path: Path, folder: Path) -> dict[str, Any]:
    """Writes one recording as a WAV file of 16 bits at its own rate; its entry of the manifest."""
    audio, sample_rate = soundfile.read(path, dtype="float64", always_2d=True)
    return _written(split, label, speaker, name, audio.mean(axis=1), sample_rate, folder)


def write_synthetic(
    split: str, label: str, voice: str, number: int, settings: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Makes and writes one synthetic utterance; its entry of the manifest."""
    spread = min(settings["max_duration"], 3 * settings["min_duration"]) - settings["min_duration"]
    rng = np.random.default_rng([settings["seed"], list(synthetic_speech.VOICES).index(voice), number])
    duration = settings["min_duration"] + spread * rng.random()
    audio = synthetic_speech.utterance(synthetic_speech.VOICES[voice], duration, rng)
    return _written(split, label, voice, f"{number:04d}", audio, synthetic_speech.SAMPLE_RATE, folder)


def _written(
    split: str, label: str, speaker: str, name: str, audio: np.ndarray, sample_rate: int, folder: Path
) -> dict[str, Any]:  # fmt: skip
    relative = f"{split}/{speaker}/{name}.wav"
    write_pcm_atomically(folder / relative, to_pcm(audio), sample_rate)
    return {
        "path": relative,
        "split": split,
        "song": f"{speaker}.{name}",
        "class": label,
        "speaker": speaker,
        "frames": len(audio),
        "sample_rate": sample_rate,
        "size": (folder / relative).stat().st_size,
        "sha256": sha256_of(folder / relative),
    }
