"""Event log of a point: an append-only file that trackers are fed from.

ARTIFACTS/<point>/state/events.jsonl holds one JSON object a line: `kind`, `step` (the number of the step or epoch, or
the id of the evaluation; null for kinds that occur once), `time` (Unix seconds), and the values of the event. Numbers
that are not finite are null. A line is written by one system call, so that several processes may append, and a killed
job leaves at most half a line at the end, which readers skip.

| kind | step | values |
|---|---|---|
| point | null | names of the point: `label`, `sweep`, `project`, `notes`, `swept` |
| started | null | `epochs` to train |
| resumed | finished steps | finished `epochs`; later steps and epochs are logged again |
| step | counted from 1 over all epochs | `epoch`, `loss`, `gradient_norm`, `learning_rate` |
| epoch | counted from 1 | a row of history.csv, and the finished `steps` |
| finished | null | `best_epoch`, `validation_loss` |
| scores | the evaluation's id | `dataset`, `split`, `count` of items, `metrics` (means), `sources` (means by source) |
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    kind: str
    step: int | str | None
    time: float
    values: Mapping[str, Any]


class EventLog:
    """Appends events to a log; the first event creates the file and its folder."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._descriptor: int | None = None

    def write(self, kind: str, step: int | str | None = None, **values: Any) -> None:
        """Appends one event.

        Args:
            kind: Kind of the event, see the table of the module.
            step: Number of the step or epoch, or id of the evaluation.
            values: Numbers (also numpy's and torch's scalars), strings, and lists and mappings of them.
        """
        event = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        line = json.dumps(_plain(event), separators=(",", ":"), allow_nan=False) + "\n"
        if self._descriptor is None:
            self._descriptor = self._open()
        os.write(self._descriptor, line.encode())

    def close(self) -> None:
        """Closes the file; a later event reopens it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # ends the half line of a killed job
        return descriptor


class EventReader:
    """Reads a log that may still grow: each call of `new` returns the events since the previous call."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._offset = 0

    def new(self) -> list[Event]:
        """The events of all complete new lines; none if there is no log."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [event for line in complete.splitlines() if (event := _parsed(line)) is not None]


def read_events(path: str | os.PathLike) -> list[Event]:
    """All events of a log in order; none if there is no log."""
    return EventReader(path).new()


def latest_events(events: Iterable[Event]) -> list[Event]:
    """The valid events: the last one of each kind and step, in the order of the first ones.

    A restarted training revokes the events of the previous one; a resumed training revokes the steps and epochs after
    the step it resumes from.
    """
    latest: dict[tuple[str, int | str | None], Event] = {}
    for event in events:
        if event.kind == "started":
            latest = {key: earlier for key, earlier in latest.items() if earlier.kind == "point"}
        elif event.kind == "resumed":
            ends = {"step": event.step, "epoch": event.values.get("epochs")}
            for kind, step in list(latest):
                if isinstance(ends.get(kind), int) and isinstance(step, int) and step > ends[kind]:
                    del latest[kind, step]
        latest[event.kind, event.step] = event
    return list(latest.values())


def _parsed(line: bytes) -> Event | None:
    try:
        values = json.loads(line)
        return Event(values.pop("kind"), values.pop("step"), values.pop("time"), values)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None  # half a line of a killed job


def _plain(value: Any) -> Any:
    """`value` in JSON's types; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if not isinstance(value, float) and hasattr(value, "item"):
        value = value.item()  # a scalar of numpy or torch
        if not isinstance(value, float):
            return _plain(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"expected numbers, strings, lists and mappings, found {type(value).__name__}")


def iterate_metrics(events: Iterable[Event]) -> Iterator[tuple[Event, dict[str, float]]]:
    """The steps and epochs among events, each with its metrics under the names that trackers show."""
    for event in events:
        if event.kind == "step":
            names = {"loss": "train/step_loss", "gradient_norm": "train/step_gradient_norm"}
        elif event.kind == "epoch":
            names = {
                "train_loss": "train/loss",
                "validation_loss": "validation/loss",
                "learning_rate": "train/learning_rate",
                "gradient_norm": "train/gradient_norm",
                "samples_per_second": "time/samples_per_second",
                "seconds": "time/seconds_per_epoch",
            }
        else:
            continue
        numbers = {name: event.values.get(key) for key, name in names.items()}
        yield event, {name: float(number) for name, number in numbers.items() if isinstance(number, (int, float))}
