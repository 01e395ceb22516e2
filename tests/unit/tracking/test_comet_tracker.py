"""Points on comet.ml: comet's own client against a fake server. test_sender has what does not depend on the client."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from comet_server import CometServer, Experiment
from logged_point import LoggedPoint
from separation.errors import UserError
from separation.tracking import sync, tracker_processes
from separation.tracking.payload import Batch, File
from separation.tracking.registry import make_tracker, page_url
from separation.tracking.sender import write_archive
from separation.tracking.sent import Sent, load_sent, save_sent
from separation.tracking.tracker import Unreachable
from separation.tracking.tracker_processes import run_trackers

LIVE = {"mode": "live", "names": ["comet"], "comet": {"workspace": "lab", "project": None}}


@pytest.fixture
def server(monkeypatch):
    server = CometServer()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.close()


@pytest.fixture
def point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEPARATION_RUN", "run-1")
    return LoggedPoint(tmp_path)


def archives(point):
    return sorted(point.folder.tracker_files("comet").glob("*.zip"))


def messages(point):
    """The content of the point's archive; empty while it is being replaced."""
    try:
        with zipfile.ZipFile(archives(point)[0]) as content:
            return content.read("messages.json")
    except (FileNotFoundError, IndexError):
        return b""


def wait_for(condition, process=None):
    while not condition():
        assert process is None or process.poll() is None
        os.sched_yield()


def train(point, epochs=(1, 2, 3), until=None):
    """Logs a training run beside its tracker, and waits until the tracker's library is loaded or `until` is true."""
    with run_trackers(point.folder, LIVE):
        for epoch in epochs:
            point.epoch(epoch)
        wait_for(until or (lambda: load_sent(point.folder, "comet") is not None))
        point.finish()


def log_training(point, epochs=(1, 2, 3)):
    """Logs a training run without trackers."""
    for epoch in epochs:
        point.epoch(epoch)
    point.finish()


def sync_all(point):
    return sync.sync_points("comet", LIVE["comet"], [point.folder])


# the client takes seconds to be imported and to create an experiment: one test checks everything that needs no faults


def test_a_point_is_one_experiment_with_all_its_data(server, point, capsys):
    point.start()
    train(point, until=lambda: server.experiments)
    point.audio()
    point.scores()
    sync_all(point)
    ((key, experiment),) = server.experiments.items()
    assert (experiment.project, experiment.workspace, experiment.offline) == ("separation/music", "lab", False)
    assert experiment.name == "learning_rate=0.01"
    assert {point.folder.id, "example", "dpcl", "toy_music"} <= set(experiment.tags)
    assert experiment.parameters["train_config.learning_rate"] == 0.01
    assert experiment.parameters["model_config.output"] == '["embedding"]'
    assert experiment.values("train/step_loss") == point.step_losses()
    assert [step for step, _ in experiment.values("validation/loss")] == [3, 6, 9]
    assert {epoch for name, _, epoch, _ in experiment.metrics if name == "train/loss"} == {1, 2, 3}
    assert [value for _, value in experiment.values("test/SI-SDR")] == [9.5]
    assert [value for _, value in experiment.values("test/vocals/SI-SDR")] == [10.5]
    assert not experiment.values("test/SI-SIR")
    assert experiment.others["notes"] == "a note"
    names = [name for _, name, _ in experiment.assets]
    audio = [
        f"toy_music-0123456789ab/best/{name}.wav" for name in ("mixture", "vocals (estimate)", "vocals (reference)")
    ]
    assert sorted(names) == sorted(["config.yml", *audio])
    assert load_sent(point.folder, "comet").key == key and page_url(point.folder).endswith(key)
    assert experiment.opened == 2 and server.count("add/run") == 1
    assert not archives(point) and capsys.readouterr().err == ""
    # a second sync has nothing to send and contacts no server
    server.calls.clear()
    assert sync_all(point) == {point.folder.id: page_url(point.folder)} and server.calls == []


@pytest.mark.parametrize("trouble", ["no server", "wrong key", "no answer"])
def test_an_unreachable_server_is_reported_in_one_line_without_the_key(server, point, monkeypatch, trouble):
    make_unreachable(trouble, server, monkeypatch)
    monkeypatch.setattr(sync, "PATIENCE", 1.0)
    point.start()
    log_training(point, epochs=(1,))
    with pytest.raises(UserError, match=r"comet: .*; no data is lost; run it again later") as error:
        sync_all(point)
    assert "\n" not in str(error.value) and os.environ["COMET_API_KEY"] not in str(error.value)
    assert trouble != "wrong key" or "API key" in str(error.value)


def make_unreachable(trouble, server, monkeypatch):
    if trouble == "no server":
        monkeypatch.setenv("COMET_URL_OVERRIDE", "http://127.0.0.1:9/clientlib/")
    elif trouble == "wrong key":
        monkeypatch.setenv("COMET_API_KEY", "wrong0wrong0wrong0wrong0w")
    else:
        server.faults += [("/", "hang")] * 100


@pytest.mark.slow
def test_a_killed_training_resumes_in_the_same_experiment(server, point):
    point.start()
    point.epoch(1)
    code = (
        "import sys, json; from pathlib import Path; from separation.files.layout import PointFolder\n"
        "from separation.tracking.tracker_processes import run_trackers\n"
        "with run_trackers(PointFolder(Path(sys.argv[1])), json.loads(sys.argv[2])): sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(point.folder.path), json.dumps(LIVE)]
    environment = {**os.environ, "PYTHONPATH": str(tracker_processes._SCRIPTS)}
    job = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    wait_for(lambda: (sent := load_sent(point.folder, "comet")) is not None and sent.epoch == 1, job)
    for child in psutil.Process(job.pid).children(recursive=True):
        child.kill()
    job.kill()
    job.wait()
    job.stdin.close()
    # it resumes after epoch 1, with part of epoch 2 already logged
    point.log.write("step", 4, epoch=2, loss=0.25)
    point.resume(1)
    train(point, epochs=(2, 3), until=lambda: load_sent(point.folder, "comet").epoch == 3)
    ((_, experiment),) = server.experiments.items()
    assert experiment.values("train/step_loss") == point.step_losses()
    assert experiment.opened == 2 and server.count("add/run") == 1


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["no server", "wrong key", "no answer"])
def test_an_unreachable_server_causes_one_warning_and_an_archive(server, point, monkeypatch, capsys, trouble):
    make_unreachable(trouble, server, monkeypatch)
    point.start()
    train(point)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: comet.ml: ") and "make sync" in line and "wrong0" not in line
    assert trouble != "wrong key" or "API key" in line
    wait_for(lambda: b"train/step_loss" in messages(point))
    # later jobs of the run do not try again, and their data goes to the archive
    calls = len(server.calls)
    with run_trackers(point.folder, LIVE):
        point.scores()
    wait_for(lambda: b"test/SI-SDR" in messages(point))
    assert capsys.readouterr().err == "" and len(server.calls) == calls


def test_comets_own_command_uploads_the_archive(server, point):
    point.start()
    log_training(point)
    write_archive(make_tracker("comet", LIVE["comet"], 3.0), point.folder)
    assert server.calls == []
    (archive,) = archives(point)
    command = [Path(sys.executable).with_name("comet"), "upload", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    ((key, experiment),) = server.experiments.items()
    assert key == load_sent(point.folder, "comet").key == archive.stem
    assert experiment.values("train/step_loss") == point.step_losses()
    assert experiment.name == "learning_rate=0.01" and experiment.assets[0][:2] == ("asset", "config.yml")


def test_unsent_data_is_sent_later_and_only_once(server, point):
    point.start()
    log_training(point, epochs=(1, 2))
    point.resume(2)
    log_training(point, epochs=(3,))
    sync_all(point)
    ((key, experiment),) = server.experiments.items()
    assert experiment.values("train/step_loss") == point.step_losses()
    server.calls.clear()
    sync_all(point)
    assert server.calls == []
    point.scores(value=7.0)
    sync_all(point)
    assert [value for _, value in experiment.values("test/SI-SDR")] == [7.0] and list(server.experiments) == [key]


def faults(where, fast):
    """A fault in each request that sends data; most of them are slow."""
    return [
        pytest.param(where, fault, marks=() if fault in fast else pytest.mark.slow)
        for fault in (400, 403, 404, 429, 500, "drop")
    ]


@pytest.mark.parametrize(
    ("where", "fault"), [*faults("add/run", [500, "drop"]), *faults("experiment/metric", [403, 429, "drop"])]
)
def test_everything_arrives_after_any_single_failure(server, point, where, fault):
    server.faults.append((where, fault))
    point.start()
    log_training(point)
    try:
        sync_all(point)
    except UserError as error:
        assert "no data is lost" in str(error)
        sync_all(point)
    ((_, experiment),) = server.experiments.items()
    assert sorted(set(experiment.values("train/step_loss"))) == point.step_losses()
    assert server.faults == []


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("experiment/metric*", 500),
        # the client repeats an upload for 20 s, a time that no setting changes
        pytest.param("asset/upload*", 403, marks=pytest.mark.slow),
        ("log-other*", 400),
    ],
)
def test_rejected_data_is_reported_and_sent_once_it_is_accepted(server, point, where, fault):
    server.faults.append((where, fault))
    point.start()
    log_training(point)
    with pytest.raises(UserError, match="no data is lost"):
        sync_all(point)
    server.faults.clear()
    ((_, experiment),) = server.experiments.items()
    metrics = list(experiment.metrics)
    assert metrics if "metric" not in where else not metrics
    sync_all(point)
    # within one process the client itself retries what was rejected for the earlier experiment
    assert sorted(set(experiment.values("train/step_loss"))) == point.step_losses()
    assert experiment.name == "learning_rate=0.01"
    assert "config.yml" in [name for _, name, _ in experiment.assets]


def test_a_rejected_file_is_an_error_of_its_batch_alone(point):
    """With the state of the client after it has repeated an upload for 20 s."""
    tracker = make_tracker("comet", LIVE["comet"], 3.0)
    streamer = SimpleNamespace(has_connection_to_server=lambda: True, has_upload_failed=lambda: True)
    tracker.experiment = SimpleNamespace(flush=lambda timeout: True, streamer=streamer, log_asset=lambda *_, **__: None)
    tracker.send(Batch())
    with pytest.raises(Unreachable, match="a file was rejected") as error:
        tracker.send(Batch(files=[File("config.yml", point.folder.config, "file")]))
    assert error.value.rejected


@pytest.mark.slow
def test_a_brief_failure_is_retried_during_training(server, point, capsys):
    server.faults.append(("experiment/metric", 500))
    point.start()
    train(point, until=lambda: (sent := load_sent(point.folder, "comet")) is not None and sent.epoch == 3)
    ((_, experiment),) = server.experiments.items()
    assert sorted(set(experiment.values("train/step_loss"))) == point.step_losses()
    assert capsys.readouterr().err == "" and not archives(point)


def test_an_experiment_created_before_a_kill_is_reused(server, point):
    """The kill comes between creating the experiment and recording it."""
    point.start()
    log_training(point)
    save_sent(point.folder, "comet", Sent("ab" * 16))
    server.experiments["ab" * 16] = Experiment("separation/music", "lab", False)
    sync_all(point)
    ((key, experiment),) = server.experiments.items()
    assert key == "ab" * 16 and experiment.values("train/step_loss") == point.step_losses()


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_behind(server, point, request):
    # a background job of a shell starts with Ctrl-C ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    point.start()
    others = set(psutil.Process().children(recursive=True))  # such as idle workers of earlier tests
    with pytest.raises(KeyboardInterrupt), run_trackers(point.folder, LIVE):
        senders = set(psutil.Process().children(recursive=True)) - others
        os.kill(os.getpid(), signal.SIGINT)
    assert senders
    psutil.wait_procs(senders, timeout=30)
    assert not [sender for sender in senders if sender.is_running() and sender.status() != psutil.STATUS_ZOMBIE]
