"""The process that feeds one tracker with one point while its job runs.

It stands beside the job, so that a tracker's library, its threads and its waiting never touch a training, and reads the
event log. Its standard input ends when the job does, whichever way that comes about. What the tracker was not told
FINISH seconds later is put into the tracker's own archive, by a child that was forked right after the library was
imported: it is ready at once, knows nothing of a connection that hangs, and outlives this process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from separation.files.layout import PointFolder
from separation.files.locks import locked_with_forks
from separation.tracking.payload import Batch, describe, unsent
from separation.tracking.registry import make_tracker
from separation.tracking.sent import Sent, load_sent, save_sent
from separation.tracking.tracker import Tracker, Unreachable
from separation.training.events import EventReader, last_words, read_events

PATIENCE = 3.0  # seconds for one request while a job runs
FINISH = 2.5  # seconds from the job's end until the archive is written
LONGEST = 60.0  # seconds that a connection which stands may then still take; the job does not wait for it
PAUSE = 1.0  # seconds between two looks at the log
RETRIES = 3  # times that a connection is made anew while the job goes on


def main(arguments: list[str]) -> int:
    """Feeds a tracker until standard input ends.

    Args:
        arguments: one JSON object: `folder` of the point, `tracker`, `options`, `mode` (live or offline), `down`: a
            file that stands for "this tracker was not to be had in this run of the workflow", `attempt`.

    What the user should read goes to standard output, one line.
    """
    asked = json.loads(arguments[0])
    point, name = PointFolder(Path(asked["folder"])), asked["tracker"]
    down = Path(asked["down"]) if asked.get("down") else None
    try:
        tracker = make_tracker(name, asked["options"], PATIENCE)
    except Unreachable as problem:
        _warn(name, problem, down)
        return 0
    with point_lock(point, name):
        _run(asked, tracker, point, down)
    return 0


def _run(asked: dict, tracker: Tracker, point: PointFolder, down: Path | None) -> None:
    sent = sent_of(point, tracker)
    archiver = _Archiver(tracker, point)
    state = _Progress()
    ended, done = state.ended, state.done
    threading.Thread(target=_watch, args=(state, archiver, tracker, down), daemon=True).start()
    problem, delivered = None, False
    if tracker.local or (asked["mode"] == "live" and not (down is not None and down.exists())):
        try:
            _feed(tracker, point, sent, state)
            delivered = True
        except Unreachable as unreachable:
            problem = unreachable
            if asked["attempt"] < RETRIES and not ended.wait(2.0 ** asked["attempt"]):
                archiver.end(write=False)
                # a new process leaves the old connection's threads, and what they still hold, behind
                again = json.dumps({**asked, "attempt": asked["attempt"] + 1})
                os.execv(sys.executable, [sys.executable, "-m", __spec__.name, again])
            _warn(tracker.title, problem, _slow(down) if state.connected.is_set() else down)
    ended.wait()
    done.set()
    archiver.end(write=not delivered)
    os._exit(0)  # a library's own exit may wait for a server


@contextmanager
def point_lock(point: PointFolder, name: str) -> Iterator[None]:
    """Holds a point's run on a tracker for this process; the one before may still be sending its last words."""
    with locked_with_forks(point.tracker_state(name).with_suffix(".lock")):
        yield


def sent_of(point: PointFolder, tracker: Tracker) -> Sent:
    """What a tracker has of a point. A new run's key is on disk before the tracker hears of it."""
    sent = load_sent(point, tracker.name)
    if sent is None:
        sent = Sent(key=tracker.new_key())
        save_sent(point, tracker.name, sent)
    return sent


class _Progress:
    """How far a process has come: the job has ended, the tracker has been reached, everything is done."""

    def __init__(self) -> None:
        self.ended, self.connected, self.done = threading.Event(), threading.Event(), threading.Event()


def _feed(tracker: Tracker, point: PointFolder, sent: Sent, state: _Progress) -> None:
    """Sends what the log tells until the job has ended and everything is sent; `sent` is kept up to date."""
    reader = EventReader(point.events)
    events = reader.new()
    while not events or not point.config.exists():
        if state.ended.wait(PAUSE / 4):
            return
        events += reader.new()
    url = tracker.open(point, describe(point, last_words(events)), sent)
    state.connected.set()
    sent.created, sent.url = True, url or sent.url
    save_sent(point, tracker.name, sent)
    events, first = last_words([*events, *reader.new()]), True
    while True:
        last = state.ended.is_set()
        # the job's last words were written before its end
        events = [*events, *reader.new()] if last else events
        send_unsent(tracker, point, sent, unsent(point, events, sent, files=first or last))
        if last:
            break
        state.ended.wait(PAUSE)
        events, first = reader.new(), False
    if tracker.sure:
        state.done.set()  # what is left to do may take its time
    tracker.close(sent.finished)
    save_sent(point, tracker.name, sent)
    tracker.drop_archive(point)


def send_unsent(tracker: Tracker, point: PointFolder, sent: Sent, batch: Batch) -> None:
    """Sends a batch in parts and notes each, on disk as soon as it is sure that the tracker has it.

    Raises:
        Unreachable: the tracker has not taken everything; where it refused one part, the others were sent all the same.
    """
    problem = None
    for part in batch.parts():
        try:
            tracker.send(part)
        except Unreachable as refusal:
            if not refusal.refused:
                raise
            problem = problem or refusal
            continue
        for name, value in part.changes.items():
            setattr(sent, name, value)
        if tracker.sure:
            save_sent(point, tracker.name, sent)
    if problem is not None:
        raise problem


def write_archive(tracker: Tracker, point: PointFolder) -> Path | None:
    """Puts what the tracker does not have into its own archive, in the place of an earlier one."""
    sent, events = sent_of(point, tracker), last_words(read_events(point.events))
    batch = unsent(point, events, sent)
    return tracker.archive(point, describe(point, events), batch, sent) if batch else None


class _Archiver:
    """A fork of this process that writes the archive, when told to or when this process is gone."""

    def __init__(self, tracker: Tracker, point: PointFolder):
        read_end, self._write_end = os.pipe()
        self._once = threading.Lock()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._write_end)
            os.setpgid(0, 0)
            if os.read(read_end, 1) != b"-":
                write_archive(tracker, point)
            os._exit(0)
        os.close(read_end)

    def end(self, write: bool) -> None:
        """Has it write the archive, or not; returns when that is done. Only the first call counts."""
        with self._once:
            if self._child:
                os.write(self._write_end, b"+" if write else b"-")
                os.waitpid(self._child, 0)
                self._child = 0


def _watch(state: _Progress, archiver: _Archiver, tracker: Tracker, down: Path | None) -> None:
    """Waits for the job's end, and sees to the archive where the tracker then takes too long."""
    sys.stdin.buffer.read()
    state.ended.set()
    if state.done.wait(FINISH):
        return
    archiver.end(write=True)
    if not state.connected.is_set():
        _warn(tracker.title, Unreachable("no answer in time"), down)
        os._exit(0)
    if not state.done.wait(LONGEST):
        _warn(tracker.title, Unreachable("not everything arrived in time"), _slow(down))
        os._exit(0)


def _slow(down: Path | None) -> Path | None:
    """What stands for "told already" where a tracker is there and slow, or choosy: the run's next jobs do try it."""
    return down.with_name(f"{down.name}.slow") if down is not None else None


def _warn(title: str, problem: Exception, down: Path | None) -> None:
    """Tells the first failure of a tracker in a run of the workflow; its later jobs do not try again."""
    try:
        if down is not None:
            down.parent.mkdir(parents=True, exist_ok=True)
            down.touch(exist_ok=False)
        print(f"{title}: {problem}; results are complete, and `make sync` sends them later", flush=True)
    except FileExistsError:
        pass  # told already
    except BrokenPipeError:
        if down is not None:
            down.unlink(missing_ok=True)  # so that a later job tells it
        sys.stdout = open(os.devnull, "w")  # nobody listens any more  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
