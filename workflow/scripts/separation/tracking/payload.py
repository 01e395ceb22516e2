"""What a tracker is told of a point, and how much of it the tracker does not have yet.

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
    """What a run is called and made from.

    Attributes:
        point: its id.
        name: the settings that tell it from the sweep's other points.
        project: where it belongs: info.project_name, else the sweep's name.
        tags: point, sweep, method and dataset.
        notes: of the experiment.
        parameters: its whole config, flat, by dotted key.
    """

    point: str
    name: str
    project: str
    tags: tuple[str, ...]
    notes: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Metrics:
    """Numbers of a step (counted over all epochs) or, at its last step, of an epoch (counted from 1)."""

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
    """A file that goes with a run: `kind` is file, image or audio."""

    name: str
    path: Path
    kind: str


@dataclass
class Batch:
    """What a tracker does not have yet, and `changes`: what is to be noted of it in `Sent` once the tracker has it."""

    description: Description | None = None
    metrics: list[Metrics] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def parts(self, size: int = 2000) -> Iterator[Batch]:
        """The batch in parts of one kind, metrics of at most so many steps: what of one kind is refused does not make
        the others be sent again."""
        if self.description is not None:
            yield Batch(self.description, changes={"described": True})
        for first in range(0, len(self.metrics), size):
            metrics = self.metrics[first : first + size]
            changes = {}
            for name in ("step", "epoch"):
                if numbers := [told.number for told in metrics if told.kind == name]:
                    changes[name] = max(numbers)
            yield Batch(metrics=metrics, changes=changes)
        if self.scores:
            yield Batch(scores=self.scores, changes={k: self.changes[k] for k in ("scores", "first_evaluation")})
        if self.files:
            yield Batch(files=self.files, changes={"files": self.changes["files"]})
        if "finished" in self.changes:
            yield Batch(changes={"finished": True})


def describe(point: PointFolder, events: Iterable[Event]) -> Description:
    """What a point is called, from its config.yml and its log."""
    told = next((event.values for event in events if event.kind == "point"), {})
    config = read_yaml(point.config).value
    info = config.get("info", {})
    sweep, label = told.get("sweep") or "", told.get("label") or ""
    return Description(
        point=point.point,
        name=label if label and label != "as written" else sweep or point.point,
        project=told.get("project") or info.get("project_name") or sweep or "separation",
        tags=tuple(dict.fromkeys(tag for tag in (point.point, sweep, *point.point.split("-")[:2]) if tag)),
        notes=told.get("notes") or info.get("notes") or "",
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
    """What of a point a tracker does not have yet.

    Args:
        point: The point's folder.
        events: what stands in its log, or the latest of them.
        sent: what the tracker has.
        extra: files that go with it besides the point's own, such as the sweep's figures.
        files: whether to look at files at all.
    """
    batch = Batch()
    if not sent.described and point.config.exists():
        batch.description = describe(point, events)
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
    """The means of every evaluation: the first one's as test/<metric>, another's with its id."""
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
        index = evaluation.estimates / "index.json"
        for item in read_json(index)["items"] if index.exists() else ():
            if item["role"] == "other":
                continue  # kept for the disk; a tracker gets those that tell most
            audio = {"mixture": item["mixture"]}
            for source, entry in item["sources"].items():
                audio |= {f"{source} ({kind})": entry[kind] for kind in ("estimate", "reference")}
            prefix = f"{evaluation.path.name}/{item['role']}"
            files += [
                File(f"{prefix}/{name}.wav", evaluation.estimates / path, "audio") for name, path in audio.items()
            ]
    return files


def sweep_figures(sweep: str, folder: Path) -> list[File]:
    """The figures of a sweep, which go with each of its points."""
    return [File(f"{sweep}/{path.name}", path, "image") for path in sorted(Path(folder).glob("*.svg"))]
