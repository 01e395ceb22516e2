"""Networks of other kinds: on waveforms, and with the user's own modules, losses and algorithms."""

import csv
import inspect
import queue
import sys
import textwrap

import numpy as np
import pytest

import experiments
from separation.data.items import Items
from separation.errors import UserError
from separation.evaluation.evaluate import evaluate_point
from separation.experiment.config import ROOT
from separation.experiment.options import PointOptions
from separation.experiment.user_classes import find_extras
from separation.files.yaml_reader import read_yaml
from separation.nussl_compat import nussl
from separation.training import loop
from separation.training.user_modules import load_extras
from training_examples import dataset_options, experiment, write_split


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_split(folder / "train", count=8, seed=1),
        "val": write_split(folder / "val", count=2, seed=2),
    }


@pytest.fixture(autouse=True)
def without_own_classes():
    """Removes the classes that a test has registered with nussl."""
    packages = (nussl.ml.networks.modules, nussl.ml.train.loss)
    before = [set(vars(package)) for package in packages]
    yield
    for package, names in zip(packages, before, strict=True):
        for name in set(vars(package)) - names:
            delattr(package, name)


def history(folder):
    with open(folder / "history.csv", newline="") as source:
        return [float(row["train_loss"]) for row in csv.DictReader(source)]


@pytest.mark.parametrize(
    "loss", [["SISDRLoss", "audio"], ["PermutationInvariantLoss", "audio", 1.0, {"loss_function": "SISDRLoss"}]]
)
def test_a_dual_path_network_learns_from_waveforms_and_separates(splits, tmp_path, loss):
    config = experiment(
        dataset={
            "data_keys_for_training": ["mix_audio", "source_audio"],
            "length": 40,
            "excerpt_selection_strategy": "first",
        },
        loss_function=[loss],
        num_epochs=6,
        learning_rate=0.01,
        gradient_clipping=5.0,
    )
    model = read_yaml(ROOT / "config/experiments/music_tasnet.yml").value["model_config"]
    model["modules"]["filter_bank"]["args"] |= {"num_filters": 16}
    model["modules"]["dual_path"]["args"] |= {"in_features": 16, "bottleneck_size": 32}
    model["modules"]["mask"]["args"] |= {"num_features": 16, "hidden_size": 16}
    config["model_config"] = model
    loop.train_point(PointOptions.read(config), folder=tmp_path, splits=splits)
    losses = history(tmp_path)
    assert losses[-1] < losses[0] - 1, "in dB"
    mixture = Items(splits["val"], dataset_options())[0].mixture
    path = str(tmp_path / "checkpoints" / "best.model.pth")
    estimates = nussl.separation.deep.DeepAudioEstimation(mixture, model_path=path)()
    assert [estimate.audio_data.shape for estimate in estimates] == [mixture.audio_data.shape] * 2
    assert all(np.abs(estimate.audio_data).max() > 0 for estimate in estimates)


OWN = '''
    import torch
    import nussl
    from own_helpers import double

    class Doubled(torch.nn.Module):
        """Doubles its input."""
        def forward(self, data):
            return double(data)

    class SquaredNorm(torch.nn.Module):
        DEFAULT_KEYS = {"embedding": "embedding", "weights": "weights"}
        def __init__(self, scale=1.0):
            super().__init__()
            self.scale = scale
        def forward(self, embedding, weights):
            return self.scale * (weights.unsqueeze(-1) * embedding ** 2).mean()

    class Halves(nussl.separation.base.SeparationBase):
        def run(self):
            return None
        def make_audio_signals(self):
            audio = self.audio_signal.audio_data
            return [self.audio_signal.make_copy_with_audio_data(share * audio) for share in (0.25, 0.75)]

    class _Private:
        pass
'''


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    (path / "own.py").write_text(textwrap.dedent(OWN))
    (path / "own_helpers.py").write_text("def double(data):\n    return 2 * data\n")
    return path


def own_experiment(folder):
    config = experiment(loss_function=[["SquaredNorm", "embedding", 1.0, {"scale": 3.0}]], num_epochs=1)
    config["info"]["extras"] = str(folder)
    config["model_config"]["modules"]["doubled"] = {"class": "Doubled"}
    connections = config["model_config"]["connections"]
    connections[1:2] = [["doubled", ["log_spectrogram"]], ["normalization", ["doubled"]]]
    config["algorithm_config"] = {"class": "Halves", "args": {}}
    config["test_config"] = {"testers": [{"BSSEvalScale": {"compute_permutation": False}}], "keep_estimates": "none"}
    return config


def test_the_users_module_loss_and_algorithm_run_from_training_to_scores(splits, tmp_path, folder):
    config = own_experiment(folder)
    loop.train_point(PointOptions.read(config), folder=tmp_path / "point", splits=splits)
    # squares of unit-norm embeddings of 4 numbers, times the weights, times 3: about 3 / 4 of the mean weight
    assert 0.1 < history(tmp_path / "point")[0] < 2
    scores = tmp_path / "scores.parquet"
    checkpoint = tmp_path / "point" / "checkpoints" / "best.model.pth"
    evaluate_point(
        PointOptions.read(config),
        point="p",
        evaluation="e",
        checkpoint=checkpoint,
        test=splits["val"],
        scores=scores,
        threads=2,
    )
    import pandas

    table = pandas.read_parquet(scores)
    assert len(table) == 4
    mixture = Items(splits["val"], dataset_options())[0]
    source = mixture.sources["vocals"].audio_data
    share = (0.25, 0.75)[list(mixture.sources).index("vocals")]
    noise = share * mixture.mixture.audio_data - source
    expected = 10 * np.log10((source**2).sum() / (noise**2).sum())
    assert table.query("item == '000000' and source == 'vocals'")["SNR"].item() == pytest.approx(expected, abs=0.01)


def test_a_file_with_the_name_of_a_python_module_is_imported(folder):
    (folder / "own.py").rename(folder / "queue.py")
    load_extras(PointOptions.read(own_experiment(folder)))
    assert sys.modules["queue"] is queue, "Python's module stays in place"
    assert nussl.ml.networks.modules.Doubled.__module__ == "extras_queue"
    assert "Doubles its input" in inspect.getsource(nussl.ml.networks.modules.Doubled)


def test_a_file_that_another_one_imports_is_one_module(folder):
    (folder / "first.py").write_text(
        "import torch\nimport second_of_two\n\nclass First(second_of_two.Second):\n    pass\n"
    )
    (folder / "second_of_two.py").write_text("import torch\n\nclass Second(torch.nn.Module):\n    pass\n")
    config = own_experiment(folder)
    config["model_config"]["modules"] |= {"first": {"class": "First"}, "second": {"class": "Second"}}
    load_extras(PointOptions.read(config))
    modules = nussl.ml.networks.modules
    assert issubclass(modules.First, modules.Second)


def point_of(folder, loss="SquaredNorm"):
    """The ids of the point and of its evaluation."""
    content = experiments.experiment(
        info__extras=str(folder),
        train_config__loss_function=[[loss, "embedding", 1.0]],
        algorithm_config={"class": "Halves", "args": {}},
    )
    ((point, evaluation),) = experiments.plan(content, folder.parent).evaluations
    return point, evaluation


def test_changed_code_gives_another_point(folder):
    point, evaluation = point_of(folder)
    assert point_of(folder) == (point, evaluation)
    (folder / "unused.py").write_text("class Unused:\n    pass\n")
    assert point_of(folder) == (point, evaluation), "unused classes change no id"
    (folder / "own_helpers.py").write_text("def double(data):\n    return 2.5 * data\n")
    changed = point_of(folder)
    assert changed[0] != point, "the loss's file imports it"
    assert changed[1] != evaluation


def test_mistakes_in_the_users_code_are_reported_in_one_line(folder, splits, tmp_path):
    with pytest.raises(UserError, match=r"unknown loss 'SquaredNorn'; did you mean 'SquaredNorm'"):
        point_of(folder, loss="SquaredNorn")
    with pytest.raises(UserError, match=r"info.extras: no such folder: nowhere"):
        find_extras("nowhere")
    own = folder / "own.py"
    own.write_text(own.read_text() + "\nraise RuntimeError('not today')\n")
    with pytest.raises(UserError, match=r"own\.py: cannot be imported: RuntimeError: not today"):
        loop.train_point(PointOptions.read(own_experiment(folder)), folder=tmp_path / "point", splits=splits)
    (folder / "other.py").write_text("class Doubled:\n    pass\n")
    with pytest.raises(UserError, match=r"own\.py: the class Doubled is also defined in .*other\.py"):
        find_extras(folder)
    (folder / "other.py").write_text("class :\n")
    with pytest.raises(UserError, match=r"other\.py:1: invalid Python: invalid syntax"):
        find_extras(folder)
    assert find_extras(None).classes == {}
