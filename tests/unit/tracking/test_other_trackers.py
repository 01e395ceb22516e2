"""Points on Weights & Biases and in MLflow: their own clients, against a fake server or a folder."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import wandb

from logged_point import LoggedPoint
from separation.errors import UserError
from separation.tracking import sync
from separation.tracking.registry import make_tracker
from separation.tracking.sender import write_archive
from separation.tracking.sent import load_sent
from separation.tracking.tracker import Unreachable
from separation.tracking.tracker_processes import run_trackers
from wandb_server import WandbServer

WANDB = {"entity": None, "project": None}


@pytest.fixture
def point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SEPARATION_RUN", "run-1")
    point = LoggedPoint(tmp_path)
    point.start()
    for epoch in (1, 2):
        point.epoch(epoch)
    return point


@pytest.fixture
def store(tmp_path):
    """Options of an MLflow store in a folder, and a client that reads it."""
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    folder = tmp_path / "mlflow"
    return {"directory": str(folder), "experiment": None}, mlflow.MlflowClient(f"file:{folder}")


def runs_of(client):
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def finish(point):
    point.resume(2)
    point.epoch(3)
    point.finish()
    point.scores()
    point.audio()


# --- MLflow


def test_a_point_is_one_mlflow_run_with_all_its_data(point, store):
    options, client = store
    sync.sync_points("mlflow", options, [point.folder])
    point.folder.tracker_state("mlflow").unlink()  # as after a kill before the run was recorded
    finish(point)
    for _ in range(2):
        sync.sync_points("mlflow", options, [point.folder])
    (run,) = runs_of(client)
    assert run.info.run_name == "learning_rate=0.01" and run.info.status == "FINISHED"
    assert run.data.tags["point"] == point.folder.id and run.data.tags["mlflow.note.content"] == "a note"
    assert run.data.params["train_config.learning_rate"] == "0.01"
    steps = client.get_metric_history(run.info.run_id, "train/step_loss")
    assert sorted({(metric.step, metric.value) for metric in steps}) == point.step_losses()
    assert run.data.metrics["test/SI-SDR"] == 9.5 and run.data.metrics["test/vocals/SI-SDR"] == 10.5
    names = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert "config.yml" in names and "toy_music-0123456789ab" in names
    assert client.get_experiment(run.info.experiment_id).name == "separation/music"


@pytest.mark.parametrize("mode", [pytest.param("live", marks=pytest.mark.slow), "offline"])
def test_a_local_store_is_written_during_the_job_in_every_mode(point, store, mode):
    options, client = store
    with run_trackers(point.folder, {"mode": mode, "names": ["mlflow"], "mlflow": options}):
        finish(point)
        while not (sent := load_sent(point.folder, "mlflow")) or not sent.finished:
            os.sched_yield()
    (run,) = runs_of(client)
    steps = client.get_metric_history(run.info.run_id, "train/step_loss")
    assert [(metric.step, metric.value) for metric in steps] == point.step_losses()


def test_an_unreachable_mlflow_server_is_reported_in_one_line(point, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"mlflow: .*run it again"):
        sync.sync_points("mlflow", {"directory": "x", "experiment": None}, [point.folder])


# --- Weights & Biases


@pytest.fixture
def server(monkeypatch):
    server = WandbServer()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    wandb.teardown()  # a process has one service, which keeps the first address it gets
    server.close()


def test_a_point_is_one_wandb_run_with_all_its_data(server, point):
    sync.sync_points("wandb", WANDB, [point.folder])
    finish(point)
    sync.sync_points("wandb", WANDB, [point.folder])
    ((key, run),) = server.runs.items()
    assert key == load_sent(point.folder, "wandb").key
    assert (run.project, run.name, run.notes) == ("separation-music", "learning_rate=0.01", "a note")
    assert {point.folder.id, "example"} <= set(run.tags)
    assert run.config["train_config.learning_rate"] == 0.01
    assert run.values("train/step_loss") == point.step_losses()
    assert [value for _, value in run.values("validation/loss")] == [0.5] * 3
    assert run.summary["test/SI-SDR"] == 9.5
    assert "config.yml" in run.files and sum(name.endswith(".wav") for name in run.files) == 3
    server.calls.clear()
    sync.sync_points("wandb", WANDB, [point.folder])
    assert server.calls == [], "nothing is left to send"


@pytest.mark.parametrize("fault", [500, "drop"])
def test_everything_arrives_after_a_failure_in_the_middle_of_a_sync(server, point, monkeypatch, fault):
    sync.sync_points("wandb", WANDB, [point.folder])
    finish(point)
    server.faults.append(("file_stream*", fault))
    with monkeypatch.context() as impatient, pytest.raises(UserError, match=r"no response in time; no data is lost"):
        impatient.setattr(sync, "PATIENCE", 0.5)
        sync.sync_points("wandb", WANDB, [point.folder])
    server.faults.clear()
    wandb.teardown()  # the next attempt is made by another process
    sync.sync_points("wandb", WANDB, [point.folder])
    ((key, run),) = server.runs.items()
    assert key == load_sent(point.folder, "wandb").key
    assert sorted(set(run.values("train/step_loss"))) == point.step_losses() and run.summary["test/SI-SDR"] == 9.5


def test_wandbs_own_command_uploads_the_archive(server, point):
    finish(point)
    (archive,) = write_archive(make_tracker("wandb", WANDB, 3.0), point.folder).glob("offline-run-*")
    assert server.calls == []
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", str(archive)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ((key, run),) = server.runs.items()
    assert key == load_sent(point.folder, "wandb").key and run.values("train/step_loss") == point.step_losses()


@pytest.fixture
def without_server(monkeypatch):
    """An address without a server."""
    monkeypatch.setenv("WANDB_API_KEY", "f0" * 20)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    yield
    wandb.teardown()


def test_an_unreachable_wandb_server_is_reported_in_one_line_without_the_key(without_server, point, monkeypatch):
    monkeypatch.setattr(sync, "PATIENCE", 1.0)
    with pytest.raises(UserError, match=r"wandb: .*; no data is lost; run it again later") as error:
        sync.sync_points("wandb", WANDB, [point.folder])
    assert "\n" not in str(error.value) and "f0f0" not in str(error.value)


@pytest.mark.slow
def test_an_unreachable_wandb_server_causes_one_warning_and_an_archive(without_server, point, capsys):
    with run_trackers(point.folder, {"mode": "live", "names": ["wandb"], "wandb": WANDB}):
        while load_sent(point.folder, "wandb") is None:
            os.sched_yield()
        finish(point)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: Weights & Biases: ") and "f0f0" not in line
    while not list(point.folder.tracker_files("wandb").glob("offline-run/offline-run-*/*.wandb")):
        os.sched_yield()


def test_a_missing_client_library_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "separation.tracking.wandb_tracker", raising=False)
    with pytest.raises(Unreachable, match=r"wandb is not installed; .*envs/extra.sh trackers"):
        make_tracker("wandb", WANDB, 3.0)
