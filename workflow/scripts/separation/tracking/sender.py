"""Process that sends one point to one tracker while the point's job runs.

It runs beside the job, so that a tracker's library, its threads and its waits never affect training, and reads the
event log. Its standard input ends when the job does, even if the job is killed. Data that the tracker has not received
ARCHIVE_AFTER_SECONDS later is written to the tracker's own archive, by a child that was forked right after the
import of the library: the child is ready at once, does not share a connection that hangs, and outlives this process.
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
from separation.tracking.payload import Batch, description_of, unsent
from separation.tracking.registry import make_tracker
from separation.tracking.sent import Sent, load_sent, save_sent
from separation.tracking.tracker import Tracker, Unreachable
from separation.training.events import EventReader, latest_events, read_events

PATIENCE = 3.0  # seconds for one request while a job runs
ARCHIVE_AFTER_SECONDS = 2.5  # seconds from the end of the job until the archive is written
LONGEST = 60.0  # further seconds that an open connection may take after that; the job does not wait for them
PAUSE = 1.0  # seconds between two reads of the log, and before the first new connection
RETRIES = 3  # new connections while the job runs


def main(arguments: list[str]) -> int:
    """Feeds a tracker until standard input ends. A message for the user is one line on standard output.

    Args:
        arguments: One JSON object: `folder` (of the point), `tracker`, `options`, `mode` (live or offline), `attempt`,
            and `unreachable_marker`, a file that exists once this run of the workflow has found the tracker
            unreachable.
    """
    request = json.loads(arguments[0])
    point, name = PointFolder(Path(request["folder"])), request["tracker"]
    marker = Path(request["unreachable_marker"]) if request.get("unreachable_marker") else None
    try:
        tracker = make_tracker(name, request["options"], PATIENCE)
    except Unreachable as error:
        _warn(name, error, marker)
        return 0
    with point_lock(point, name):
        _run(request, tracker, point, marker)
    return 0


def _run(request: dict, tracker: Tracker, point: PointFolder, marker: Path | None) -> None:
    sent = load_or_create_sent(point, tracker)
    archiver = _Archiver(tracker, point)
    state = _State()
    threading.Thread(target=_watch, args=(state, archiver, tracker, marker), daemon=True).start()
    delivered = False
    if tracker.local or (request["mode"] == "live" and not (marker is not None and marker.exists())):
        try:
            _feed(tracker, point, sent, state)
            delivered = True
        except Unreachable as error:
            if request["attempt"] < RETRIES and not state.job_ended.wait(PAUSE * 2 ** request["attempt"]):
                archiver.end(write=False)
                # a new process drops the threads of the old connection and their locks
                retry = json.dumps({**request, "attempt": request["attempt"] + 1})
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1], retry])
            _warn(tracker.title, error, _slow(marker) if state.connected.is_set() else marker)
    state.job_ended.wait()
    state.done.set()
    archiver.end(write=not delivered)
    os._exit(0)  # a library's exit handlers may wait for a server


@contextmanager
def point_lock(point: PointFolder, name: str) -> Iterator[None]:
    """Locks a point's run on a tracker; waits for an earlier process that is still sending."""
    with locked_with_forks(point.tracker_state(name).with_suffix(".lock")):
        yield


def load_or_create_sent(point: PointFolder, tracker: Tracker) -> Sent:
    """The data of a point that a tracker has received; the key of a new run is saved before it is sent."""
    sent = load_sent(point, tracker.name)
    if sent is None:
        sent = Sent(key=tracker.new_key())
        save_sent(point, tracker.name, sent)
    return sent


class _State:
    """State shared with the watching thread: the job has ended, the tracker is connected, everything is done."""

    def __init__(self) -> None:
        self.job_ended, self.connected, self.done = threading.Event(), threading.Event(), threading.Event()


def _feed(tracker: Tracker, point: PointFolder, sent: Sent, state: _State) -> None:
    """Sends the event log until the job has ended and everything is sent, and keeps `sent` up to date."""
    reader = EventReader(point.events)
    events = reader.new()
    while not events or not point.config.exists():
        if state.job_ended.wait(PAUSE / 4):
            return
        events += reader.new()
    url = tracker.open(point, description_of(point, latest_events(events)), sent)
    state.connected.set()
    sent.created, sent.url = True, url or sent.url
    save_sent(point, tracker.name, sent)
    events, first = latest_events([*events, *reader.new()]), True
    while True:
        last = state.job_ended.is_set()
        # the job wrote its last events before it ended
        events = [*events, *reader.new()] if last else events
        send_unsent(tracker, point, sent, unsent(point, events, sent, files=first or last))
        if last:
            break
        state.job_ended.wait(PAUSE)
        events, first = reader.new(), False
    if tracker.confirms:
        state.done.set()  # the rest may take its time
    tracker.close(sent.finished)
    save_sent(point, tracker.name, sent)
    tracker.drop_archive(point)


def send_unsent(tracker: Tracker, point: PointFolder, sent: Sent, batch: Batch) -> None:
    """Sends a batch in parts and records each one, on disk as soon as the tracker confirms it.

    Raises:
        Unreachable: Part of the batch did not arrive. A rejected part does not stop the others.
    """
    error = None
    for part in batch.parts():
        try:
            tracker.send(part)
        except Unreachable as failure:
            if not failure.rejected:
                raise
            error = error or failure
            continue
        for name, value in part.changes.items():
            setattr(sent, name, value)
        if tracker.confirms:
            save_sent(point, tracker.name, sent)
    if error is not None:
        raise error


def write_archive(tracker: Tracker, point: PointFolder) -> Path | None:
    """Writes data that the tracker has not received to the tracker's own archive; replaces an earlier one."""
    sent, events = load_or_create_sent(point, tracker), latest_events(read_events(point.events))
    batch = unsent(point, events, sent)
    return tracker.archive(point, description_of(point, events), batch, sent) if batch else None


class _Archiver:
    """A fork of this process that writes the archive, on request or when this process is gone."""

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
        """Ends the fork after it has written the archive, if `write`. Only the first call has an effect."""
        with self._once:
            if self._child:
                os.write(self._write_end, b"+" if write else b"-")
                os.waitpid(self._child, 0)
                self._child = 0


def _watch(state: _State, archiver: _Archiver, tracker: Tracker, marker: Path | None) -> None:
    """Waits for the job to end, and has the archive written if the tracker then takes too long."""
    sys.stdin.buffer.read()
    state.job_ended.set()
    if state.done.wait(ARCHIVE_AFTER_SECONDS):
        return
    archiver.end(write=True)
    if not state.connected.is_set():
        _warn(tracker.title, Unreachable("no response in time"), marker)
        os._exit(0)
    if not state.done.wait(LONGEST):
        _warn(tracker.title, Unreachable("some data did not arrive in time"), _slow(marker))
        os._exit(0)


def _slow(marker: Path | None) -> Path | None:
    """The marker of a warning about a tracker that is slow or rejects something: later jobs still try it."""
    return marker.with_name(f"{marker.name}.slow") if marker is not None else None


def _warn(title: str, error: Exception, marker: Path | None) -> None:
    """Prints a tracker's first failure in a run of the workflow, and marks it for the run's later jobs."""
    try:
        if marker is not None:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch(exist_ok=False)
        print(f"{title}: {error}; results are complete, run `make sync` to send them later", flush=True)
    except FileExistsError:
        pass  # this run has already warned
    except BrokenPipeError:
        if marker is not None:
            marker.unlink(missing_ok=True)  # a later job warns
        sys.stdout = open(os.devnull, "w")  # no reader is left  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
