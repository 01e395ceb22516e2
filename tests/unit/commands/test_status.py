"""`make status`: the state of every point, read only from its folder."""

import json
import os
import subprocess
import sys
import time

import pytest

import experiments
from separation.commands import status
from separation.files import atomic
from separation.files.layout import PointFolder
from separation.training.history import Epoch, write_history
from separation.training.progress_file import (
    STALE_AFTER,
    Progress,
    ProgressFile,
    is_running,
    read_progress,
    rough_duration,
)

RATES = [0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000001, 0.0000001]


@pytest.fixture
def workflow(tmp_path):
    content = experiments.experiment(sweep=[{"train_config.learning_rate": RATES, "cache": "x"}])
    return experiments.plan(content, tmp_path)


def progress(state, epoch=2, **changes):
    known = {"num_epochs": 5, "step": 3, "steps": 10, "loss": 0.25, "device": "cpu", "seconds_left": 100.0}
    return Progress(state=state, epoch=epoch, **known | changes)


def dead_process():
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def write_point(workflow, number, state, *, epochs=0, pid=None, trained=False, scores=False):
    """Writes the folder of a point as a training job in that state leaves it."""
    row = workflow.rows[number]
    folder = workflow.settings.artifacts / row.point
    ProgressFile(PointFolder(folder).progress).write(progress(state))
    if pid is not None:
        content = atomic.read_json(folder / "state/progress.json")
        atomic.write_json(folder / "state/progress.json", content | {"pid": pid})
    rows = [Epoch(n + 1, 0.5 - 0.1 * n, 0.6 - 0.1 * n, 0.01, 1.0, 2.0, 30.0, 0.01, 400.0, True) for n in range(epochs)]
    if rows:
        write_history(folder / "history.csv", rows)
    for name, exists in (
        ("checkpoints/best.model.pth", trained),
        (f"evaluations/{row.evaluation}/scores.parquet", scores),
    ):
        if exists:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")


def test_every_state_is_recognized(workflow):
    write_point(workflow, 1, "training", epochs=1)
    write_point(workflow, 2, "stopped", epochs=2)
    write_point(workflow, 3, "failed")
    write_point(workflow, 4, "training", epochs=1, pid=dead_process())
    write_point(workflow, 5, "finished", epochs=5, trained=True)
    write_point(workflow, 6, "finished", epochs=5, trained=True, scores=True)
    rows = status.status_of(workflow)
    assert [row["state"] for row in rows] == [
        "waiting", "running", "stopped", "failed", "interrupted", "trained", "evaluated",
    ]  # fmt: skip
    assert [row["swept"]["train_config.learning_rate"] for row in rows] == RATES
    running, stopped = rows[1], rows[2]
    assert (running["epoch"], running["num_epochs"], running["train_loss"], running["seconds_left"]) == (
        2,
        5,
        0.25,
        100,
    )
    assert (stopped["epoch"], stopped["seconds_left"], stopped["validation_loss"]) == (2, None, pytest.approx(0.5))
    assert rows[0]["device"] is None


def test_the_table_is_readable(workflow, capsys):
    write_point(workflow, 1, "training", epochs=1)
    status.print_status("tiny", status.status_of(workflow))
    shown = capsys.readouterr().out
    assert "tiny: 7 points" in shown
    (line,) = [line for line in shown.splitlines() if "running" in line and "│" in line]
    for text in ("0.01", "2/5", "0.2500", "0.6000", "2 min", "cpu", workflow.rows[1].point):
        assert text in line
    assert "1 running, 6 waiting" in shown


def test_the_command_line(workflow, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARTIFACTS_DIRECTORY", str(workflow.settings.artifacts))
    write_point(workflow, 0, "finished", epochs=5, trained=True)
    assert status.main(["--sweep", str(tmp_path / "experiment.yml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "trained"
    assert status.main(["--sweep", "nowhere.yml"]) == 1
    assert capsys.readouterr().err.startswith("Error: ")


def test_a_training_on_another_machine_runs_as_long_as_its_file_is_fresh():
    elsewhere = progress("training", host="another-machine", pid=1, updated=time.time())
    assert is_running(elsewhere)
    assert not is_running(elsewhere, now=time.time() + STALE_AFTER + 1)


def test_an_invalid_progress_file_is_ignored(tmp_path):
    assert read_progress(tmp_path / "state/progress.json") is None
    atomic.write_text(tmp_path / "state/progress.json", '{"state": "training"')
    assert read_progress(tmp_path / "state/progress.json") is None
    assert os.listdir(tmp_path / "state") == ["progress.json"]


def test_progress_is_written_at_intervals(tmp_path):
    now = iter([0.0, 1.0, 1.0, 4.0, 7.0])
    file = ProgressFile(tmp_path / "progress.json", clock=lambda: next(now))
    assert file.due
    file.write(progress("training"))
    assert [file.due, file.due, file.due] == [False, False, True]


def test_durations_are_readable():
    assert [rough_duration(seconds) for seconds in (0.4, 61, 100, 3600, 11100)] == [
        "0 s",
        "61 s",
        "2 min",
        "60 min",
        "3 h 05 min",
    ]
