"""A training run is reproducible, resumes after any interruption, and saves networks that nussl loads."""

import csv
import hashlib
import logging
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import forks
from separation.data.items import Items
from separation.errors import UserError
from separation.experiment.options import NetworkOptions, PointOptions
from separation.features import cache
from separation.files.layout import cache_store
from separation.machine.torch_device import find_device
from separation.networks.build import build_model
from separation.nussl_compat import nussl
from separation.planning.specs import CACHED_KEYS
from separation.training import loop
from separation.training.setup import excerpt_lengths
from training_examples import dataset_config, dataset_options, experiment, point_options, write_split

DROPOUT = {"dropout": 0.3}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_split(folder / "train", count=7, seed=1, uneven=True),
        "val": write_split(folder / "val", count=3, seed=2),
    }


@pytest.fixture
def train(splits, tmp_path):
    def train_in(name, config=None, **options):
        loop.train_point(PointOptions.read(config or experiment()), folder=tmp_path / name, splits=splits, **options)
        return tmp_path / name

    return train_in


@pytest.fixture(scope="module")
def trained(splits, tmp_path_factory):
    """An uninterrupted training with dropout, which draws random numbers in each step."""
    folder = tmp_path_factory.mktemp("points") / "uninterrupted"
    loop.train_point(point_options(**DROPOUT), folder=folder, splits=splits)
    return folder


def digest(folder):
    """Digests of both checkpoints."""
    return [hashlib.sha256((folder / "checkpoints" / name).read_bytes()).hexdigest() for name in CHECKPOINTS]


CHECKPOINTS = ("best.model.pth", "latest.model.pth")


def weights(folder, name="latest"):
    return torch.load(folder / "checkpoints" / f"{name}.model.pth", weights_only=False)["state_dict"]


def history(folder, *leave_out):
    with open(folder / "history.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    return [{key: value for key, value in row.items() if key not in leave_out} for row in rows]


TIMES = ("seconds", "samples_per_second", "loader_wait_share", "memory_mb")


def test_the_same_config_trained_twice_gives_the_same_bytes(trained, train):
    again = train("again", experiment(**DROPOUT))
    assert digest(again) == digest(trained)
    assert history(again, *TIMES) == history(trained, *TIMES)


def test_another_seed_gives_other_weights(trained, train):
    other = train("other", experiment(seed=1, **DROPOUT))
    assert not torch.equal(*[weights(folder)["layers.embedding.linear.weight"] for folder in (trained, other)])


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_failed_training_resumes_and_ends_in_the_same_bytes(trained, train, monkeypatch, tmp_path, finished):
    learn = loop._Training._train_epoch

    def fail(self, epoch, plan):
        result = learn(self, epoch, plan)
        if epoch == finished:
            raise OSError("no space left on device")
        return result

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(loop._Training, "_train_epoch", fail)
        train("stopped", experiment(**DROPOUT))
    assert not (tmp_path / "stopped" / "checkpoints").exists()
    assert len(history(tmp_path / "stopped")) == finished if finished else True
    epochs = []
    monkeypatch.setattr(
        loop._Training, "_train_epoch", lambda self, epoch, plan: (epochs.append(epoch), learn(self, epoch, plan))[1]
    )
    stopped = train("stopped", experiment(**DROPOUT))
    assert epochs == list(range(finished, 4))
    assert digest(stopped) == digest(trained)
    assert history(stopped, *TIMES) == history(trained, *TIMES)


def train_and_die(folder, splits):
    """Trains and is killed before the state after the third epoch is written."""
    save = loop.save_state

    def save_or_die(folder, state):
        if len(state["history"]) == 3:
            forks.die()
        save(folder, state)

    loop.save_state = save_or_die
    loop.train_point(point_options(**DROPOUT), folder=folder, splits=splits)


def test_a_killed_training_resumes_and_ends_in_the_same_bytes(trained, splits, train, tmp_path):
    assert forks.run(train_and_die, (tmp_path / "killed", splits)) == [-signal.SIGKILL]
    assert len(history(tmp_path / "killed")) == 2
    stopped = train("killed", experiment(**DROPOUT))
    assert digest(stopped) == digest(trained)


def test_deleted_checkpoints_of_a_finished_training_are_restored_without_training(
    trained, train, monkeypatch, tmp_path
):
    train("point", experiment(**DROPOUT))
    for name in ("checkpoints/best.model.pth", "history.csv"):
        (tmp_path / "point" / name).unlink()
    monkeypatch.setattr(loop._Training, "_train_epoch", None)
    assert digest(train("point", experiment(**DROPOUT))) == digest(trained)
    assert history(tmp_path / "point", *TIMES) == history(trained, *TIMES)


def test_a_state_with_other_settings_is_not_resumed(train, caplog):
    expected = digest(train("expected"))
    train("point", experiment(learning_rate=0.02))
    with caplog.at_level(logging.WARNING):
        assert digest(train("point")) == expected
    assert "other settings" in caplog.text


def test_a_damaged_state_is_logged_and_skipped(train, caplog):
    expected = digest(train("point"))
    (train("broken") / "state" / "state.pt").write_bytes(b"PK not a state")
    with caplog.at_level(logging.WARNING):
        assert digest(train("broken")) == expected
    assert "is damaged (checksum mismatch)" in caplog.text


def test_weights_depend_neither_on_the_cache_nor_on_workers(train, splits, tmp_path):
    plain = digest(train("plain"))
    assert digest(train("workers", experiment(num_workers=2))) == plain
    config = dataset_config()
    spec = {
        "dataset_config": {key: config[key] for key in CACHED_KEYS},
        "keys": config["data_keys_for_training"],
        "kind": "features",
        "format": 1,
    }
    caches = {name: tmp_path / "cache" / f"{name}.json" for name in splits}
    for name, manifest in caches.items():
        cache.populate_cache(spec, splits[name], manifest)
    assert digest(train("cached", caches=caches)) == plain
    # a pruned cache is filled again by the training job job
    for file in cache_store(caches["val"]).rglob("*"):
        if file.is_file():
            file.unlink()
    assert digest(train("refilled", caches=caches)) == plain
    assert cache.find_damage(caches["val"], contents=True) is None


def test_the_best_checkpoint_has_the_lowest_validation_loss(train, monkeypatch):
    losses = iter([0.5, 0.2, 0.4, 0.2])
    seen = []

    def validate(self, epoch):
        seen.append({key: value.clone() for key, value in self.model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(loop._Training, "_validate", validate)
    folder = train("point")
    assert [row["best"] for row in history(folder)] == ["True", "True", "False", "False"]
    for name, epoch in (("best", 1), ("latest", 3)):
        for key, value in weights(folder, name).items():
            assert torch.equal(value, seen[epoch][key])


def test_the_learning_rate_falls_after_patience_epochs_without_improvement(train, monkeypatch):
    monkeypatch.setattr(loop._Training, "_validate", lambda self, epoch: 1.0)
    rates = [float(row["learning_rate"]) for row in history(train("point", experiment(num_epochs=6, patience=1)))]
    assert rates == [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025]


def test_training_reduces_the_losses(trained):
    rows = history(trained)
    assert float(rows[-1]["train_loss"]) < 0.8 * float(rows[0]["train_loss"])
    assert min(float(row["validation_loss"]) for row in rows) < float(rows[0]["validation_loss"])
    assert all(float(row["gradient_norm"]) > 0 for row in rows)


def test_validation_loss_equals_that_of_nussls_validation_closure(trained, splits):
    """The mean over the middle excerpts, with nussl's loss, network and features, in evaluation mode."""
    model, _ = nussl.ml.SeparationModel.load(str(trained / "checkpoints" / "latest.model.pth"))
    config = dataset_config()
    closure = nussl.ml.train.closures.ValidationClosure({"DeepClusteringLoss": {}}, model)
    transforms = nussl.datasets.transforms
    prepare = transforms.Compose(
        [
            transforms.PhaseSensitiveSpectrumApproximation(),
            transforms.MagnitudeWeights(),
            transforms.ToSeparationModel(),
        ]
    )
    losses = []
    for item in Items(splits["val"], dataset_options()):
        data = prepare({"mix": item.mixture, "sources": dict(item.sources)})
        start = (len(data["mix_magnitude"]) - config["length"]) // 2
        middle = slice(start, start + config["length"])
        excerpt = {key: value[None, middle].float().contiguous() for key, value in data.items()}
        losses.append(closure(None, excerpt)["loss"])
    assert float(history(trained)[-1]["validation_loss"]) == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_loss_curve_equals_that_of_nussls_trainer(tmp_path):
    """nussl's dataset, transforms, loader, closure and engine, with the same initial weights and batches."""
    config = experiment(num_epochs=6, patience=9, sample_strategy="sequential", batch_size=2)
    # as long as an excerpt, so that both cut the same
    length = config["dataset_config"]["length"]
    splits = {
        name: write_split(tmp_path / name, count=6, seed=seed, seconds=1248 / 8000)
        for seed, name in enumerate(("train", "val"))
    }
    loop.train_point(PointOptions.read(config), folder=tmp_path / "ours", splits=splits)
    for name in splits:
        for index in range(6):
            for source, folder in (("mixture", "mix"), ("vocals", "vocals"), ("drums", "drums")):
                target = tmp_path / "folders" / name / folder
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(tmp_path / name / f"{index:06d}_{source}.wav", target / f"{index:06d}.wav")
    transforms = nussl.datasets.transforms
    prepare = transforms.Compose(
        [
            transforms.PhaseSensitiveSpectrumApproximation(),
            transforms.MagnitudeWeights(),
            transforms.ToSeparationModel(),
            transforms.GetExcerpt(length, time_dim=0),
        ]
    )
    parameters = nussl.STFTParams(*(config["dataset_config"][key] for key in ("n_fft", "hop_length", "window_type")))
    loaders = [
        torch.utils.data.DataLoader(
            nussl.datasets.MixSourceFolder(str(tmp_path / "folders" / name), transform=prepare, stft_params=parameters),
            batch_size=2,
        )
        for name in splits
    ]
    frequencies = config["dataset_config"]["n_fft"] // 2 + 1
    model = build_model(
        NetworkOptions.read(config["model_config"]), seed=config["info"]["seed"], num_frequencies=frequencies
    )
    closures = nussl.ml.train.closures
    losses = {"DeepClusteringLoss": {}}
    optimizer = torch.optim.Adam(model.parameters(), lr=config["train_config"]["learning_rate"])
    trainer, validator = nussl.ml.train.create_train_and_validation_engines(
        closures.TrainClosure(losses, optimizer, model), closures.ValidationClosure(losses, model)
    )
    nussl.ml.train.add_validate_and_checkpoint(
        str(tmp_path / "nussl"), model, optimizer, loaders[0].dataset, trainer, loaders[1], validator
    )
    trainer.run(loaders[0], max_epochs=6)
    for ours, theirs in (("train_loss", "train/loss"), ("validation_loss", "validation/loss")):
        curve = [float(row[ours]) for row in history(tmp_path / "ours")]
        np.testing.assert_allclose(curve, trainer.state.epoch_history[theirs], rtol=2e-4)
        assert curve[-1] < 0.9 * curve[0]


def test_nussls_deep_clustering_separates_with_a_checkpoint(trained, splits):
    mixture = Items(splits["val"], dataset_options())[0].mixture
    path = str(trained / "checkpoints" / "best.model.pth")
    algorithm = nussl.separation.deep.DeepClustering(mixture, num_sources=2, model_path=path, mask_type="soft")
    estimates = algorithm()
    assert len(estimates) == 2
    assert all(estimate.audio_data.shape == mixture.audio_data.shape for estimate in estimates)
    np.testing.assert_allclose(sum(e.audio_data for e in estimates), mixture.audio_data, atol=1e-6)
    assert algorithm.metadata["sample_rate"] == 8000
    assert algorithm.metadata["stft_params"] == nussl.STFTParams(64, 32, "sqrt_hann")


def test_a_mask_inference_network_is_trained_and_loaded_by_nussl(train, splits):
    config = experiment(
        dataset={"data_keys_for_training": ["mix_magnitude", "source_magnitudes"]},
        loss_function=[["pit:l1", "estimates", 1.0]],
    )
    model = config["model_config"]
    embedding = model["modules"].pop("embedding")
    embedding["args"] |= {"embedding_size": 2, "activation": ["sigmoid"]}
    model["modules"] |= {"mask": embedding, "estimates": {"class": "Mask"}}
    model["connections"][-1:] = [["mask", ["recurrent_stack"]], ["estimates", ["mask", "mix_magnitude"]]]
    model["output"] = ["mask", "estimates"]
    folder = train("point", config)
    mixture = Items(splits["val"], dataset_options())[0].mixture
    path = str(folder / "checkpoints" / "best.model.pth")
    assert len(nussl.separation.deep.DeepMaskEstimation(mixture, model_path=path, mask_type="soft")()) == 2


def test_no_path_of_the_machine_is_in_a_checkpoint(trained, splits):
    content = (trained / "checkpoints" / "best.model.pth").read_bytes()
    assert b"dpcl-example-s0-0123456789ab" in content
    assert str(Path(splits["train"]["folder"]).parent.parent).encode() not in content


def test_tensorboard_shows_each_epoch_once_after_a_restart(train, monkeypatch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learn = loop._Training._train_epoch
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(
            loop._Training, "_train_epoch", lambda self, epoch, plan: learn(self, epoch, plan) if epoch < 2 else 1 / 0
        )
        train("point")
    events = EventAccumulator(str(train("point") / "tensorboard")).Reload()
    rows = history(tmp_path / "point")
    logged = {event.step: event.value for event in events.Scalars("validation/loss")}
    assert sorted(event.step for event in events.Scalars("validation/loss")) == [1, 2, 3, 4]
    assert [logged[epoch] for epoch in (1, 2, 3, 4)] == pytest.approx([float(row["validation_loss"]) for row in rows])


def test_a_loss_that_is_not_finite_is_an_error_with_epoch_and_learning_rate(train):
    with pytest.raises(UserError, match=r"the loss is inf in epoch 1 at learning rate 0.01"):
        train("point", experiment(loss_function=[["dpcl", "embedding", 1e39]]))


def test_excerpt_lengths_follow_the_curriculum():
    steps = [
        {"command": "set_current_length", "args": [30], "num_epoch": 1},
        {"command": "set_current_length", "args": [40], "num_epoch": 3},
    ]
    config = experiment(initial_length=20, curriculum_learning=steps)
    assert excerpt_lengths(PointOptions.read(config).training, dataset_options()) == [20, 30, 30, 40]
    assert excerpt_lengths(point_options().training, dataset_options()) == [40] * 4
    steps[0]["command"] = "set_length"
    with pytest.raises(UserError, match="set_current_length, found 'set_length'"):
        excerpt_lengths(PointOptions.read(config).training, dataset_options())


def test_a_training_restores_the_settings_of_torch(train):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state()
    train("point", experiment(num_epochs=1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_a_missing_gpu_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto").type == "cpu"
    with pytest.raises(UserError, match="expected a GPU that torch can use for 'cuda', found none"):
        find_device("cuda")
    with pytest.raises(UserError, match="expected auto, cpu or cuda, found 'gpu'"):
        find_device("gpu")
