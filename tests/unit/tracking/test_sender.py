"""The process beside a job that feeds a tracker, and `make sync`, with a tracker in a folder.

Tests of the real clients are in test_comet_tracker and test_other_trackers.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from folder_tracker import FolderTracker, Store, archive_of

from logged_point import LoggedPoint
from separation.errors import UserError
from separation.files.atomic import read_json
from separation.tracking import registry, sync, tracker_processes
from separation.tracking.registry import page_url
from separation.tracking.sent import Sent, load_sent, save_sent
from separation.tracking.tracker_processes import run_trackers


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.TRACKERS, "folder", FolderTracker)
    monkeypatch.setattr(tracker_processes, "SENDER", "folder_tracker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("SEPARATION_RUN", "run-1")
    monkeypatch.chdir(tmp_path)
    # a busy machine must not be taken for a slow tracker
    monkeypatch.setattr(tracker_processes, "MAX_DELAY_SECONDS", 200.0)
    monkeypatch.setenv("ARCHIVE_AFTER_SECONDS", "200")
    return Store(tmp_path / "store")


@pytest.fixture
def point(store, tmp_path):
    point = LoggedPoint(tmp_path)
    point.start()
    return point


@pytest.fixture
def live(store):
    return {"mode": "live", "names": ["folder"], "folder": store.options}


def sent(point):
    return load_sent(point.folder, "folder")


def wait_for(condition):
    while not condition():
        os.sched_yield()


def train(point, tracking, epochs=(1, 2, 3)):
    """Logs a training run beside its tracker."""
    with run_trackers(point.folder, tracking):
        for epoch in epochs:
            point.epoch(epoch)
        point.finish()


def sync_all(store, point):
    return sync.sync_points("folder", store.options, [point.folder])


def archived_steps(point):
    metrics = read_json(archive_of(point.folder))["metrics"]
    return [(each["step"], each["values"]["train/step_loss"]) for each in metrics if each["kind"] == "step"]


# --- beside a job


def test_the_jobs_of_a_point_feed_one_run(store, point, live, capsys):
    train(point, live)
    point.audio()
    with run_trackers(point.folder, live):
        point.scores()
    assert store.step_losses() == point.step_losses()
    assert [batch["description"]["name"] for batch in store.batches() if batch["description"]] == ["learning_rate=0.01"]
    assert store.scores() == {"test/SI-SDR": 9.5, "test/vocals/SI-SDR": 10.5}
    assert len([file for batch in store.batches() for file in batch["files"]]) == 4
    (key,) = store.runs()
    assert sent(point).key == key and page_url(point.folder) == f"http://folder/{key}"
    assert not archive_of(point.folder).exists() and capsys.readouterr().err == ""


def test_data_is_sent_during_the_job(store, point, live):
    with run_trackers(point.folder, live):
        for epoch in (1, 2):
            point.epoch(epoch)
            wait_for(lambda epoch=epoch: (state := sent(point)) is not None and state.epoch == epoch)
        assert store.step_losses() == point.step_losses(2)


def test_a_killed_training_resumes_in_the_same_run(store, point, live):
    point.epoch(1)
    code = (
        "import sys, json; from pathlib import Path; from separation.files.layout import PointFolder\n"
        "from separation.tracking import tracker_processes\n"
        "tracker_processes.SENDER = 'folder_tracker'\n"
        "with tracker_processes.run_trackers(PointFolder(Path(sys.argv[1])), json.loads(sys.argv[2])): sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(point.folder.path), json.dumps(live)]
    path = os.pathsep.join([str(tracker_processes._SCRIPTS), os.environ["PYTHONPATH"]])
    job = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    wait_for(lambda: job.poll() is not None or ((state := sent(point)) is not None and state.epoch == 1))
    assert job.poll() is None
    for child in psutil.Process(job.pid).children(recursive=True):
        child.kill()
    job.kill()
    job.wait()
    job.stdin.close()
    # it resumes after epoch 1, with part of epoch 2 already logged
    point.log.write("step", 4, epoch=2, loss=0.25)
    point.resume(1)
    train(point, live, epochs=(2, 3))
    assert store.step_losses() == point.step_losses()
    assert [method for _, method in store.calls].count("open") == 2


@pytest.mark.parametrize("fault", ["unreachable", "hang", "not installed"])
def test_an_unreachable_tracker_causes_one_warning_and_an_archive(store, point, live, monkeypatch, capsys, fault):
    if fault == "not installed":
        monkeypatch.setenv("FOLDER_TRACKER_LIBRARY", "a_missing_library")
    else:
        store.fail(("open*", fault))
        monkeypatch.setenv("ARCHIVE_AFTER_SECONDS", "0.1")
    train(point, live)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: ") and line.endswith("results are complete, run `make sync` to send them later")
    causes = {"unreachable": "A folder: no answer to open;", "hang": "A folder: no response in time;"}
    assert causes.get(fault, "folder: a_missing_library is not installed;") in line
    assert fault == "not installed" or archived_steps(point) == point.step_losses()
    # later jobs of the run do not try again, and their data goes to the archive
    calls = store.calls
    with run_trackers(point.folder, live):
        point.scores()
    assert capsys.readouterr().err == "" and store.calls == calls
    assert fault == "not installed" or read_json(archive_of(point.folder))["scores"]["test/SI-SDR"] == 9.5
    # once it is reachable, everything is sent and the archive is gone
    store.fail()
    monkeypatch.delenv("FOLDER_TRACKER_LIBRARY", raising=False)
    sync_all(store, point)
    assert store.step_losses() == point.step_losses() and store.scores()["test/SI-SDR"] == 9.5
    assert not archive_of(point.folder).exists()


def test_a_tracker_in_a_later_run_of_the_workflow_is_tried_again(store, point, live, monkeypatch):
    store.fail(("open", "hang"))
    with monkeypatch.context() as impatient:
        impatient.setenv("ARCHIVE_AFTER_SECONDS", "0.1")
        train(point, live)
    assert archived_steps(point) == point.step_losses()
    monkeypatch.setenv("SEPARATION_RUN", "run-2")
    with run_trackers(point.folder, live):
        point.scores()
    assert store.step_losses() == point.step_losses() and store.scores()["test/SI-SDR"] == 9.5
    assert not archive_of(point.folder).exists()


def test_a_slow_tracker_causes_one_warning_and_is_tried_by_later_jobs(store, point, live, capsys):
    store.fail(("send*", "unreachable"))
    train(point, live)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: A folder: no answer to send")
    assert archived_steps(point) == point.step_losses()
    with run_trackers(point.folder, live):
        point.scores()
    assert capsys.readouterr().err == ""
    assert [method for _, method in store.calls if method != "send"] == ["open", "open"]


def train_until_it_hangs(point, store, tracking):
    store.fail(("send*", "hang"))
    with run_trackers(point.folder, tracking):
        for epoch in (1, 2, 3):
            point.epoch(epoch)
        point.finish()
        wait_for(lambda: "send" in [method for _, method in store.calls])


def test_a_connection_that_hangs_ends_with_one_warning_and_an_archive(store, point, live, monkeypatch, capsys):
    monkeypatch.setenv("ARCHIVE_AFTER_SECONDS", "0.1")
    monkeypatch.setenv("LONGEST", "0.1")
    train_until_it_hangs(point, store, live)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: A folder: some data did not arrive in time")
    assert archived_steps(point) == point.step_losses()


def test_the_archive_does_not_wait_for_a_connection_that_hangs(store, point, live, monkeypatch, capsys):
    monkeypatch.setenv("ARCHIVE_AFTER_SECONDS", "0.1")
    monkeypatch.setattr(tracker_processes, "MAX_DELAY_SECONDS", 0.0)
    others = set(psutil.Process().children())
    train_until_it_hangs(point, store, live)
    wait_for(archive_of(point.folder).exists)
    (sender,) = set(psutil.Process().children()) - others
    assert sender.is_running() and capsys.readouterr().err == ""
    sender.kill()
    assert archived_steps(point) == point.step_losses()


@pytest.mark.parametrize("fault", ["rejected", "unreachable"])
@pytest.mark.parametrize("method", ["open", "send"])
def test_a_brief_failure_is_retried_during_the_job(store, point, live, capsys, method, fault):
    store.fail((method, fault))
    with run_trackers(point.folder, live):
        for epoch in (1, 2, 3):
            point.epoch(epoch)
        wait_for(lambda: (state := sent(point)) is not None and state.epoch == 3 and state.described)
        point.finish()
    assert store.step_losses() == point.step_losses() and store.faults == []
    assert capsys.readouterr().err == "" and not archive_of(point.folder).exists()


def test_offline_data_goes_to_the_archive_only(store, point, live, capsys):
    train(point, {**live, "mode": "offline"})
    assert archived_steps(point) == point.step_losses()
    assert store.calls == [] and capsys.readouterr().err == ""


def test_the_end_of_a_job_waits_only_briefly_for_a_tracker(store, point, live, monkeypatch, capsys):
    monkeypatch.setattr(tracker_processes, "MAX_DELAY_SECONDS", 0.0)
    with run_trackers(point.folder, live):
        point.epoch(1)
        point.finish()
    assert capsys.readouterr().err == ""
    wait_for(lambda: (state := sent(point)) is not None and state.finished)
    assert store.step_losses() == point.step_losses(1)


def test_ctrl_c_leaves_no_process_behind(point, live, request):
    # a background job of a shell starts with Ctrl-C ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    others = set(psutil.Process().children(recursive=True))  # such as idle workers of earlier tests
    with pytest.raises(KeyboardInterrupt), run_trackers(point.folder, live):
        senders = set(psutil.Process().children(recursive=True)) - others
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # the interpreter raises at the next bytecode
    assert senders
    _, alive = psutil.wait_procs(senders, timeout=100)
    assert not [sender for sender in alive if sender.status() != psutil.STATUS_ZOMBIE]


# --- make sync


def test_unsent_data_is_sent_later_and_only_once(store, point):
    for epoch in (1, 2):
        point.epoch(epoch)
    point.finish()
    point.resume(2)
    point.epoch(3)
    point.finish()
    (key,) = (page.rpartition("/")[2] for page in sync_all(store, point).values())
    assert store.step_losses() == point.step_losses() and list(store.runs()) == [key]
    calls = store.calls
    assert sync_all(store, point) == {point.folder.id: f"http://folder/{key}"}
    assert store.calls == calls
    point.scores(value=7.0)
    sync_all(store, point)
    assert store.scores()["test/SI-SDR"] == 7.0 and list(store.runs()) == [key]


@pytest.mark.parametrize("fault", ["unreachable", "rejected", "lost"])
@pytest.mark.parametrize("method", ["open", "send", "close"])
def test_everything_arrives_after_any_single_failure(store, point, method, fault):
    point.epoch(1)
    point.finish()
    point.scores()
    store.fail((method, fault))
    with pytest.raises(UserError, match=r"folder: no answer to .*; no data is lost; run it again later"):
        sync_all(store, point)
    sync_all(store, point)
    assert store.step_losses() == point.step_losses(1) and store.scores()["test/SI-SDR"] == 9.5
    assert sum(batch["description"] is not None for batch in store.batches()) == 1 + (
        fault == "lost" and method == "send"
    )


def test_a_rejected_part_does_not_stop_the_others(store, point):
    point.epoch(1)
    point.finish()
    point.scores()
    store.fail(("send", "rejected"))
    with pytest.raises(UserError, match="no data is lost"):
        sync_all(store, point)
    assert store.step_losses() == point.step_losses(1) and store.scores()
    assert not any(batch["description"] for batch in store.batches())
    sync_all(store, point)
    assert store.step_losses() == point.step_losses(1)
    assert store.batches()[-1]["description"]["name"] == "learning_rate=0.01"


def test_a_run_created_before_a_kill_is_reused(store, point):
    """The kill comes between creating the run and recording it."""
    point.epoch(1)
    save_sent(point.folder, "folder", Sent("ab" * 8))
    sync_all(store, point)
    assert list(store.runs()) == ["ab" * 8] and store.step_losses() == point.step_losses(1)
