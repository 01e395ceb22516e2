import json
import math
import signal

import numpy as np
import pandas
import pytest
import soundfile
import torch

import forks
from separation.errors import UserError
from separation.evaluation import evaluate as evaluation_module
from separation.evaluation.evaluate import evaluate_point
from separation.evaluation.kept_audio import choose_items
from separation.evaluation.separator import Separator, item_seed
from separation.experiment.options import EvaluationOptions, PointOptions
from separation.experiment.testers import SCALE_METRICS
from separation.files.score_table import SCORE_KEYS
from separation.nussl_compat import nussl
from small_dataset import DATASET_CONFIG, SAMPLE_RATE, open_items, source_audio, write_split

CONFIG = {
    "info": {"seed": 3},
    "dataset_config": DATASET_CONFIG,
    "train_config": {"loss_function": [["dpcl", "embedding", 1.0]], "num_epochs": 1},
    "model_config": {"modules": {}, "connections": [], "output": ["embedding"]},
    "algorithm_config": {"class": "DeepClustering", "args": {"num_sources": 2, "mask_type": "soft"}},
    "test_config": {"testers": [{"BSSEvalScale": {"compute_permutation": True}}]},
}
CLUSTERING = EvaluationOptions.read(CONFIG["algorithm_config"], {})
MASKS = EvaluationOptions.read({"class": "DeepMaskEstimation"}, {})
FREQUENCIES = DATASET_CONFIG["n_fft"] // 2 + 1


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("data"), items=5)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Untrained models of both kinds, saved as training saves them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    sizes = {"num_features": FREQUENCIES, "hidden_size": 8, "num_layers": 1, "bidirectional": True, "dropout": 0.0}
    builders = nussl.ml.networks.builders
    clustering = builders.build_recurrent_dpcl(**sizes, embedding_size=4, embedding_activation=["sigmoid", "unit_norm"])
    masks = builders.build_recurrent_mask_inference(**sizes, num_sources=2, mask_activation=["sigmoid"])
    transforms = nussl.datasets.transforms
    parameters = nussl.STFTParams(256, 64, "sqrt_hann")
    metadata = {
        "stft_params": parameters,
        "sample_rate": SAMPLE_RATE,
        "num_channels": 1,
        "train_dataset": {
            "transforms": transforms.Compose(
                [
                    transforms.PhaseSensitiveSpectrumApproximation(),
                    transforms.GetAudio(),
                    transforms.ToSeparationModel(),
                ]
            )
        },
    }
    audio = builders.build_recurrent_end_to_end(256, 256, 64, "sqrt_hann", 8, 1, True, 0.0, 2, ["sigmoid"])
    paths = {name: folder / f"{name}.pth" for name in ("clustering", "masks", "audio")}
    for name, config in (("clustering", clustering), ("masks", masks), ("audio", audio)):
        nussl.ml.SeparationModel(config).save(str(paths[name]), metadata=dict(metadata))
    return paths


def evaluate(folder, split, checkpoint, config=CONFIG, **changes):
    scores = folder / "scores.parquet"
    arguments = {
        "point": "p",
        "evaluation": "e",
        "checkpoint": checkpoint,
        "test": split,
        "scores": scores,
        "threads": 1,
    }
    evaluate_point(PointOptions.read(config), **{**arguments, **changes})
    return pandas.read_parquet(scores)


def test_the_table_has_a_row_per_item_and_source_with_all_metrics_and_conditions(tmp_path, split, checkpoints):
    table = evaluate(tmp_path, split, checkpoints["clustering"])
    assert list(table.columns) == [
        *SCORE_KEYS,
        *SCALE_METRICS[:-1],  # no source is silent, so that there is no LEAKAGE
        "non_finite",
        "num_sources",
        "overlap",
        "coherent",
        "songs",
        "snr_vocals",
    ]
    assert list(table["item"]) == [f"{index:06d}" for index in range(5) for _ in range(2)]
    assert list(table["source"]) == ["accompaniment", "vocals"] * 5
    assert set(zip(table["point"], table["evaluation"], table["dataset"], table["split"], strict=True)) == {
        ("p", "e", "small", "test")
    }
    assert all(table[name].dtype == "float64" and table[name].notna().all() for name in SCALE_METRICS[:-1])
    assert table["coherent"].dtype == bool and table["snr_vocals"].dtype == "float64"


def test_evaluation_does_not_depend_on_the_global_random_state(tmp_path, split, checkpoints):
    first = evaluate(tmp_path / "1", split, checkpoints["clustering"])
    np.random.seed(99)
    np.random.random(7)
    state = np.random.get_state()[1].copy()
    second = evaluate(tmp_path / "2", split, checkpoints["clustering"])
    pandas.testing.assert_frame_equal(first, second, check_exact=True)
    assert np.array_equal(np.random.get_state()[1], state)


def test_several_processes_give_the_same_table_as_one(tmp_path, split, checkpoints, monkeypatch):
    whole = evaluate(tmp_path / "1", split, checkpoints["clustering"])
    monkeypatch.setattr("separation.evaluation.evaluate.BATCH", 2)
    monkeypatch.setattr("separation.evaluation.evaluate.BATCHES_PER_TASK", 1)
    shared = evaluate(tmp_path / "2", split, checkpoints["clustering"], threads=2)
    pandas.testing.assert_frame_equal(whole, shared, check_exact=True)


def test_scores_of_an_item_do_not_depend_on_earlier_items(tmp_path, split, checkpoints):
    items = open_items(split, DATASET_CONFIG)
    make = {"checkpoint": checkpoints["clustering"], "seed": 3}
    after_others = Separator(CLUSTERING, items[0], **make)
    for item in (items[0], items[1]):
        after_others(item)
    alone = Separator(CLUSTERING, items[2], **make)
    for one, other in zip(after_others(items[2]), alone(items[2]), strict=True):
        assert np.array_equal(one, other)


def test_seed_and_item_determine_the_random_state():
    assert item_seed(0, "a") == item_seed(0, "a")
    assert len({item_seed(seed, name) for seed in (0, 1) for name in ("a", "b")}) == 4


def test_estimates_equal_those_of_nussl(split, checkpoints):
    item = open_items(split, DATASET_CONFIG)[0]
    algorithms = nussl.separation.deep
    plain = algorithms.DeepMaskEstimation(item.mixture, model_path=str(checkpoints["masks"]))()
    ours = Separator(
        EvaluationOptions.read({"class": "DeepMaskEstimation"}, {}), item, checkpoint=checkpoints["masks"]
    )(item)
    for one, other in zip(ours, plain, strict=True):
        assert one.shape == other.audio_data.shape and np.allclose(one, other.audio_data, atol=1e-7)
    seed = item_seed(0, item.name)
    plain = algorithms.DeepClustering(item.mixture, 2, model_path=str(checkpoints["clustering"]), random_state=seed)()
    one_draw = EvaluationOptions.read({"class": "DeepClustering", "args": {"num_sources": 2, "n_init": 1}}, {})
    ours = Separator(one_draw, item, checkpoint=checkpoints["clustering"])(item)
    for one, other in zip(ours, plain, strict=True):
        assert np.allclose(one, other.audio_data, atol=1e-7)


@pytest.mark.parametrize(
    ("channels", "kind", "args"),
    [
        (1, "clustering", {"mask_type": "binary", "n_init": 1}),
        (1, "clustering", {"clustering_type": "GaussianMixture", "percentile": 50}),
        (1, "clustering", {"clustering_type": "MiniBatchKMeans", "beta": 2.0, "n_init": 1}),
        (2, "clustering", {"mask_type": "soft", "n_init": 1}),
        (1, "masks", {"mask_type": "binary"}),
        (2, "masks", {}),
        (1, "audio", {}),
        (2, "audio", {}),
    ],
)
def test_batches_equal_nussl_on_each_item(tmp_path, checkpoints, channels, kind, args):
    rng = np.random.default_rng(1)
    lengths = (SAMPLE_RATE, SAMPLE_RATE, 7001, SAMPLE_RATE)

    def audio(index):
        sounds = [[source_audio(label, rng) for _ in range(channels)] for label in ("vocals", "drums")]
        return {
            label: np.stack(sound, -1)[: lengths[index]].squeeze()
            for label, sound in zip(("vocals", "drums"), sounds, strict=True)
        }

    split = write_split(tmp_path, items=4, audio=audio)
    data = {**DATASET_CONFIG, "num_channels": channels, "group_sources": [], "group_names": None}
    items = [open_items(split, data)[index] for index in range(4)]
    name = {"clustering": "DeepClustering", "masks": "DeepMaskEstimation", "audio": "DeepAudioEstimation"}[kind]
    separate = Separator(
        EvaluationOptions.read({"class": name, "args": args}, {}), items[0], checkpoint=checkpoints[kind]
    )
    for item, output in zip(items, separate.outputs(items), strict=True):
        ours = separate.estimates(item, output)
        known = {"num_sources": 2, "random_state": item_seed(0, item.name)} if kind == "clustering" else {}
        plain = getattr(nussl.separation.deep, name)(item.mixture, model_path=str(checkpoints[kind]), **known, **args)
        for one, other in zip(ours, plain(), strict=True):
            assert one.shape == other.audio_data.shape == item.mixture.audio_data.shape
            assert np.allclose(one, other.audio_data, atol=1e-6)


def test_the_costs_of_the_network_are_beside_the_scores(tmp_path, split, checkpoints):
    evaluate(tmp_path, split, checkpoints["clustering"])
    costs = json.loads((tmp_path / "costs.json").read_text())
    network = torch.load(checkpoints["clustering"], weights_only=False)["state_dict"]
    weights = {name: value.shape for name, value in network.items() if value.dim() == 2 and "bias" not in name}
    assert costs["parameters"] == sum(
        value.numel() for name, value in network.items() if "running" not in name and "num_batches" not in name
    )
    # a second has 125 frames, and the mixture is padded by half a window at both ends
    frames = SAMPLE_RATE // 64 + 1
    assert costs["multiply_adds_per_second"] == pytest.approx(frames * sum(map(math.prod, weights.values())), rel=0.02)
    assert costs["real_time_factor"] > 0 and costs["device"] == "cpu" and costs["threads"] == 1


@pytest.mark.parametrize("kind", ["clustering", "binary masks", "masks"])
def test_outputs_with_nan_are_counted_and_named_and_have_no_score(
    tmp_path, split, checkpoints, monkeypatch, caplog, kind
):
    network = "clustering" if kind == "clustering" else "masks"
    outputs = Separator.outputs

    def broken(self, items):
        found = [output.copy() for output in outputs(self, items)]
        for item, output in zip(items, found, strict=True):
            if item.name == "000003":
                output[5, 7] = np.nan
        return found

    monkeypatch.setattr(Separator, "outputs", broken)
    config = {**CONFIG, "test_config": {**CONFIG["test_config"], "keep_estimates": "all"}}
    if network == "masks":
        args = {"mask_type": "binary" if kind == "binary masks" else "soft"}
        config |= {"algorithm_config": {"class": "DeepMaskEstimation", "args": args}}
    table = evaluate(tmp_path, split, checkpoints[network], config)
    without = table[table["non_finite"]]
    assert list(without["item"]) == ["000003"] * 2 and without["SI-SDR"].isna().all()
    assert table[~table["non_finite"]]["SI-SDR"].notna().all()
    assert "p: 2 of 10 estimates have NaN or infinite samples and no score: accompaniment of item 000003" in caplog.text
    assert not np.isnan(soundfile.read(tmp_path / "estimates" / "000003" / "vocals_estimate.wav")[0]).any()


def test_mask_networks_can_be_scored_without_permutation(tmp_path, split, checkpoints):
    config = {
        **CONFIG,
        "algorithm_config": {"class": "DeepMaskEstimation"},
        "test_config": {"testers": ["BSSEvalScale"]},
    }
    table = evaluate(tmp_path, split, checkpoints["masks"], config)
    assert len(table) == 10 and table["SI-SDR"].notna().all()


def test_audio_of_the_best_median_and_worst_item_is_kept(tmp_path, split, checkpoints):
    table = evaluate(tmp_path, split, checkpoints["clustering"])
    ranked = table.groupby("item")["SI-SDR"].mean().sort_values(ascending=False)
    folder = tmp_path / "estimates"
    kept = json.loads((folder / "index.json").read_text())["items"]
    assert {entry["role"]: entry["item"] for entry in kept} == {
        "best": ranked.index[0],
        "median": ranked.index[2],
        "worst": ranked.index[4],
    }
    for entry in kept:
        rows = table[table["item"] == entry["item"]].set_index("source")
        for source, files in entry["sources"].items():
            assert files["scores"]["SI-SDR"] == pytest.approx(rows.loc[source, "SI-SDR"])
            assert files["estimate"] == f"{entry['item']}/{source}_estimate.wav"
            reference = soundfile.read(folder / files["reference"])[0]
            estimate = soundfile.read(folder / files["estimate"])[0]
            # the estimate on disk is the one that was scored, not another source's
            reference, estimate = reference - reference.mean(), estimate - estimate.mean()
            target = np.dot(estimate, reference) / np.dot(reference, reference) * reference
            measured = 10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2))
            assert measured == pytest.approx(files["scores"]["SI-SDR"], abs=0.05)
        assert soundfile.info(folder / entry["mixture"]).subtype == "PCM_16"


def test_kept_audio_has_one_gain_per_item_and_never_clips(tmp_path, checkpoints):
    rng = np.random.default_rng(0)
    loud = {label: 0.5 * source_audio(label, rng) / 0.05 for label in ("vocals", "drums")}
    loud = {label: np.clip(audio, -0.45, 0.45) for label, audio in loud.items()}
    split = write_split(tmp_path / "data", items=1, audio=lambda i: loud)
    config = {**CONFIG, "dataset_config": {**DATASET_CONFIG, "group_sources": [], "group_names": None}}
    evaluate(tmp_path, split, checkpoints["clustering"], config)
    entry = json.loads((tmp_path / "estimates" / "index.json").read_text())["items"][0]
    assert entry["role"] == "best, median, worst"
    read = {path: soundfile.read(tmp_path / "estimates" / path)[0] for path in (entry["mixture"],)}
    for files in entry["sources"].values():
        read |= {
            files[kind]: soundfile.read(tmp_path / "estimates" / files[kind])[0] for kind in ("estimate", "reference")
        }
    assert max(np.abs(audio).max() for audio in read.values()) == pytest.approx(0.9, abs=1e-3)
    total = sum(read[files["reference"]] for files in entry["sources"].values())
    assert np.allclose(total, read[entry["mixture"]], atol=1e-3)


def test_all_estimates_are_kept_on_request(tmp_path, split, checkpoints):
    config = {**CONFIG, "test_config": {**CONFIG["test_config"], "keep_estimates": "all"}}
    evaluate(tmp_path, split, checkpoints["clustering"], config)
    kept = json.loads((tmp_path / "estimates" / "index.json").read_text())["items"]
    assert sorted(entry["role"] for entry in kept) == ["best", "median", "other", "other", "worst"]
    for wrong in ("some", True, -1):
        with pytest.raises(UserError, match="keep_estimates: expected none, all, worst or a number"):
            evaluate(tmp_path, split, checkpoints["clustering"], {**CONFIG, "test_config": {"keep_estimates": wrong}})


def test_more_items_are_kept_on_request():
    means = [float(index) for index in range(41)]
    examples = {40: "best", 20: "median", 0: "worst"}
    assert choose_items(means, "none") == choose_items(means, 0) == choose_items(means, 3) == examples
    assert choose_items(means, "worst") == {**{index: "other" for index in range(1, 10)}, **examples}
    assert choose_items(means, 5) == {10: "other", 30: "other", **examples}
    assert set(choose_items(means, 1000)) == set(range(41))


def test_items_without_a_score_are_not_the_worst():
    nan = float("nan")
    assert choose_items([1.0, nan, 3.0, 2.0], "none") == {2: "best", 3: "median", 0: "worst"}
    assert choose_items([nan], "worst") == choose_items([nan], 2) == {}
    assert choose_items([nan], "all") == {0: "other"}


def test_silence_in_a_mixture_does_not_stop_the_evaluation(tmp_path, checkpoints):
    rng = np.random.default_rng(0)
    sources = {"vocals": np.zeros(SAMPLE_RATE), "drums": source_audio("drums", rng)}
    split = write_split(tmp_path / "data", items=1, audio=lambda i: sources)
    config = {**CONFIG, "dataset_config": {**DATASET_CONFIG, "group_sources": [], "group_names": None}}
    table = evaluate(tmp_path, split, checkpoints["clustering"], config).set_index("source")
    assert np.isnan(table.loc["vocals", "SI-SDR"]) and np.isfinite(table.loc["drums", "SI-SDR"])
    assert np.isnan(table.loc["drums", "SI-SDRi"]) and np.isfinite(table.loc["vocals", "LEAKAGE"])


def evaluate_and_die(folder, split, checkpoint, config):
    """Evaluates in shares of two items and is killed during the second one."""
    evaluation_module.BATCH, evaluation_module.BATCHES_PER_TASK = 2, 1
    write_text = evaluation_module.write_text

    def write_or_die(path, text):
        if path.name == "00000002.json":
            forks.die()
        write_text(path, text)

    evaluation_module.write_text = write_or_die
    evaluate(folder, split, checkpoint, config)


def kill_in_its_second_share(folder, *arguments, monkeypatch):
    """Leaves an evaluation that was killed during its second share, and makes the next ones use the same shares."""
    assert forks.run(evaluate_and_die, (folder, *arguments)) == [-signal.SIGKILL]
    assert not (folder / "scores.parquet").exists()
    monkeypatch.setattr(evaluation_module, "BATCH", 2)
    monkeypatch.setattr(evaluation_module, "BATCHES_PER_TASK", 1)


@pytest.fixture
def separated(monkeypatch):
    """The names of the items that go through the network."""
    names, outputs = [], Separator.outputs

    def noted(self, items):
        names.extend(item.name for item in items)
        return outputs(self, items)

    monkeypatch.setattr(Separator, "outputs", noted)
    return names


@pytest.mark.parametrize("keep", ["none", "all"])
def test_interrupted_evaluations_resume(tmp_path, split, checkpoints, separated, monkeypatch, keep):
    config = {**CONFIG, "test_config": {**CONFIG["test_config"], "keep_estimates": keep}}
    kill_in_its_second_share(tmp_path / "killed", split, checkpoints["clustering"], config, monkeypatch=monkeypatch)
    resumed = evaluate(tmp_path / "killed", split, checkpoints["clustering"], config)
    scored = separated[:3]  # then items for listening, and for the costs of the network
    assert scored == ["000002", "000003", "000004"]
    whole = evaluate(tmp_path / "whole", split, checkpoints["clustering"], config)
    pandas.testing.assert_frame_equal(resumed, whole, check_exact=True)
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "killed" / "estimates", tmp_path / "whole" / "estimates")
    ]
    assert files[0] == files[1] and len(files[0]) == 1 + 5 * (5 if keep == "all" else 3)
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {"costs.json", "estimates", "scores.parquet"}


@pytest.mark.parametrize("changed", ["checkpoint", "config", "data"])
def test_the_state_of_another_evaluation_is_not_reused(tmp_path, split, checkpoints, separated, monkeypatch, changed):
    kill_in_its_second_share(tmp_path, split, checkpoints["clustering"], CONFIG, monkeypatch=monkeypatch)
    checkpoint, config = checkpoints["clustering"], CONFIG
    if changed == "checkpoint":
        checkpoint, config = checkpoints["masks"], {**CONFIG, "algorithm_config": {"class": "DeepMaskEstimation"}}
    elif changed == "config":
        config = {**CONFIG, "info": {"seed": 4}}
    else:
        split = write_split(tmp_path / "other", items=5, seed=9)
    evaluate(tmp_path, split, checkpoint, config)
    assert separated[:5] == [f"{index:06d}" for index in range(5)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_an_error(tmp_path, split, checkpoints):
    with pytest.raises(UserError, match=r"expected a GPU.*found none"):
        evaluate(tmp_path, split, checkpoints["clustering"], device="cuda")


def test_errors_are_reported_in_one_line_with_the_cause(tmp_path, split, checkpoints):
    clustering = checkpoints["clustering"]
    wrong = {
        "DeepClusterin": {"algorithm_config": {"class": "DeepClusterin"}},
        "clusters": {"algorithm_config": {"class": "DeepClustering", "args": {"clusters": 2}}},
        "expected 2 estimates": {"algorithm_config": {"class": "DeepClustering", "args": {"num_sources": 1}}},
        "DeepMaskEstimation needs a deep mask estimation model": {"algorithm_config": {"class": "DeepMaskEstimation"}},
        "expected 44100 Hz, found 8000 Hz": {"dataset_config": {**DATASET_CONFIG, "sample_rate": 44100}},
    }
    for expected, change in wrong.items():
        with pytest.raises(UserError) as failure:
            evaluate(tmp_path, split, clustering, {**CONFIG, **change})
        assert expected in str(failure.value) and "\n" not in str(failure.value)
    with pytest.raises(UserError, match="expected a trained model, found no file"):
        evaluate(tmp_path, split, tmp_path / "none.pth")
    (tmp_path / "broken.pth").write_bytes(clustering.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"broken\.pth"):
        evaluate(tmp_path, split, tmp_path / "broken.pth")
    with pytest.raises(UserError, match="expected mixtures to evaluate on, found none"):
        evaluate(tmp_path, write_empty(tmp_path / "empty"), clustering)
    assert not (tmp_path / "scores.parquet").exists()


def write_empty(folder):
    folder.mkdir()
    manifest = {
        "format": 1,
        "split": "test",
        "class": "Scaper",
        "sample_rate": SAMPLE_RATE,
        "num_channels": 1,
        "items": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return {"folder": str(folder), "class": "Scaper"}
