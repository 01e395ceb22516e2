"""Items of a dataset split: mixtures, their sources, and the conditions they were mixed under."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.data.manifests import MANIFEST_FORMAT
from separation.data.source_groups import Grouping
from separation.errors import UserError, nearest
from separation.experiment.nussl_signatures import DATASETS
from separation.experiment.options import DatasetOptions
from separation.files.layout import MANIFEST


@dataclass(frozen=True)
class ItemAudio:
    """One item as arrays: float32, shape (channels, samples), full scale 1.0."""

    name: str
    mixture: np.ndarray
    sources: dict[str, np.ndarray]
    conditions: dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One item as nussl AudioSignals, which carry the sample rate and the STFT parameters of the dataset options."""

    name: str
    mixture: Any
    sources: dict[str, Any]
    conditions: dict[str, Any]


@dataclass(frozen=True)
class _Events:
    """One item before grouping; each `audio` is (channels, samples)."""

    mixture: np.ndarray
    labels: list[str]
    audio: list[np.ndarray]


class Items(Sequence):
    """The items of one split; sources are grouped, ignored and ordered by the dataset options.

    In every item the sources have the order of `source_labels`. Without it, they have the alphabetical order of their
    names after grouping, which is nussl's, so that the outputs of a mask network mean the same in both.

    Args:
        split: `folder`, `class` (a class of nussl.datasets) and, in `arguments`, arguments of that class. `dataset` and
            `split` are optional names. A Scaper folder with a manifest.json is read by the manifest, which is faster
            than by its JAMS files; nussl opens everything else.
        options: Audio format, STFT parameters and grouping of the sources.

    Attributes:
        names: Names of the items.
        dataset, split: Names of the dataset and the split: from `split`, else from the manifest and the folder.

    Raises:
        UserError: The split cannot be opened or read, or does not agree with the options.
    """

    def __init__(self, split: Mapping[str, Any], options: DatasetOptions):
        self.folder = Path(split["folder"])
        if not self.folder.is_dir():
            raise UserError("expected a folder with a dataset, found none", file=self.folder)
        self._options, self._grouping = options, Grouping.from_options(options)
        name = split.get("class") or "Scaper"
        arguments = dict(split.get("arguments") or {})
        if name == "Scaper" and not arguments and (self.folder / MANIFEST).is_file():
            self._reader: Any = _ManifestReader(self.folder, options)
        else:
            self._reader = _DatasetReader(self.folder, name, arguments, options)
        self.names: list[str] = self._reader.names
        self.dataset: str = split.get("dataset") or self.folder.resolve().parent.name
        self.split: str = split.get("split") or self._reader.split or self.folder.name
        if self.names:
            self._grouping.check(self._reader.labels, file=self._reader.file)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        # nussl takes seconds to import, and processes that read arrays only do not need it
        from separation.nussl_compat import nussl

        audio = self.arrays(index)
        parameters = nussl.STFTParams(
            window_length=self._options.n_fft,
            hop_length=self._options.hop_length,
            window_type=self._options.window_type,
        )

        def signal_of(array: np.ndarray, label: str) -> Any:
            signal = nussl.AudioSignal(
                audio_data_array=array, sample_rate=self._reader.sample_rate, stft_params=parameters, label=label
            )
            signal.path_to_input_file = label  # nussl's evaluators name a source by its path
            return signal

        sources = {label: signal_of(array, label) for label, array in audio.sources.items()}
        return Item(audio.name, signal_of(audio.mixture, "mixture"), sources, audio.conditions)

    def arrays(self, index: int) -> ItemAudio:
        """The item at `index` as arrays, without nussl.

        Raises:
            IndexError: There is no such item.
            UserError: A file is missing, unreadable or does not agree with the dataset options.
        """
        index = range(len(self))[index]
        name = self.names[index]
        events = self._reader.read(index)
        plan = self._grouping.plan(events.labels, file=self._reader.file, item=name)
        for label, audio in zip(events.labels, events.audio, strict=True):
            if audio.shape != events.mixture.shape:
                raise UserError(
                    f"source {label!r} of item {name}: expected {_shape(events.mixture)} as in the mixture, "
                    f"found {_shape(audio)}",
                    file=self._reader.file,
                )
        sources = {source: _sum([events.audio[event] for event in members]) for source, members in plan.items()}
        return ItemAudio(name, events.mixture, sources, self.conditions(index))

    def conditions(self, index: int) -> dict[str, Any]:
        """The conditions that item `index` was mixed under, as flat scalars; a list of names is joined by "+"."""
        found = self._reader.conditions(index)
        return {
            key: "+".join(str(part) for part in dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value
            for key, value in found.items()
            if not isinstance(value, Mapping)
        }


class _ManifestReader:
    """Reads a folder by its manifest.json: one JSON file, then only the audio files of the requested items."""

    def __init__(self, folder: Path, options: DatasetOptions):
        self.file = folder / MANIFEST
        try:
            manifest = json.loads(self.file.read_text(encoding="utf-8"))
            self._items = manifest["items"]
            self.names = [item["name"] for item in self._items]
            self.sample_rate = int(manifest["sample_rate"])
            self.labels = {label.split("::")[0] for item in self._items for label in item["sources"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"not the manifest of a dataset split: {error!r}", file=self.file) from error
        if manifest.get("format") != MANIFEST_FORMAT:
            raise UserError(f"expected {MANIFEST_FORMAT}, found {manifest.get('format')}", file=self.file, key="format")
        self._folder, self._options = folder, options
        self.split = manifest.get("split")
        _check_format(self.file, self.sample_rate, int(manifest.get("num_channels", 1)), options)

    def conditions(self, index: int) -> dict[str, Any]:
        return self._items[index].get("conditions", {})

    def read(self, index: int) -> _Events:
        item = self._items[index]
        labels = [label.split("::")[0] for label in item["sources"]]
        return _Events(self._load(item["mixture"]), labels, [self._load(path) for path in item["sources"].values()])

    def _load(self, name: str) -> np.ndarray:
        path = self._folder / name
        try:
            with soundfile.SoundFile(path) as source:
                rate = source.samplerate
                if source.subtype == "PCM_16":
                    # the same numbers as reading float32, in a third of the time
                    audio = source.read(dtype="int16", always_2d=True) * np.float32(2**-15)
                else:
                    audio = source.read(dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise UserError(f"cannot be read: {error}", file=path) from error
        # a file may have been replaced after the manifest was written
        _check_format(path, rate, audio.shape[1], self._options)
        return np.ascontiguousarray(audio.T)


class _DatasetReader:
    """Reads a folder by a class of nussl.datasets."""

    split = None

    def __init__(self, folder: Path, name: str, arguments: Mapping[str, Any], options: DatasetOptions):
        from separation.nussl_compat import nussl

        if name not in DATASETS:
            hint = nearest(name, DATASETS)
            raise UserError(f"expected one of {', '.join(DATASETS)}, found {name!r}{hint}", key="class")
        self.file, self._options = folder, options
        try:
            self._dataset = getattr(nussl.datasets, name)(str(folder), **arguments)
            first = self._dataset[0] if len(self._dataset) else {"sources": {}}
        except Exception as error:  # each class raises its own errors for an unfit folder
            raise UserError(f"nussl.datasets.{name} cannot open it: {error!r}", file=folder) from error
        self.names = _names(self._dataset.items)
        self.sample_rate = first["mix"].sample_rate if self.names else options.sample_rate
        self.labels = {label.split("::")[0] for label in first["sources"]}
        self.labels |= set(first.get("metadata", {}).get("labels") or [])
        self._latest: tuple[int, dict] | None = None

    def _item(self, index: int) -> dict:
        # reading may be slow and gives both audio and conditions
        if self._latest is None or self._latest[0] != index:
            try:
                self._latest = index, self._dataset[index]
            except Exception as error:
                raise UserError(f"item {self.names[index]} cannot be read: {error!r}", file=self.file) from error
        return self._latest[1]

    def conditions(self, index: int) -> dict[str, Any]:
        jams = self._item(index).get("metadata", {}).get("scaper")
        if jams is None:
            return {}
        events = [event.value for event in jams.annotations.search(namespace="scaper")[0]]
        events = [event for event in events if event["role"] == "foreground"]
        labels = [event["label"] for event in events]
        found: dict[str, Any] = {"labels": "+".join(sorted(labels))}
        for number, event in enumerate(events):
            name = event["label"] if labels.count(event["label"]) == 1 else str(number)
            found[f"snr_{name}"] = float(event["snr"])
            for effect in ("pitch_shift", "time_stretch"):
                if event.get(effect) is not None:
                    found[f"{effect}_{name}"] = float(event[effect])
        return found

    def read(self, index: int) -> _Events:
        item = self._item(index)
        for label, signal in {"the mixture": item["mix"], **item["sources"]}.items():
            file = signal.path_to_input_file or f"{self.file}, {label} of item {self.names[index]}"
            _check_format(file, signal.sample_rate, signal.num_channels, self._options)
        arrays = [np.asarray(signal.audio_data, dtype=np.float32) for signal in item["sources"].values()]
        labels = [label.split("::")[0] for label in item["sources"]]
        return _Events(np.asarray(item["mix"].audio_data, dtype=np.float32), labels, arrays)


def _check_format(file: str | Path, sample_rate: int, num_channels: int, options: DatasetOptions) -> None:
    for key, expected, found, unit in (
        ("sample_rate", options.sample_rate, sample_rate, " Hz"),
        ("num_channels", options.num_channels, num_channels, ""),
    ):
        if expected != found:
            raise UserError(f"expected {expected}{unit}, found {found}{unit}", file=file, key=f"dataset_config.{key}")


def _names(items: Sequence[Any]) -> list[str]:
    if not all(isinstance(item, str) for item in items):
        return [f"{index:06d}" for index in range(len(items))]
    stems = [Path(item).stem for item in items]
    return stems if len(set(stems)) == len(stems) else [item.replace("/", "_") for item in items]


def _sum(arrays: list[np.ndarray]) -> np.ndarray:
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total


def _shape(audio: np.ndarray) -> str:
    return f"{audio.shape[0]} x {audio.shape[1]} samples"
