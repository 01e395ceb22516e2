"""One point trained by two processes, on the CPU."""

import contextlib
import csv
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from separation.errors import UserError
from separation.experiment.options import PointOptions
from separation.nussl_compat import nussl
from separation.training import launch, loop
from separation.training.launch import train_together
from training_examples import experiment, point_options, write_split

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        # 9 excerpts: the last step of an epoch has one for the first process and none for the second
        "train": write_split(folder / "train", count=9, seed=1, uneven=True),
        "val": write_split(folder / "val", count=3, seed=2),
    }


def losses(folder):
    with open(folder / "history.csv", newline="") as source:
        return [float(row[key]) for row in csv.DictReader(source) for key in ("train_loss", "validation_loss")]


def test_two_processes_equal_one_with_twice_the_batch(splits, tmp_path):
    loop.train_point(point_options(batch_size=4, num_epochs=3), folder=tmp_path / "one", splits=splits)
    train_together(
        point_options(batch_size=2, num_epochs=3), folder=tmp_path / "two", splits=splits, count=2, log=tmp_path / "log"
    )
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert "epoch 3 of 3" in (tmp_path / "log").read_text()
    weights = [
        nussl.ml.SeparationModel.load(str(tmp_path / name / "checkpoints" / "best.model.pth"))[0].state_dict()
        for name in ("one", "two")
    ]
    assert weights[0].keys() == weights[1].keys()


def test_two_killed_processes_leave_no_orphan_and_resume(splits, tmp_path):
    config = experiment(dropout=0.3, checkpoint_minutes=1e-9, num_epochs=2)
    train_together(PointOptions.read(config), folder=tmp_path / "uninterrupted", splits=splits, count=2)
    program = f"""
import json, sys
sys.path[:0] = [{str(SCRIPTS)!r}]
from pathlib import Path
from separation.experiment.options import PointOptions
from separation.training.launch import train_together
options = PointOptions.read(json.loads(sys.argv[1]))
train_together(options, folder=Path(sys.argv[2]), splits=json.loads(sys.argv[3]), count=2)
"""
    arguments = [json.dumps(config), str(tmp_path / "killed"), json.dumps(splits)]
    state = tmp_path / "killed" / "state" / "state.pt"
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as job:
        while not state.exists() and job.poll() is None:
            wait_a_moment(job)
        assert job.poll() is None, "the training ended before the kill"
        members = descendants(job.pid)
        assert len(members) >= 4, "the job, torchrun and two training processes"
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
    # the kernel kills them one after the other
    for member in members[1:]:
        with contextlib.suppress(ProcessLookupError):
            select.select([os.pidfd_open(member)], [], [], 60)
        assert not is_alive(member)
    train_together(PointOptions.read(config), folder=tmp_path / "killed", splits=splits, count=2)
    assert losses(tmp_path / "killed") == losses(tmp_path / "uninterrupted")


def wait_a_moment(job):
    with contextlib.suppress(subprocess.TimeoutExpired):
        job.wait(0.05)


def descendants(ancestor):
    """The process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [ancestor]
    for member in found:
        found += [pid for pid, parent in parents.items() if parent == member]
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_error_of_several_processes_is_reported_in_one_line(splits, tmp_path):
    config = experiment(loss_function=[["dpcl", "embedding", 1e39]])
    with pytest.raises(UserError, match="the loss is inf in epoch 1 at learning rate"):
        train_together(PointOptions.read(config), folder=tmp_path / "point", splits=splits, count=2)


def test_a_process_whose_torchrun_died_during_its_imports_ends(monkeypatch, tmp_path):
    # what the kernel is asked for applies to this process, the tests' own
    monkeypatch.setattr(launch, "_end_with_parent", lambda: None)
    monkeypatch.setattr(sys, "argv", ["launch", str(tmp_path / "request.json")])
    with pytest.raises(FileNotFoundError):
        launch.main()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(SystemExit):
        launch.main()
