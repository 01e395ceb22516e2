"""Toy speech: utterances of several speakers, from real recordings or synthetic voices."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.data.manifests import write_audio
from separation.data.sources import synthetic_speech
from separation.data.sources.debian_speech import attribution_of_packages, recordings_of_packages
from separation.errors import UserError
from separation.experiment.ids import seed_from_text
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
# speakers whom the packages describe as female, and synthetic voices with their pitch and formants
FEMALE = frozenset({"allison_en", "june_fr", "ivrvoice_ru", "fish_small_cs", "voice_1", "voice_3", "voice_4"})
# speakers who are only in the test split for `test_speakers: unseen`: one woman and one man of each kind
UNSEEN = {"debian": ("ivrvoice_ru", "fish_big_cs"), "synthetic": ("voice_4", "voice_5")}
UTTERANCES_PER_PROCESS = 100


def build_toy_speech(
    args: dict[str, Any], folder: Path, workers: int, downloads: Path, offline: bool
) -> dict[str, Any]:
    """Writes the utterances of all splits as `<split>/<speaker>/<utterance>.wav`, mono, 16 bits.

    The classes are `female` and `male` (`classes: voice`), or only `speech` (`one`); in a mixture, sources of the same
    class have different speakers. No utterance is in two splits. The test split has the speakers of the training split
    (`test_speakers: seen`), or others (`unseen`).

    Args:
        args: `recordings` (debian: recordings from Debian packages; synthetic: synthetic voices), `seed`, `utterances`
            (greatest number per speaker, by split), `min_duration` and `max_duration` of an utterance (s),
            `test_speakers`, `classes`; see DEFAULTS.
        folder: Folder of the splits.
        workers: Number of processes; the files are the same bytes for any number.
        downloads: Folder of the packages.
        offline: Whether downloads are forbidden.

    Returns:
        `files`: one dict per utterance; `attribution`: speakers and licences.

    Raises:
        UserError: An argument is unknown or out of range, or recordings are unavailable.
    """
    settings = _settings_of(args)
    if settings["recordings"] == "debian":
        recordings = recordings_of_packages(downloads, offline=offline)
        usable = {speaker: _usable_recordings(named, settings) for speaker, named in recordings.items()}
        chosen = _choose_utterances(usable, settings)
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
            for split, voice, numbers in _choose_utterances(voices, settings)
            for number in numbers
        ]  # fmt: skip
        files = run_in_order(write_synthetic, calls, workers=workers, share=UTTERANCES_PER_PROCESS, items="utterances")
        attribution = synthetic_speech.ATTRIBUTION
    return {"files": files, "attribution": attribution}


def _settings_of(args: dict[str, Any]) -> dict[str, Any]:
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


def _usable_recordings(named: list[tuple[str, Path]], settings: dict[str, Any]) -> dict[str, Path]:
    """The recordings within the allowed durations, by name."""
    durations = {name: soundfile.info(path).duration for name, path in named}
    return {
        name: path for name, path in named if settings["min_duration"] <= durations[name] <= settings["max_duration"]
    }


def _choose_utterances(usable: dict[str, Any], settings: dict[str, Any]) -> list[tuple[str, str, list]]:
    """(split, speaker, utterances): each speaker's utterances, shuffled by the seed and divided among the splits.

    The test split takes its share first: more training utterances do not change it.
    """
    unseen = UNSEEN[settings["recordings"]] if settings["test_speakers"] == "unseen" else ()
    chosen = []
    for speaker, names in usable.items():
        order = np.random.default_rng([settings["seed"], seed_from_text(speaker)]).permutation(len(names))
        names = [list(names)[index] for index in order]
        first = 0
        for split in sorted(settings["utterances"], key=lambda name: (name != "test", name != "val", name)):
            count = settings["utterances"][split]
            if not unseen or (split == "test") == (speaker in unseen):
                chosen.append((split, speaker, names[first : first + count]))
            first += count
    return chosen


def write_recording(split: str, label: str, speaker: str, name: str, path: Path, folder: Path) -> dict[str, Any]:
    """Writes one recording as a 16-bit WAV file at its own rate; returns its manifest entry."""
    audio, sample_rate = soundfile.read(path, dtype="float64", always_2d=True)
    return _write(split, label, speaker, name, audio.mean(axis=1), sample_rate, folder)


def write_synthetic(
    split: str, label: str, voice: str, number: int, settings: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Synthesizes and writes one utterance; returns its manifest entry."""
    spread = min(settings["max_duration"], 3 * settings["min_duration"]) - settings["min_duration"]
    rng = np.random.default_rng([settings["seed"], list(synthetic_speech.VOICES).index(voice), number])
    duration = settings["min_duration"] + spread * rng.random()
    audio = synthetic_speech.utterance(synthetic_speech.VOICES[voice], duration, rng)
    return _write(split, label, voice, f"{number:04d}", audio, synthetic_speech.SAMPLE_RATE, folder)


def _write(
    split: str, label: str, speaker: str, name: str, audio: np.ndarray, sample_rate: int, folder: Path
) -> dict[str, Any]:  # fmt: skip
    path, song = f"{split}/{speaker}/{name}.wav", f"{speaker}.{name}"
    entry = {"path": path, "split": split, "song": song, "class": label, "speaker": speaker}
    return write_audio(folder, entry, audio, sample_rate)
