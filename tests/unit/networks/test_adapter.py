"""Any torch module as the network of an experiment: from its line of YAML to scores."""

import json
import re
import sys
import textwrap

import numpy as np
import pandas
import pytest
import torch
import yaml

from experiments import plan
from separation.errors import UserError
from separation.evaluation.evaluate import evaluate_point
from separation.experiment.config import ROOT
from separation.experiment.options import NetworkOptions, PointOptions
from separation.experiment.torch_networks import PACKAGES, package_version
from separation.files.yaml_reader import read_yaml
from separation.networks.adapter import TorchNetwork
from separation.networks.build import build_model
from separation.training import loop
from training_examples import experiment, write_split

PACKAGE = """
    import torch

    class Gains(torch.nn.Module):
        def __init__(self, sources, size=1, bands: tuple[int, ...] = (1, 2)):
            super().__init__()
            assert isinstance(bands, tuple)
            self.gains = torch.nn.Parameter(torch.linspace(0.2, 0.8, sources))
        def forward(self, mixture):
            return self.gains[:, None, None] * mixture[:, None]

    class SourcesLast(Gains):
        '''(samples, batch) to (samples, sources, batch)'''
        def forward(self, mixture):
            assert mixture.ndim == 2
            return mixture[:, None] * self.gains[:, None]

    class Nested(Gains):
        def forward(self, mixture):
            return torch.zeros(3), {"estimates": super().forward(mixture)}

    class Longer(Gains):
        def forward(self, mixture):
            return torch.nn.functional.pad(super().forward(mixture), (0, 7))

    class Shorter(Gains):
        def forward(self, mixture):
            return super().forward(mixture)[..., 1:]

    class NotANumber(Gains):
        def forward(self, mixture):
            return super().forward(mixture) * float("nan")

    def function(sources):
        return None
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with networks, as one that is installed."""
    folder = tmp_path / "packages" / "some_networks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('planning must not import it')")
    (folder / "gains.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    for name in [name for name in sys.modules if name.startswith("some_networks")]:
        del sys.modules[name]


@pytest.fixture
def importable(package):
    (package / "__init__.py").write_text("")


def content(model, **changes):
    found = read_yaml(ROOT / "config/experiments/music_tasnet.yml").value
    found.pop("sweep")
    found["model_config"] = model
    for key, value in changes.items():
        section, _, name = key.partition("__")
        found[section][name] = value
    return found


GAINS = {"class": "some_networks.gains.Gains", "args": {"sources": 2}}


# planning ------------------------------------------------------------------------------------------------------------


def test_class_arguments_and_package_determine_the_id(package, tmp_path):
    def point(model, **more):
        return plan(content(model, **more), tmp_path).rows[0].point

    first = point(GAINS)
    assert point({**GAINS, "axes": None, "select": []}) == first
    assert point({**GAINS, "args": {"sources": 2.0}}) == first
    others = [
        point({**GAINS, "args": {"sources": 3}}),
        point({**GAINS, "class": "some_networks.gains.Longer", "args": {"sources": 2}}),
        point({**GAINS, "axes": {"output": "s b c t"}}),
        point({"class": "ConvTasNet"}),
    ]
    assert len({first, *others}) == 5
    assert "some_networks" not in sys.modules


def test_the_version_of_an_installed_package_is_part_of_the_id():
    # any installed package that is no network serves
    found = package_version({"class": "torchmetrics.Metric"})
    assert list(found) == ["torchmetrics"] and re.match(r"\d+\.", found["torchmetrics"])
    assert package_version({"class": "ConvTasNet"}) == package_version({}) == {}


def test_networks_and_their_arguments_are_swept(package, tmp_path):
    sweep = [{"model_config.class": ["ConvTasNet"], "model_config.args.num_filters": [64, 128]}, {"sources": [2, 3]}]
    rows = plan(content(GAINS | {"args": {"sources": 2}}) | {"sweep": sweep[1:]}, tmp_path).rows
    assert [row.swept for row in rows] == [{"sources": 2}, {"sources": 3}]
    rows = plan(content({"class": "ConvTasNet", "args": {"num_blocks": 2}}) | {"sweep": sweep[:1]}, tmp_path).rows
    assert len({row.point for row in rows}) == 2


def test_labels_have_the_arguments_of_a_network_only_if_nothing_else_tells_points_apart(tmp_path):
    small, large = {"num_filters": 32}, {"num_filters": 64}
    groups = [("ConvTasNet", small), ("SepFormer", small)]

    def labels(groups):
        parameters = [{"model_config.class": name, "model_config.args": args} for name, args in groups]
        rows = plan(content({"class": "ConvTasNet"}) | {"sweep": [{"multiple_parameters": parameters}]}, tmp_path).rows
        return [row.label for row in rows]

    assert labels([("ConvTasNet", small), ("SepFormer", large)]) == ["class=ConvTasNet", "class=SepFormer"]
    assert labels(groups) == ["class=ConvTasNet", "class=SepFormer"]
    assert labels([("ConvTasNet", small), ("ConvTasNet", large)]) == [
        'args={"num_filters":32}',
        'args={"num_filters":64}',
    ]


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ({"class": "ConvTasnet"}, "class", "unknown network 'ConvTasnet'; did you mean 'ConvTasNet'?"),
        (
            {"class": "no_such_package.Net"},
            "class",
            "package no_such_package is not installed; install it with: .venv/bin/python -m pip install --no-deps",
        ),
        ({"class": "some_networks.gain.Gains"}, "class", "package some_networks has no module some_networks.gain"),
        (
            {"class": "some_networks.gains.Gain"},
            "class",
            "some_networks.gains has no class 'Gain'; did you mean 'Gains'?",
        ),
        ({"class": "some_networks.gains.Gains"}, "args", "missing argument 'sources' of Gains"),
        (
            {"class": "some_networks.gains.Gains", "args": {"source": 2}},
            "args.source",
            "unknown argument; did you mean 'sources'?",
        ),
        (
            {"class": "ConvTasNet", "args": {"sources": 2}},
            "args.sources",
            "unknown argument; did you mean 'num_sources'?",
        ),
        ({"class": "ConvTasNet", "modules": {"a": {}}}, "modules", "only a SeparationModel has modules"),
        (
            {"class": "ConvTasNet", "axes": {"output": "b s x t"}},
            "axes.output",
            "expected the axes b s c t in any order (c may be left out for mono, s for one source), found 'b s x t'",
        ),
        ({"class": "SeparationModel"}, None, "missing key 'modules' (needed by class SeparationModel)"),
        ({"args": {"a": 1}, "modules": {"a": {}}}, "args", "a SeparationModel takes no args; its modules do"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line_before_anything_runs(package, tmp_path, model, key, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        plan(content(model), tmp_path)
    assert caught.value.key == ("model_config" if key is None else f"model_config.{key}")
    assert caught.value.file and caught.value.line


def test_a_network_on_waveforms_needs_waveforms(package, tmp_path):
    with pytest.raises(UserError, match=r"expected \[mix_audio, source_audio\].*found \[mix_audio\]"):
        plan(content(GAINS, dataset_config__data_keys_for_training=["mix_audio"]), tmp_path)
    with pytest.raises(UserError, match="DeepClustering needs a model with the output 'embedding', found audio"):
        plan(content(GAINS, algorithm_config__class="DeepClustering"), tmp_path)


# the adapter ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Gains", {}),
        ("Gains", {"args": {"sources": 2, "bands": [1, 2]}}),
        ("SourcesLast", {"axes": {"input": "t b", "output": "t s b"}}),
        ("Nested", {"select": [1, "estimates"]}),
        ("Longer", {}),
    ],
)
def test_any_order_of_axes_and_form_of_output_gives_the_same_estimates(importable, name, more):
    options = {"args": {"sources": 2}} | more
    network = TorchNetwork(f"some_networks.gains.{name}", **options)
    mixtures = torch.randn(3, 1, 50)
    expected = torch.stack([0.2 * mixtures, 0.8 * mixtures], dim=-1)
    torch.testing.assert_close(network(mixtures), expected)


def test_a_network_may_have_one_source_and_no_axis_for_it(importable):
    network = TorchNetwork("torch.nn.Identity", axes={"output": "b c t"})
    mixtures = torch.randn(3, 2, 50)
    torch.testing.assert_close(network(mixtures), mixtures[..., None])


PACKAGED = {
    "demucs.htdemucs.HTDemucs": {
        "args": {
            "sources": ["vocals", "drums"],
            "audio_channels": 1,
            "samplerate": 8000,
            "segment": 1,
            "channels": 8,
            "nfft": 512,
            "depth": 3,
            "t_layers": 1,
            "t_heads": 2,
            "bottom_channels": 32,
        }
    },
    "bs_roformer.BSRoformer": {
        "args": {
            "dim": 16,
            "depth": 1,
            "heads": 2,
            "dim_head": 8,
            "num_stems": 2,
            "stft_n_fft": 256,
            "stft_hop_length": 64,
            "stft_win_length": 256,
            "freqs_per_bands": [4] * 32 + [1],
        }
    },
    "pymss_core.modules.scnet.scnet.SCNet": {
        "args": {
            "sources": ["vocals", "drums"],
            "audio_channels": 1,
            "dims": [2, 4, 8, 8],
            "nfft": 512,
            "hop_size": 128,
            "win_size": 512,
            "num_dplayer": 2,
        }
    },
    "asteroid.models.DPRNNTasNet": {
        "args": {"n_src": 2, "n_filters": 16, "bn_chan": 8, "hid_size": 8, "n_repeats": 1, "chunk_size": 20},
        "axes": {"input": "b t", "output": "b s t"},
    },
}


@pytest.mark.parametrize("network", PACKAGED)
def test_estimates_are_those_of_the_package_itself(network, tmp_path):
    for package in PACKAGES:
        pytest.importorskip(package, reason="envs/extra.sh networks installs it")
    planned = plan(content({"class": network, **PACKAGED[network]}), tmp_path)
    assert json.loads(planned.trainings[planned.rows[0].point].spec)["packages"]
    adapted = TorchNetwork(network, **PACKAGED[network]).eval()
    mixtures = torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        estimates = adapted(mixtures)
        theirs = adapted.network(mixtures.squeeze(1) if "axes" in PACKAGED[network] else mixtures)
    assert estimates.shape == (2, 1, 8000, 2)
    theirs = theirs.reshape(2, 2, -1)[..., :8000]
    torch.testing.assert_close(estimates[:, 0].permute(0, 2, 1), theirs)


def test_the_examples_of_the_page_are_planned(tmp_path, package):
    (package.parent / "some_package.py").write_text("class Network:\n    pass\n")
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/networks.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    models = [block["model_config"] for block in map(yaml.safe_load, blocks) if "model_config" in block]
    assert len(models) >= 5
    for model in models:
        assert plan(content(model), tmp_path).rows[0].point.startswith("time-")


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"package demucs is not installed; install it with: envs/extra\.sh networks"):
        plan(content({"class": "demucs.htdemucs.HTDemucs"}), tmp_path)
    locked = (ROOT / "envs" / "networks.lock").read_text().lower().replace("-", "_")
    assert all(f"\n{package}==" in locked for package in PACKAGES)


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ({"class": "some_networks.gains.function"}, "class", "expected a torch.nn.Module, found some_networks.gains"),
        ({"class": "some_networks.broken.Net"}, "class", "cannot be imported: ZeroDivisionError: division by zero"),
        ({"args": {"sources": "two"}}, "args", "cannot be built: TypeError"),
        ({"class": "some_networks.gains.Shorter"}, "axes.output", "expected estimates of 400 samples, .*found 399"),
        ({"class": "some_networks.gains.Nested"}, "select", "expected a tensor of estimates, found 2 values"),
        (
            {"class": "some_networks.gains.Nested", "select": [1, "audio"]},
            "select",
            "no 'audio'; it is a dictionary",
        ),
        ({"axes": {"output": "b s t"}}, "axes.output", "expected an output with the axes b s t, found the shape 2 x 2"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line_at_the_start_of_the_job(importable, package, model, key, message):
    (package / "broken.py").write_text("1 / 0")
    options = NetworkOptions.read({**GAINS, **model})
    with pytest.raises(UserError, match=message) as caught:
        build_model(options, seed=0, num_frequencies=33, num_samples=400)
    assert caught.value.key == f"model_config.{key}"
    assert "\n" not in str(caught.value)


# training and evaluation ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_split(folder / "train", count=8, seed=1),
        "val": write_split(folder / "val", count=2, seed=2),
    }


def waveform_experiment(model, **changes):
    config = experiment(
        dataset={
            "data_keys_for_training": ["mix_audio", "source_audio"],
            "length": 40,
            "excerpt_selection_strategy": "first",
        },
        loss_function=[["SISDRLoss", "audio"]],
        **changes,
    )
    config["model_config"] = model
    config["algorithm_config"] = {"class": "DeepAudioEstimation", "args": {}}
    config["test_config"] = {"testers": [{"BSSEvalScale": {"compute_permutation": False}}], "keep_estimates": "none"}
    return config


SMALL = {
    "class": "ConvTasNet",
    "args": {
        "num_filters": 32,
        "bottleneck_size": 16,
        "hidden_size": 32,
        "skip_size": 16,
        "num_blocks": 3,
        "num_repeats": 1,
    },
}


def test_a_network_learns_and_is_evaluated_like_any_other(splits, tmp_path):
    config = waveform_experiment(SMALL, num_epochs=4, learning_rate=0.01)
    options = PointOptions.read(config)
    loop.train_point(options, folder=tmp_path, splits=splits)
    losses = pandas.read_csv(tmp_path / "history.csv")["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0] - 1, "in dB"
    scores = tmp_path / "scores.parquet"
    evaluate_point(
        options,
        point="p",
        evaluation="e",
        checkpoint=tmp_path / "checkpoints" / "best.model.pth",
        test=splits["val"],
        scores=scores,
    )
    table = pandas.read_parquet(scores)
    assert len(table) == 4 and np.isfinite(table["SI-SDR"]).all()


def test_a_network_of_the_users_own_trains_under_its_name(splits, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "nets.py").write_text(textwrap.dedent(PACKAGE))
    config = waveform_experiment({"class": "Gains", "args": {"sources": 2}}, num_epochs=1)
    config["info"]["extras"] = str(folder)
    loop.train_point(PointOptions.read(config), folder=tmp_path / "point", splits=splits)
    assert (tmp_path / "point" / "checkpoints" / "best.model.pth").is_file()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"class": "some_networks.gains.NotANumber"}, "the loss is nan in epoch 1"),
        ({"args": {"sources": 3}}, "estimates"),
    ],
)
def test_estimates_that_cannot_be_trained_are_one_line(importable, splits, tmp_path, model, message):
    config = waveform_experiment({**GAINS, **model}, num_epochs=1)
    config["train_config"]["loss_function"] = [["SNRLoss", "audio"]]
    with pytest.raises(UserError, match=message):
        loop.train_point(PointOptions.read(config), folder=tmp_path / "point", splits=splits)
