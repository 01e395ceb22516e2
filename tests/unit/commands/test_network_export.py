"""A network with a class of its own leaves this project as safetensors and a few lines of Python."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

from separation.commands.network_export import has_own_class, write_network
from separation.commands.trained_point import TrainedPoint
from separation.experiment.options import PointOptions
from separation.files.layout import ExportFolder, PointFolder
from separation.nussl_compat import nussl
from separation.training import loop
from training_examples import experiment, write_split

OWN = """
    import torch
    from helpers import double

    class Halves(torch.nn.Module):
        def __init__(self, shares: tuple[float, ...]):
            super().__init__()
            self.shares = torch.nn.Parameter(torch.tensor(shares))
        def forward(self, mixture):
            return {"estimates": double(self.shares)[:, None] * mixture}
"""
NETWORKS = {
    "of this project": {
        "class": "ConvTasNet",
        "args": {"num_filters": 16, "bottleneck_size": 8, "hidden_size": 16, "skip_size": 8, "num_blocks": 2},
    },
    "of the user": {
        "class": "Halves",
        "args": {"shares": [0.1, 0.4]},
        "axes": {"input": "b t", "output": "s b t"},
        "select": ["estimates"],
    },
    "of a package": {
        "class": "asteroid.models.DPRNNTasNet",
        "args": {"n_src": 2, "n_filters": 16, "bn_chan": 8, "hid_size": 8, "n_repeats": 1, "chunk_size": 20},
        "axes": {"input": "b t", "output": "b s t"},
    },
}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {name: write_split(folder / name, count=2, seed=seed) for seed, name in enumerate(("train", "val"))}


@pytest.mark.parametrize("network", NETWORKS)
def test_its_lines_load_the_weights_without_this_project(splits, tmp_path, network):
    if network == "of a package":
        pytest.importorskip("asteroid", reason="envs/extra.sh networks installs it")
    own = tmp_path / "own"
    own.mkdir()
    (own / "halves.py").write_text(textwrap.dedent(OWN).replace("[:, None]", "[:, None, None]"))
    (own / "helpers.py").write_text("def double(values):\n    return 2 * values\n")
    config = experiment(
        dataset={"data_keys_for_training": ["mix_audio", "source_audio"], "length": 20},
        loss_function=[["SNRLoss", "audio"]],
        num_epochs=1,
    )
    config["info"]["extras"] = str(own)
    config["model_config"] = NETWORKS[network]
    config["algorithm_config"] = {"class": "DeepAudioEstimation", "args": {}}
    options = PointOptions.read(config)
    loop.train_point(options, folder=tmp_path / "point", splits=splits)
    point = TrainedPoint(tmp_path / "point", PointFolder(tmp_path / "point").best_checkpoint, options)
    export = ExportFolder(tmp_path / "export")
    export.path.mkdir()
    assert has_own_class(point)
    lines = write_network(point, export)
    assert len(lines) <= 10

    mixtures = torch.randn(2, 1, 500, generator=torch.Generator().manual_seed(0))
    torch.save(mixtures if "axes" not in NETWORKS[network] else mixtures[:, 0], tmp_path / "mixture.pt")
    script = ["import sys, torch", "mixture = torch.load(sys.argv[1])", *lines, "torch.save(estimates, sys.argv[2])"]
    (export.path / "use.py").write_text("\n".join(script))
    done = subprocess.run(
        [sys.executable, "use.py", tmp_path / "mixture.pt", tmp_path / "estimates.pt"],
        cwd=export.path,
        env={"PATH": "/usr/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    model = nussl.ml.SeparationModel.load(str(point.checkpoint))[0].eval()
    with torch.no_grad():
        expected = model({"mix_audio": mixtures})["audio"]
    found = torch.load(tmp_path / "estimates.pt")
    order = NETWORKS[network].get("axes", {}).get("output", "b s c t").split()
    found = found if "c" in order else found.unsqueeze(-2)
    order = order if "c" in order else [*order[:-1], "c", "t"]
    found = found.permute([order.index(axis) for axis in "bcts"])[:, :, :500]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    described = json.loads(export.network.read_text())
    assert described["sample_rate"] == 8000 and described["num_channels"] == 1
    assert described["parameters"] == sum(value.numel() for value in model.layers["audio"].parameters())
