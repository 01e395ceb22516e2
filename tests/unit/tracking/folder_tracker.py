"""A tracker that keeps its runs in a folder and fails on request.

`python -m folder_tracker REQUEST` is the sender of such a tracker. It pauses for less time than that of a real one;
variables ARCHIVE_AFTER_SECONDS and LONGEST set two more of its times.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from separation.files.atomic import read_json, write_json
from separation.tracking import registry, sender
from separation.tracking.tracker import Tracker, Unreachable


class Store:
    """The folder of the tracker, as a test sees it."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.fail()

    @property
    def options(self) -> dict:
        return {"folder": str(self.folder)}

    def fail(self, *faults: tuple[str, str]) -> None:
        """Sets the faults of the next calls: (method, fault). A method that ends in * fails every time.

        "unreachable" and "rejected" raise Unreachable, "lost" also does but after the call, "hang" never returns.
        """
        write_json(self.folder / "faults.json", faults)

    @property
    def faults(self) -> list:
        """The faults that are left."""
        return read_json(self.folder / "faults.json")

    @property
    def calls(self) -> list[tuple[str, str]]:
        """The run and the method of every call, also of those that failed."""
        log = self.folder / "calls.log"
        return [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []

    def runs(self) -> dict[str, list[dict]]:
        """The batches of every run."""
        return {path.stem: list(map(json.loads, open(path))) for path in self.folder.glob("*.jsonl")}

    def batches(self) -> list[dict]:
        """The batches of the only run."""
        (batches,) = self.runs().values()
        return batches

    def step_losses(self) -> list[tuple[int, float]]:
        """The losses in the order in which they were sent."""
        steps = [metrics for batch in self.batches() for metrics in batch["metrics"] if metrics["kind"] == "step"]
        return [(metrics["step"], metrics["values"]["train/step_loss"]) for metrics in steps]

    def scores(self) -> dict[str, float]:
        return {name: value for batch in self.batches() for name, value in batch["scores"].items()}


class FolderTracker(Tracker):
    """Keeps runs in options["folder"]; see Store."""

    name, title = "folder", "A folder"

    def __init__(self, options, patience):
        super().__init__(options, patience)
        self.folder, self.key = Path(options["folder"]), ""
        if library := os.environ.get("FOLDER_TRACKER_LIBRARY"):
            __import__(library)

    def new_key(self):
        return secrets.token_hex(8)

    def _call(self, method, write=lambda: None):
        with open(self.folder / "calls.log", "a") as log:
            log.write(f"{self.key} {method}\n")
        faults = read_json(self.folder / "faults.json")
        fault = next((fault for fault in faults if fault[0].rstrip("*") == method), None)
        if fault is None:
            return write()
        if not fault[0].endswith("*"):
            faults.remove(fault)
            write_json(self.folder / "faults.json", faults)
        while fault[1] == "hang":
            signal.pause()
        if fault[1] == "lost":
            write()
        raise Unreachable(f"no answer\nto {method}", rejected=fault[1] == "rejected")

    def open(self, point, description, sent):
        self.key = sent.key
        self._call("open", (self.folder / f"{self.key}.jsonl").touch)
        return f"http://folder/{self.key}"

    def send(self, batch):
        line = json.dumps(asdict(batch), default=str)

        def write():
            with open(self.folder / f"{self.key}.jsonl", "a") as run:
                run.write(f"{line}\n")

        self._call("send", write)

    def close(self, finished):
        self._call("close")

    def archive(self, point, description, batch, sent):
        target = archive_of(point)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, json.loads(json.dumps(asdict(batch), default=str)))
        return target

    def drop_archive(self, point):
        archive_of(point).unlink(missing_ok=True)


def archive_of(point) -> Path:
    return point.tracker_files("folder") / "archive.json"


if __name__ == "__main__":
    registry.TRACKERS["folder"] = FolderTracker
    sender.PAUSE = 0.05
    for name in ("ARCHIVE_AFTER_SECONDS", "LONGEST"):
        if name in os.environ:
            setattr(sender, name, float(os.environ[name]))
    sys.exit(sender.main(sys.argv[1:]))
