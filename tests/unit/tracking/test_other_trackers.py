"""Points on Weights & Biases and in MLflow: their own clients, against a server on the loopback device or a folder."""

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
from separation.tracking.beside_job import trackers_beside
from separation.tracking.registry import make_tracker
from separation.tracking.sender import write_archive
from separation.tracking.sent import load_sent
from separation.tracking.tracker import Unreachable
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


def test_a_point_is_one_run_of_mlflow_with_all_that_belongs_to_it(point, store):
    options, client = store
    sync.sync_points("mlflow", options, [point.folder])
    point.folder.tracker_state("mlflow").unlink()  # as after a kill before the run was noted
    finish(point)
    for _ in range(2):
        sync.sync_points("mlflow", options, [point.folder])
    (run,) = runs_of(client)
    assert run.info.run_name == "learning_rate=0.01" and run.info.status == "FINISHED"
    assert run.data.tags["point"] == point.folder.point and run.data.tags["mlflow.note.content"] == "a note"
    assert run.data.params["train_config.learning_rate"] == "0.01"
    steps = client.get_metric_history(run.info.run_id, "train/step_loss")
    assert sorted({(metric.step, metric.value) for metric in steps}) == point.step_losses()
    assert run.data.metrics["test/SI-SDR"] == 9.5 and run.data.metrics["test/vocals/SI-SDR"] == 10.5
    names = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert "config.yml" in names and "toy_music-0123456789ab" in names
    assert client.get_experiment(run.info.experiment_id).name == "separation/music"


@pytest.mark.parametrize("mode", ["live", "offline"])
def test_a_local_store_is_written_beside_the_job_whatever_the_mode(point, store, mode):
    options, client = store
    with trackers_beside(point.folder, {"mode": mode, "names": ["mlflow"], "mlflow": options}):
        finish(point)
        while not (sent := load_sent(point.folder, "mlflow")) or not sent.finished:
            os.sched_yield()
    (run,) = runs_of(client)
    steps = client.get_metric_history(run.info.run_id, "train/step_loss")
    assert [(metric.step, metric.value) for metric in steps] == point.step_losses()


def test_a_server_of_mlflow_that_does_not_answer_is_told_in_one_line(point, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"mlflow: .*send it again"):
        sync.sync_points("mlflow", {"directory": "x", "experiment": None}, [point.folder])


# --- Weights & Biases


@pytest.fixture
def server(monkeypatch):
    server = WandbServer()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    wandb.teardown()  # a process has one service, which remembers the first address that it was told
    server.close()


def test_a_point_is_one_run_of_wandb_with_all_that_belongs_to_it(server, point):
    sync.sync_points("wandb", WANDB, [point.folder])
    finish(point)
    sync.sync_points("wandb", WANDB, [point.folder])
    ((key, run),) = server.runs.items()
    assert key == load_sent(point.folder, "wandb").key
    assert (run.project, run.name, run.notes) == ("separation-music", "learning_rate=0.01", "a note")
    assert {point.folder.point, "example"} <= set(run.tags)
    assert run.config["train_config.learning_rate"] == 0.01
    assert run.values("train/step_loss") == point.step_losses()
    assert [value for _, value in run.values("validation/loss")] == [0.5] * 3
    assert run.summary["test/SI-SDR"] == 9.5
    assert "config.yml" in run.files and sum(name.endswith(".wav") for name in run.files) == 3
    server.calls.clear()
    sync.sync_points("wandb", WANDB, [point.folder])
    assert server.calls == [], "nothing is left to send, so nobody is asked"


@pytest.mark.parametrize("fault", [500, "drop"])
def test_a_server_of_wandb_that_fails_on_the_way_has_everything_in_the_end(server, point, monkeypatch, fault):
    sync.sync_points("wandb", WANDB, [point.folder])
    finish(point)
    server.faults.append(("file_stream*", fault))
    with monkeypatch.context() as hurried, pytest.raises(UserError, match=r"no answer in time; nothing is lost"):
        hurried.setattr(sync, "PATIENCE", 0.5)
        sync.sync_points("wandb", WANDB, [point.folder])
    server.faults.clear()
    wandb.teardown()  # the next attempt is another process's
    sync.sync_points("wandb", WANDB, [point.folder])
    ((key, run),) = server.runs.items()
    assert key == load_sent(point.folder, "wandb").key
    assert sorted(set(run.values("train/step_loss"))) == point.step_losses() and run.summary["test/SI-SDR"] == 9.5


def test_the_archive_can_be_uploaded_by_wandbs_own_command(server, point):
    finish(point)
    (archive,) = write_archive(make_tracker("wandb", WANDB, 3.0), point.folder).glob("offline-run-*")
    assert server.calls == []
    done = subprocess.run(
        [Path(sys.executable).with_name("wandb"), "sync", str(archive)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ((key, run),) = server.runs.items()
    assert key == load_sent(point.folder, "wandb").key and run.values("train/step_loss") == point.step_losses()


def test_a_server_of_wandb_that_is_not_there_costs_a_warning_and_leaves_an_archive(point, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "f0" * 20)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with trackers_beside(point.folder, {"mode": "live", "names": ["wandb"], "wandb": WANDB}):
        while load_sent(point.folder, "wandb") is None:
            os.sched_yield()
        finish(point)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: Weights & Biases: ") and "f0f0" not in line
    while not list(point.folder.tracker_files("wandb").glob("offline-run/offline-run-*/*.wandb")):
        os.sched_yield()


def test_a_tracker_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "separation.tracking.wandb_tracker", raising=False)
    with pytest.raises(Unreachable, match=r"wandb is not installed; .*envs/extra.sh trackers"):
        make_tracker("wandb", WANDB, 3.0)
