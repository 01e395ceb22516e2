"""Data that a tracker receives of a point, and the part of it that was not sent yet.

Everything comes from the point's folder: its event log, config.yml, and the estimates that evaluations kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.experiment.ids import digest
from separation.experiment.key_paths import flatten
from separation.files.atomic import read_json, sha256_of
from separation.files.layout import PointFolder
from separation.files.yaml_reader import read_yaml
from separation.tracking.sent import Sent
from separation.training.events import Event, iterate_metrics


@dataclass(frozen=True)
class Description:
    """Name and settings of a run.

    Attributes:
        point: Id of the point.
        name: Settings that distinguish it from the sweep's other points.
        project: info.project_name, else the sweep's name.
        tags: Point, sweep, method and dataset.
        notes: Notes of the experiment.
        parameters: The whole config, by dotted key.
    """

    point: str
    name: str
    project: str
    tags: tuple[str, ...]
    notes: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Metrics:
    """Metrics of a step (counted over all epochs), or of an epoch (counted from 1) at its last step."""

    kind: str
    step: int
    epoch: int
    values: Mapping[str, float]

    @property
    def number(self) -> int:
        """The step's or the epoch's number."""
        return self.step if self.kind == "step" else self.epoch


@dataclass(frozen=True)
class File:
    """A file of a run; `kind` is file, image or audio."""

    name: str
    path: Path
    kind: str


@dataclass
class Batch:
    """Data that a tracker has not received; `changes` are the values to record in `Sent` once it has."""

    description: Description | None = None
    metrics: list[Metrics] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def parts(self, size: int = 2000) -> Iterator[Batch]:
        """Splits the batch by kind, and metrics into parts of `size` steps, so that a rejected part does not cause the
        others to be sent again."""
        if self.description is not None:
            yield Batch(self.description, changes={"described": True})
        for first in range(0, len(self.metrics), size):
            metrics = self.metrics[first : first + size]
            changes = {}
            for name in ("step", "epoch"):
                if numbers := [each.number for each in metrics if each.kind == name]:
                    changes[name] = max(numbers)
            yield Batch(metrics=metrics, changes=changes)
        if self.scores:
            yield Batch(scores=self.scores, changes={k: self.changes[k] for k in ("scores", "first_evaluation")})
        if self.files:
            yield Batch(files=self.files, changes={"files": self.changes["files"]})
        if "finished" in self.changes:
            yield Batch(changes={"finished": True})


def description_of(point: PointFolder, events: Iterable[Event]) -> Description:
    """The description of a point, from its config.yml and its log."""
    about = next((event.values for event in events if event.kind == "point"), {})
    config = read_yaml(point.config).value
    info = config.get("info", {})
    sweep, label = about.get("sweep") or "", about.get("label") or ""
    return Description(
        point=point.id,
        name=label if label and label != "as written" else sweep or point.id,
        project=about.get("project") or info.get("project_name") or sweep or "separation",
        tags=tuple(dict.fromkeys(tag for tag in (point.id, sweep, *point.id.split("-")[:2]) if tag)),
        notes=about.get("notes") or info.get("notes") or "",
        parameters=parameters_of(config),
    )


def parameters_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key; values that are not scalars as JSON."""
    return {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value, sort_keys=True)
        for key, value in flatten(config).items()
    }


def unsent(
    point: PointFolder, events: Sequence[Event], sent: Sent, extra: Iterable[File] = (), *, files: bool = True
) -> Batch:
    """The data of a point that a tracker has not received.

    Args:
        point: The point's folder.
        events: All events of its log, or the latest ones.
        sent: Data that the tracker has received.
        extra: Files to send besides the point's own, such as the sweep's figures.
        files: Whether to include files.
    """
    batch = Batch()
    if not sent.described and point.config.exists():
        batch.description = description_of(point, events)
        batch.changes["described"] = True
    for event, values in iterate_metrics(events):
        number = event.step if isinstance(event.step, int) else 0
        if number <= (sent.step if event.kind == "step" else sent.epoch):
            continue
        if event.kind == "step":
            batch.metrics.append(Metrics("step", number, int(event.values.get("epoch") or 0), values))
        else:
            batch.metrics.append(Metrics("epoch", int(event.values.get("steps") or number), number, values))
        batch.changes[event.kind] = number
    _add_scores(batch, events, sent)
    if not sent.finished and any(event.kind == "finished" for event in events):
        batch.changes["finished"] = True
    for file in (*_own_files(point), *extra) if files else ():
        content = sha256_of(file.path)
        if sent.files.get(file.name) != content:
            batch.files.append(file)
            batch.changes.setdefault("files", dict(sent.files))[file.name] = content
    return batch


def _add_scores(batch: Batch, events: Iterable[Event], sent: Sent) -> None:
    """Adds the means of every evaluation: of the first one as test/<metric>, of others with their id."""
    first, known = sent.first_evaluation, dict(sent.scores)
    for event in events:
        if event.kind != "scores":
            continue
        evaluation = str(event.step)
        content = {key: event.values.get(key) for key in ("metrics", "sources")}
        if known.get(evaluation) == digest(content):
            continue
        first = first or evaluation
        prefix = "test" if first == evaluation else f"test/{evaluation}"
        named = {f"{prefix}/{name}": value for name, value in (content["metrics"] or {}).items()}
        for source, metrics in (content["sources"] or {}).items():
            named |= {f"{prefix}/{source}/{name}": value for name, value in metrics.items()}
        batch.scores |= {name: value for name, value in named.items() if isinstance(value, (int, float))}
        known[evaluation] = digest(content)
        batch.changes |= {"scores": known, "first_evaluation": first}


def _own_files(point: PointFolder) -> list[File]:
    files = [File("config.yml", point.config, "file")] if point.config.exists() else []
    for evaluation in point.evaluations():
        index = evaluation.estimate_index
        for item in read_json(index)["items"] if index.exists() else ():
            if item["role"] == "other":
                continue  # trackers get only the best, the median and the worst item
            audio = {"mixture": item["mixture"]}
            for source, entry in item["sources"].items():
                audio |= {f"{source} ({kind})": entry[kind] for kind in ("estimate", "reference")}
            prefix = f"{evaluation.id}/{item['role']}"
            files += [
                File(f"{prefix}/{name}.wav", evaluation.estimates / path, "audio") for name, path in audio.items()
            ]
    return files


def sweep_figures(sweep: str, folder: Path) -> list[File]:
    """The figures of a sweep, which are sent with each of its points."""
    return [File(f"{sweep}/{path.name}", path, "image") for path in sorted(Path(folder).glob("*.svg"))]
