"""Every option of the optimizer has its documented effect."""

import csv
import math

import numpy as np
import pytest
import torch

from separation.errors import UserError
from separation.experiment.nussl_signatures import OPTIMIZERS
from separation.experiment.options import PointOptions
from separation.nussl_compat import nussl
from separation.training import loop
from separation.training.optimizer import LearningRateSchedule, Optimization, make_optimizer
from training_examples import experiment, point_options, write_split


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_split(folder / "train", count=8, seed=1),
        "val": write_split(folder / "val", count=3, seed=2),
    }


@pytest.fixture
def train(splits, tmp_path):
    def train_in(name, **changes):
        loop.train_point(point_options(**changes), folder=tmp_path / name, splits=splits)
        return tmp_path / name

    return train_in


def history(folder, key="train_loss"):
    with open(folder / "history.csv", newline="") as source:
        return [float(row[key]) for row in csv.DictReader(source)]


def weights(folder, name="latest"):
    return torch.load(folder / "checkpoints" / f"{name}.model.pth", weights_only=False)["state_dict"]


def options(**changes):
    return point_options(**changes).training


def test_the_known_optimizers_are_those_of_torch():
    found = {name.lower() for name, value in vars(torch.optim).items() if isinstance(value, type)}
    assert set(OPTIMIZERS) == found - {"optimizer"}


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in ("muon", "sparseadam")])
def test_every_optimizer_of_torch_reduces_the_loss(train, optimizer):
    rates = {"adadelta": 50.0, "adafactor": 0.1, "asgd": 20.0, "lbfgs": 0.1, "radam": 0.5, "sgd": 20.0, "adagrad": 0.05}
    # the same excerpts in every epoch, so that losses can be compared
    changes = {"dataset": {"excerpt_selection_strategy": "middle"}, "num_epochs": 3}
    losses = history(train("point", optimizer=optimizer, learning_rate=rates.get(optimizer, 0.01), **changes))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": "adman"}, r"train_config.optimizer: expected one of .*adam"),
        ({"optimizer": "muon"}, r"train_config.optimizer: muon cannot be used: .*2D"),
        (
            {"optimizer": "adam", "optimizer_args": {"momentum": 0.9}},
            "optimizer_args: adam does not take 'momentum'",
        ),
        (
            {"optimizer": "sgd", "optimizer_args": {"lr": 0.9}},
            "sgd does not take 'lr' here; expected some of mom",
        ),
        ({"optimizer": "lbfgs", "weight_decay": 0.1}, r"lbfgs has no weight decay, found 0.1"),
        ({"optimizer": "sgd", "optimizer_args": {"momentum": -1}}, r"sgd cannot be used: Invalid momentum value: -1"),
    ],
)
def test_an_invalid_optimizer_is_an_error_that_names_the_cause(changes, expected):
    with pytest.raises(UserError, match=expected):
        make_optimizer(torch.nn.Linear(2, 2), options(**changes))


def test_optimizer_arguments_are_passed():
    optimizer = make_optimizer(
        torch.nn.Linear(2, 2),
        options(optimizer="AdamW", optimizer_args={"betas": [0.5, 0.6]}, learning_rate=0.3, weight_decay=0.1),
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    defaults = optimizer.defaults
    assert (defaults["betas"], defaults["lr"], defaults["weight_decay"]) == ((0.5, 0.6), 0.3, 0.1)


def rates(steps_per_epoch=2, epochs=4, losses=None, **changes):
    rate = LearningRateSchedule(options(num_epochs=epochs, learning_rate=1.0, **changes), steps_per_epoch)
    found = []
    for epoch in range(epochs):
        found += [rate.at(epoch * steps_per_epoch + step) for step in range(steps_per_epoch)]
        rate.end_epoch(losses[epoch] if losses else 1.0)
    return found


def test_schedules_follow_their_formulas():
    assert rates(learning_rate_schedule="constant") == [1.0] * 8
    assert rates(learning_rate_schedule="exponential") == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert rates(learning_rate_schedule="cosine") == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    )
    assert rates(learning_rate_schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_the_plateau_schedule_equals_torchs():
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.8, 0.8]
    found = rates(1, 8, losses, patience=1, learning_rate_decay=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)
    assert found == expected
    assert len(set(found)) > 1


def test_the_history_has_the_learning_rate_of_the_schedule(train):
    folder = train("point", learning_rate_schedule="exponential", learning_rate=0.01)
    assert history(folder, "learning_rate") == [0.01, 0.005, 0.0025, 0.00125]


def test_accumulated_batches_equal_one_large_batch(splits, tmp_path):
    for name, changes in (("large", {"batch_size": 3}), ("small", {"batch_size": 1, "gradient_accumulation": 3})):
        config = experiment(num_epochs=2, **changes)
        # without batch normalization, whose statistics depend on the batch
        del config["model_config"]["modules"]["normalization"]
        config["model_config"]["connections"][1:3] = [["recurrent_stack", ["log_spectrogram"]]]
        loop.train_point(PointOptions.read(config), folder=tmp_path / name, splits=splits)
    # 8 items: steps of 3, 3 and 2
    assert history(tmp_path / "small") == pytest.approx(history(tmp_path / "large"), rel=1e-5)
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    for key, value in large.items():
        torch.testing.assert_close(small[key], value, rtol=1e-3, atol=1e-5)


def test_clipping_bounds_the_step(train):
    sgd = {"optimizer": "sgd", "learning_rate": 1.0, "num_epochs": 1, "batch_size": 8, "weight_decay": 0.0}
    start = train("start", **sgd | {"learning_rate": 1e-30})
    moved = train("moved", gradient_clipping=1e-3, **sgd)
    before, after = weights(start), weights(moved)
    trained = [key for key in before if "running" not in key and "num_batches" not in key]
    distance = math.sqrt(sum(float(((after[key] - before[key]) ** 2).sum()) for key in trained))
    assert distance == pytest.approx(1e-3, rel=1e-2)
    assert history(moved, "gradient_norm")[0] > 1e-3, "the history holds the norm before clipping"


def test_averaged_weights_are_saved_and_validated(splits, train, monkeypatch):
    seen = []
    step = Optimization.step

    def record(self, compute_gradients):
        result = step(self, compute_gradients)
        seen.append({key: value.clone() for key, value in self._model.named_parameters()})
        return result

    monkeypatch.setattr(Optimization, "step", record)
    folder = train("point", ema_decay=0.5, num_epochs=2)
    expected = seen[0]
    for later in seen[1:]:
        expected = {key: 0.5 * value + 0.5 * later[key] for key, value in expected.items()}
    saved = weights(folder)
    for key, value in expected.items():
        torch.testing.assert_close(saved[key], value.detach())
    assert not torch.equal(saved["layers.embedding.linear.weight"], seen[-1]["layers.embedding.linear.weight"])
    assert history(folder, "validation_loss") != history(train("plain", num_epochs=2), "validation_loss")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_gives_nearly_the_losses_of_float32(train, precision):
    mixed, plain = history(train("mixed", precision=precision)), history(train("plain"))
    assert mixed != plain
    assert mixed == pytest.approx(plain, rel=0.05)
    assert all(value.dtype == torch.float32 for key, value in weights(train("mixed")).items() if "num_" not in key)


def test_early_stopping_ends_after_its_patience(train, monkeypatch, caplog):
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.3])
    monkeypatch.setattr(loop._Training, "_validate", lambda self, epoch: next(losses))
    with caplog.at_level("INFO"):
        folder = train("point", early_stopping=2, num_epochs=10)
    assert history(folder, "validation_loss") == [0.5, 0.4, 0.45, 0.41]
    assert "no better validation loss for 2 epochs" in caplog.text
    # a finished run does not continue
    assert len(history(train("point", early_stopping=2, num_epochs=10))) == 4


def test_max_time_ends_a_training_with_its_finished_epochs(train):
    folder = train("point", max_time=1e-6, num_epochs=10)
    assert len(history(folder)) == 1
    assert (folder / "checkpoints" / "best.model.pth").exists()
    assert len(history(train("point", max_time=1e-6, num_epochs=10))) == 1


def test_save_by_epoch_saves_networks_that_nussl_loads(train):
    folder = train("point", save_by_epoch=2)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["best.model.pth", "epoch2.model.pth", "epoch4.model.pth", "latest.model.pth"]
    model, _ = nussl.ml.SeparationModel.load(str(folder / "checkpoints" / "epoch2.model.pth"))
    assert sum(parameter.numel() for parameter in model.parameters()) > 1000
    assert torch.equal(
        weights(folder, "epoch4")["layers.embedding.linear.weight"], weights(folder)["layers.embedding.linear.weight"]
    )


def test_a_gradient_that_is_not_finite_is_an_error_after_its_step(train, monkeypatch):
    def poison(parameters, limit):
        return torch.tensor(np.nan)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poison)
    with pytest.raises(UserError, match=r"the norm of the gradient is nan in epoch 1 at learning rate 0\.01, after 1 "):
        train("point")


def test_several_losses_are_weighted(splits, tmp_path):
    def config(*losses):
        content = experiment(
            dataset={"data_keys_for_training": ["mix_magnitude", "ideal_binary_mask", "weights", "source_magnitudes"]},
            num_epochs=1,
            learning_rate=1e-30,
            loss_function=[list(loss) for loss in losses],
        )
        model = content["model_config"]
        model["modules"]["mask"] = {
            "class": "Embedding",
            "args": {"num_features": 33, "hidden_size": 16, "embedding_size": 2, "activation": ["sigmoid"]},
        }
        model["modules"]["estimates"] = {"class": "Mask"}
        model["connections"] += [["mask", ["recurrent_stack"]], ["estimates", ["mask", "mix_magnitude"]]]
        model["output"] += ["mask", "estimates"]
        return content

    def loss(name, *losses):
        loop.train_point(PointOptions.read(config(*losses)), folder=tmp_path / name, splits=splits)
        return history(tmp_path / name)[0]

    dpcl = loss("dpcl", ("dpcl", "embedding", 1.0))
    mask = loss("mask", ("pit:l1", "estimates", 1.0))
    chimera = loss("chimera", ("dpcl", "embedding", 0.75), ("pit:l1", "estimates", 0.25))
    assert chimera == pytest.approx(0.75 * dpcl + 0.25 * mask, rel=1e-5)
