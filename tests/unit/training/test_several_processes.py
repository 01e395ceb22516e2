"""One point trained by two processes, on the CPU."""

import contextlib
import csv
import logging
import os
import select
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import forks
from separation.errors import UserError
from separation.experiment.options import PointOptions
from separation.nussl_compat import nussl
from separation.training import launch, loop
from separation.training.launch import train_together
from training_examples import experiment, point_options, write_split

RESUMED = {"dropout": 0.3, "checkpoint_minutes": 1e-9, "num_epochs": 2}


class Torchrun:
    """Stands in for the process of torchrun: starts the ranks as forks, which need no seconds for imports."""

    killed_before_step = None  # the step before which rank 1 dies
    returncode = None

    def __init__(self, command, *, env, stdout, **_):
        *options, package, request = command[3:]
        assert command[1:3] == ["-m", "torch.distributed.run"] and package == "separation.training.launch"
        (count,) = [int(option.partition("=")[2]) for option in options if option.startswith("--nproc-per-node=")]
        store = Path(request).with_name("store")
        store.unlink(missing_ok=True)
        self.ranks = []
        for rank in range(count):
            variables = {**env, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            step = self.killed_before_step if rank == 1 else None
            self.ranks.append((request, variables, str(store), stdout.name, step))

    def wait(self):
        self.returncode = max(map(abs, forks.run(run_rank, *self.ranks)))
        return self.returncode

    def poll(self):
        return self.returncode


def run_rank(request, variables, store, output, killed_before_step):
    """What torchrun's process of one rank does, with a rendezvous in a file, as a free port may be taken meanwhile."""
    os.environ.update(variables)
    with open(output, "ab") as written:
        os.dup2(written.fileno(), 1)
        os.dup2(written.fileno(), 2)
    logging.getLogger().handlers.clear()  # those of pytest
    join = torch.distributed.init_process_group
    rank = {"rank": int(variables["RANK"]), "world_size": int(variables["WORLD_SIZE"])}
    torch.distributed.init_process_group = partial(join, init_method=f"file://{store}", **rank)
    step, count = loop.Optimization.step, iter(range(1000))

    def step_or_die(self, compute_gradients):
        if next(count) == killed_before_step:
            forks.die()
        return step(self, compute_gradients)

    loop.Optimization.step = step_or_die
    sys.argv = ["launch", request]
    launch.main()


@pytest.fixture(params=["forks", pytest.param("torchrun", marks=pytest.mark.slow)])
def launcher(request, monkeypatch):
    if request.param == "forks":
        monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=Torchrun, STDOUT=subprocess.STDOUT))
    return request.param


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


def train(folder, splits):
    train_together(point_options(**RESUMED), folder=folder, splits=splits, count=2)


def test_two_processes_equal_one_with_twice_the_batch(launcher, splits, tmp_path):
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


def test_two_processes_resume_in_the_middle_of_an_epoch_after_one_was_killed(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=Torchrun, STDOUT=subprocess.STDOUT))
    train(tmp_path / "uninterrupted", splits)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="torchrun exited with"):
        patch.setattr(Torchrun, "killed_before_step", 4)  # of 3 steps per epoch
        train(tmp_path / "killed", splits)
    assert len(losses(tmp_path / "killed")) == 2, "it was killed in epoch 2"
    train(tmp_path / "killed", splits)
    assert losses(tmp_path / "killed") == losses(tmp_path / "uninterrupted")


# torchrun itself takes 15 s on two processors, so one of the tests that always run starts it
def test_two_killed_processes_leave_no_orphan_and_resume(launcher, splits, tmp_path, monkeypatch):
    train(tmp_path / "uninterrupted", splits)
    state = tmp_path / "killed" / "state" / "state.pt"
    with monkeypatch.context() as patch:
        patch.setattr(launch, "subprocess", subprocess)
        with forks.forked(train, tmp_path / "killed", splits) as job:
            while not state.exists() and job.is_alive():
                job.join(0.05)
            assert job.is_alive(), "the training ended before the kill"
            members = descendants(job.pid)
            assert len(members) >= 4, "the job, torchrun and two training processes"
            job.kill()
    # the kernel kills them one after the other
    for member in members[1:]:
        with contextlib.suppress(ProcessLookupError):
            select.select([os.pidfd_open(member)], [], [], 60)
        assert not is_alive(member)
    train(tmp_path / "killed", splits)
    assert losses(tmp_path / "killed") == losses(tmp_path / "uninterrupted")


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


def test_an_error_of_several_processes_is_reported_in_one_line(launcher, splits, tmp_path):
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
