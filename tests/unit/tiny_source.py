"""The source of the recipe tiny_music, built in a few seconds, and other small sources."""

import copy
import functools
import hashlib
import json
from pathlib import Path

import soundfile
import yaml

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def _read(name):
    return yaml.safe_load((ROOT / "config" / "datasets" / f"{name}.yml").read_text(encoding="utf-8"))


def recipe(name="tiny_music"):
    """A copy of a recipe in config/datasets."""
    return copy.deepcopy(_read(name))


def mixing_spec(name="tiny_music", **changes):
    """The spec of mix_dataset for a recipe, with some keys changed."""
    return {key: value for key, value in recipe(name).items() if key not in ("source", "organize")} | changes


def build_source(folder, *, workers=1, name="tiny_music", args=None):
    """Builds the source of a recipe below a folder; returns the manifests of its three steps."""
    from separation.data.fetch import fetch_source
    from separation.data.organize import organize_source
    from separation.data.resample import resample_source

    given = recipe(name)
    given["source"]["args"] |= args or {}
    fetched, organized, resampled = (folder / step / "manifest.json" for step in ("fetched", "organized", "resampled"))
    fetch_source({"source": given["source"]}, fetched, workers)
    organize_source({"organize": given["organize"]}, fetched, organized)
    resample_source({"sample_rate": given["sample_rate"]}, organized, resampled, workers)
    return fetched, organized, resampled


def write_source(folder, files):
    """A source of some files, as fetch_source leaves it; the manifest's path.

    Args:
        folder: Folder of the manifest.
        files: (name, audio, sample rate) of each file, whose class is its name.
    """
    entries = []
    for name, audio, sample_rate in files:
        path = folder / "train" / "song" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio, sample_rate, subtype="FLOAT")
        entry = {"path": f"train/song/{name}.wav", "split": "train", "song": "song", "class": name}
        entry |= {"frames": len(audio), "sample_rate": sample_rate, "size": path.stat().st_size}
        entries.append(entry | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"files": entries, "attribution": "nobody"}))
    return manifest


def bytes_below(folder, suffix=""):
    """The content of every file below a folder with this suffix, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob(f"*{suffix}"))
        if path.is_file()
    }
