"""A training run that is killed or asked to stop, or that finds a full disk or a damaged state, resumes exactly."""

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import forks
from separation.errors import UserError
from separation.experiment.options import PointOptions
from separation.files import atomic
from separation.files.layout import PointFolder
from separation.machine.signals import Stopped
from separation.training import checkpoints, loop
from separation.training.progress_file import read_progress
from training_examples import experiment, write_split

KILLER = Path(__file__).with_name("killed_training.py")
#: a hard case: random numbers in every step, a changing learning rate and excerpt length
HARD = {
    "dropout": 0.3,
    "num_epochs": 6,
    "patience": 0,
    "learning_rate": 3.0,
    "initial_length": 30,
    "curriculum_learning": [{"command": "set_current_length", "args": [40], "num_epoch": 2}],
    "checkpoint_minutes": 1e-9,
}
EVERYTHING = HARD | {
    "gradient_accumulation": 2,
    "gradient_clipping": 0.5,
    "ema_decay": 0.9,
    "warmup_steps": 5,
    "optimizer": "SGD",
    "optimizer_args": {"momentum": 0.9},
    "learning_rate": 5.0,
    "dataset": {"cache_kind": "audio", "remix": {"probability": 0.5, "gain": [-3, 3]}},
}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_split(folder / "train", count=9, seed=1, uneven=True),
        "val": write_split(folder / "val", count=3, seed=2),
    }


@pytest.fixture(scope="module")
def uninterrupted(splits, tmp_path_factory):
    """An uninterrupted training of `experiment(dropout=0.3)`."""
    folder = tmp_path_factory.mktemp("points") / "uninterrupted"
    loop.train_point(PointOptions.read(experiment(dropout=0.3)), folder=folder, splits=splits)
    return folder


def digests(folder):
    """Digests of both checkpoints, and the history without times."""
    found = [
        hashlib.sha256((folder / "checkpoints" / f"{name}.model.pth").read_bytes()).hexdigest()
        for name in ("best", "latest")
    ]
    with open(folder / "history.csv", newline="") as source:
        rows = [(row["epoch"], row["train_loss"], row["validation_loss"], row["learning_rate"], row["best"])
                for row in csv.DictReader(source)]  # fmt: skip
    return [*found, rows]


def as_read_from_a_file(options, num_workers):
    """The experiment as another process reads it: pickled metadata depends on which equal strings are one object."""
    return json.loads(json.dumps(experiment(**options, num_workers=num_workers)))


def assert_same_training(folder, other):
    assert digests(folder) == digests(other)
    assert len({row[3] for row in digests(folder)[-1]}) > 1, "the learning rate never fell: no schedule was tested"


def train_and_die(folder, splits, config, step, *, before_a_step):
    """Trains and is killed around a step of the optimizer, or while the state after it is being written."""
    real, count = loop.Optimization.step, iter(range(1000))

    def step_and_die(self, compute_gradients):
        number = next(count)
        if number == step and not before_a_step:
            replace = os.replace
            os.replace = lambda old, new: forks.die() if Path(new).name == "state.pt" else replace(old, new)
        if number == step and before_a_step:
            forks.die()
        return real(self, compute_gradients)

    loop.Optimization.step = step_and_die
    loop.train_point(PointOptions.read(config), folder=folder, splits=splits)


@pytest.mark.parametrize(
    ("options", "num_workers", "steps_per_epoch"), [(HARD, 1, 5), (EVERYTHING, 3, 3)], ids=["plain", "everything"]
)
def test_a_training_killed_in_the_middle_of_an_epoch_ends_in_the_same_bytes(
    splits, tmp_path, options, num_workers, steps_per_epoch
):
    config = as_read_from_a_file(options, num_workers)
    loop.train_point(PointOptions.read(config), folder=tmp_path / "uninterrupted", splits=splits)
    # the first one is killed in epoch 2 with its state after the first step, the second one while it writes a state
    for step, before_a_step in ((steps_per_epoch + 1, True), (steps_per_epoch, False)):
        kill = partial(train_and_die, before_a_step=before_a_step)
        assert forks.run(kill, (tmp_path / "killed", splits, config, step)) == [-signal.SIGKILL]
    loop.train_point(PointOptions.read(config), folder=tmp_path / "killed", splits=splits)
    assert_same_training(tmp_path / "killed", tmp_path / "uninterrupted")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "num_workers", "seed"), [(HARD, 1, 0), (EVERYTHING, 3, 2)], ids=["plain", "everything"]
)
def test_a_training_killed_at_many_random_moments_ends_in_the_same_bytes(splits, tmp_path, options, num_workers, seed):
    config = as_read_from_a_file(options, num_workers)
    loop.train_point(PointOptions.read(config), folder=tmp_path / "uninterrupted", splits=splits)
    command = [sys.executable, KILLER, tmp_path / "killed", json.dumps(splits), json.dumps(config), str(seed), "12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "the training ended before enough kills"
    assert_same_training(tmp_path / "killed", tmp_path / "uninterrupted")


def interrupt(monkeypatch, moment, action):
    """Calls `action` before step `moment` of the optimizer."""
    step, count = loop.Optimization.step, iter(range(1000))

    def step_and_act(self, compute_gradients):
        if next(count) == moment:
            action()
        return step(self, compute_gradients)

    monkeypatch.setattr(loop.Optimization, "step", step_and_act)


@pytest.mark.parametrize("asking", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [0, 7])
def test_a_signal_saves_the_state_and_stops(splits, uninterrupted, tmp_path, monkeypatch, asking, moment):
    config, handler = experiment(dropout=0.3), signal.getsignal(asking)
    with monkeypatch.context() as patch:
        interrupt(patch, moment, lambda: os.kill(os.getpid(), asking))
        epoch, batch = moment // 5 + 1, moment % 5 + 1
        expected = f"stopped by {asking.name} in epoch {epoch} of 4, after {batch} batches; the state is saved"
        with pytest.raises(Stopped, match=expected):
            loop.train_point(PointOptions.read(config), folder=tmp_path / "stopped", splits=splits)
    assert read_progress(PointFolder(tmp_path / "stopped").progress).state == "stopped"
    assert signal.getsignal(asking) == handler
    steps = []
    interrupt(monkeypatch, -1, None)
    counted = loop.Optimization.step
    monkeypatch.setattr(loop.Optimization, "step", lambda *given: (steps.append(1), counted(*given))[1])
    loop.train_point(PointOptions.read(config), folder=tmp_path / "stopped", splits=splits)
    assert len(steps) == 20 - moment - 1, "no step is repeated"
    assert digests(tmp_path / "stopped") == digests(uninterrupted)


def test_a_signal_during_validation_keeps_the_epoch(splits, uninterrupted, tmp_path, monkeypatch):
    config = experiment(dropout=0.3)
    validate = loop._Training._validate

    def stop_and_validate(self, epoch):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, epoch)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="in epoch 2 of 4, after 5 batches"):
        patch.setattr(loop._Training, "_validate", stop_and_validate)
        loop.train_point(PointOptions.read(config), folder=tmp_path / "stopped", splits=splits)
    loop.train_point(PointOptions.read(config), folder=tmp_path / "stopped", splits=splits)
    assert digests(tmp_path / "stopped") == digests(uninterrupted)


def test_a_full_disk_is_an_error_and_the_previous_state_is_kept(splits, uninterrupted, tmp_path, monkeypatch):
    config = experiment(dropout=0.3)

    def fill_the_disk():
        def write(path, content):
            path.open("wb").write(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        monkeypatch.setattr(Path, "write_bytes", write)

    with monkeypatch.context():
        interrupt(monkeypatch, 12, fill_the_disk)
        full = r"state\.pt: the training state cannot be written: No space left on device"
        with pytest.raises(UserError, match=full):
            loop.train_point(PointOptions.read(config), folder=tmp_path / "full", splits=splits)
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "full" / "state").iterdir() if path.name.startswith(".")]
    state = checkpoints.load_state(tmp_path / "full" / "state", [checkpoints.fingerprint(config)])
    assert len(state["history"]) == 2
    loop.train_point(PointOptions.read(config), folder=tmp_path / "full", splits=splits)
    assert digests(tmp_path / "full") == digests(uninterrupted)


def damage_end(content):
    return content[: len(content) // 2]


def damage_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [damage_end, damage_bit, lambda content: b""], ids=["cut off", "a bit", "empty"])
def test_a_damaged_state_is_logged_and_the_previous_one_resumed(
    splits, uninterrupted, tmp_path, caplog, monkeypatch, damage
):
    config = experiment(dropout=0.3)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        interrupt(patch, 12, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.train_point(PointOptions.read(config), folder=tmp_path / "damaged", splits=splits)
    state = tmp_path / "damaged" / "state" / "state.pt"
    state.write_bytes(damage(state.read_bytes()))
    with caplog.at_level("INFO"):
        loop.train_point(PointOptions.read(config), folder=tmp_path / "damaged", splits=splits)
    assert f"{state} is damaged (checksum mismatch)" in caplog.text
    assert "resuming after epoch 2 of 4" in caplog.text
    assert digests(tmp_path / "damaged") == digests(uninterrupted)


def test_there_is_a_complete_state_at_any_moment(tmp_path, monkeypatch):
    """A write that ends at any moment leaves a complete state."""
    state = {"fingerprint": "x", "number": torch.tensor(0)}
    checkpoints.save_state(tmp_path, state)
    real = os.replace
    for moment in range(2):
        calls = iter(range(10))

        def replace(*names, moment=moment, calls=calls):
            if next(calls) == moment:
                raise KeyboardInterrupt
            real(*names)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(atomic.os, "replace", replace)
            checkpoints.save_state(tmp_path, state | {"number": torch.tensor(1)})
        assert checkpoints.load_state(tmp_path, ["x"])["number"] == 0
        checkpoints.save_state(tmp_path, state)
