"""MUSDB18: .stem.mp4 files of the full dataset or its 7 s previews, or WAV files of MUSDB18-HQ.

Z. Rafii, A. Liutkus, F.-R. Stöter, S. I. Mimilakis, R. Bittner, "The MUSDB18 corpus for music separation", 2017.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from separation.data.audio.pcm import to_pcm, write_pcm
from separation.data.organizing.file_checks import measure_file
from separation.data.sources.access import Access, folders_of
from separation.data.sources.folders import attribution_of
from separation.errors import UserError
from separation.files.atomic import link_atomically
from separation.machine.parallel import run_in_order

logger = logging.getLogger(__name__)

STEMS = ("drums", "bass", "other", "vocals")  # the order in a .stem.mp4 file, after the mixture
SAMPLE_RATE = 44100


def build_musdb(source: dict[str, Any], folder: Path, access: Access) -> dict[str, Any]:
    """Writes or links the stems of MUSDB18 as `<split>/<track>/<stem>.wav`: train, val and test.

    The validation tracks are those that the package musdb lists, from the folder `train`.

    Args:
        source: Source section of a recipe, as it enters ids.
        folder: Folder of the splits.
        access: How the source is reached.

    Returns:
        `files`: class, song, split and the result of file_checks.measure_file for each; `attribution`.

    Raises:
        UserError: The folder is not that of MUSDB18, a file cannot be decoded, or ffmpeg is missing.
    """
    roots = folders_of(access)
    (root,) = roots.values()
    calls = _tracks(_root(root))
    if any(path.suffix == ".mp4" for _, path in calls) and not shutil.which("ffmpeg"):
        raise UserError(
            "decoding .stem.mp4 files needs the program ffmpeg (Debian, Ubuntu: apt install ffmpeg); MUSDB18-HQ does "
            "not need it",
            file=root,
        )
    tracks = run_in_order(write_track, [(*call, folder) for call in calls], workers=access.workers, items="tracks")
    return {
        "name": source["name"],
        "files": [entry for track in tracks for entry in track],
        "attribution": attribution_of(source, roots),
        "times": True,
    }


def _root(root: Path) -> Path:
    """The folder with `train` and `test`, which may be inside another, as in archives."""
    inner = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    found = [path for path in inner if (path / "train").is_dir() and (path / "test").is_dir()]
    if not found:
        raise UserError("expected the folders train and test of MUSDB18, found none", file=root)
    return found[0]


def _tracks(root: Path) -> list[tuple[str, Path]]:
    """(split, .stem.mp4 file or folder of stems) of each track."""
    validation = set(_validation_tracks())
    found = []
    for subset in ("train", "test"):
        for path in sorted((root / subset).iterdir()):
            name = path.name.removesuffix(".stem.mp4")
            if path.name.endswith(".stem.mp4") or (path.is_dir() and (path / "vocals.wav").is_file()):
                found.append(("val" if subset == "train" and name in validation else subset, path))
    if not found:
        raise UserError("expected tracks, .stem.mp4 files or folders with stems, found none", file=root / "train")
    return found


def _validation_tracks() -> list[str]:
    # located, not imported: importing musdb is slow
    package = importlib.util.find_spec("musdb")
    setup = Path(package.origin).parent / "configs" / "mus.yaml"
    return yaml.safe_load(setup.read_text(encoding="utf-8"))["validation_tracks"]


def write_track(split: str, path: Path, folder: Path) -> list[dict[str, Any]]:
    """Links or decodes the stems of one track.

    Returns:
        The manifest entries of the stems.

    Raises:
        UserError: A file cannot be decoded, or does not have five streams.
    """
    song = path.name.removesuffix(".stem.mp4")
    track = folder / split / song
    track.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        for stem in STEMS:
            if (path / f"{stem}.wav").exists():
                link_atomically(track / f"{stem}.wav", str((path / f"{stem}.wav").absolute()))
    else:
        for stem, audio in zip(STEMS, _decode(path)[1:], strict=True):
            write_pcm(track / f"{stem}.wav", to_pcm(audio), SAMPLE_RATE)
    return [
        {"path": f"{split}/{song}/{stem}.wav", "split": split, "song": song, "class": stem}
        | measure_file(track / f"{stem}.wav")
        for stem in sorted(STEMS)
        if (track / f"{stem}.wav").exists()
    ]


def _decode(path: Path) -> Any:
    """The streams of a .stem.mp4 file, (5, frames, 2): mixture, drums, bass, other, vocals."""
    import stempeg

    try:
        streams, rate = stempeg.read_stems(str(path))
    except Exception as error:  # ffmpeg and its wrappers raise various types for a damaged file
        raise UserError(f"cannot be decoded: {error}", file=path) from error
    if streams.ndim != 3 or len(streams) != 1 + len(STEMS) or rate != SAMPLE_RATE:
        raise UserError(f"expected five streams of {SAMPLE_RATE} Hz, found {streams.shape} of {rate} Hz", file=path)
    return streams
