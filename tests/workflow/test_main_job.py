"""The smallest complete run, from toy music to a report."""

import contextlib
import json
import signal
from pathlib import Path

import jams
import pandas
import pytest
import torch
import zarr

import in_process
from projects import TINY
from separation.files.yaml_reader import read_yaml
from separation.nussl_compat import nussl


@pytest.fixture
def results(finished):
    return finished.folder / "results"


def test_a_second_run_plans_nothing(finished):
    assert finished.planned("--config", f"sweep={TINY}") == {}


def test_a_sweep_leaves_the_documented_files(results):
    sweep = results / "sweeps" / "tiny_dpcl"
    for name in ("points.csv", "scores.parquet", "summary.csv", "comparisons.csv", "report.html"):
        assert (sweep / name).stat().st_size > 0
    assert list((sweep / "figures").glob("*.svg"))


def test_every_point_leaves_the_documented_files(results):
    points = pandas.read_csv(results / "sweeps" / "tiny_dpcl" / "points.csv")
    assert len(points) == 2
    for point in points["point"]:
        folder = results / "artifacts" / point
        for name in ("config.yml", "history.csv", "checkpoints/best.model.pth", "checkpoints/latest.model.pth"):
            assert (folder / name).is_file()
        assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
        assert list((folder / "state").iterdir())
        (evaluation,) = (folder / "evaluations").iterdir()
        assert (evaluation / "scores.parquet").is_file() and (evaluation / "config.yml").is_file()


def test_a_points_config_is_complete_and_names_its_point(results):
    for path in (results / "artifacts").glob("dpcl-*/config.yml"):
        config = read_yaml(path).value
        assert config["info"]["experiment_key"] == path.parent.name
        assert {"dataset_config", "datasets", "train_config", "model_config", "algorithm_config", "test_config"} <= set(
            config
        )
        assert config["train_config"]["optimizer"] == "adam"


def test_mixtures_have_valid_jams_files(results):
    (folder,) = (results / "data").glob("tiny_music-*/train")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["items"]) == 6
    for item in manifest["items"]:
        jams.load(str(folder / item["jams"]), validate=True)
    assert len(nussl.datasets.Scaper(str(folder))) == 6


def test_caches_are_typed_arrays_without_pickles(results):
    stores = list((results / "cache").glob("*/*.zarr"))
    assert len(stores) == 3
    for store in stores:
        for _, array in zarr.open_group(store, mode="r").arrays():
            assert array.metadata.zarr_format == 3 and array.dtype.kind in "iuf"


def test_scores_have_points_and_baselines_in_one_table(results):
    scores = pandas.read_parquet(results / "sweeps" / "tiny_dpcl" / "scores.parquet")
    assert list(scores.columns[:6]) == ["point", "evaluation", "dataset", "split", "item", "source"]
    baselines = {"mixture", "fixed_mask", "ideal_binary_mask", "ideal_ratio_mask", "phase_sensitive_mask"}
    assert baselines < set(scores["point"])
    assert set(scores["source"]) == {"vocals", "accompaniment"}
    assert (scores.groupby("point").size() == 4).all()
    assert {"SI-SDR", "SI-SDRi", "SI-SIR", "SI-SAR", "SD-SDR", "SNR", "SRR"} <= set(scores.columns)


def test_the_summary_names_a_best_point_and_its_share_of_the_oracle(results):
    summary = pandas.read_csv(results / "sweeps" / "tiny_dpcl" / "summary.csv")
    assert {"point", "train_config.learning_rate", "validation_loss", "SI-SDR", "SI-SDR_low", "SI-SDR_high"} <= set(
        summary
    )
    losses = summary.set_index("point")["validation_loss"].dropna()
    assert len(losses) == 2


def test_logs_and_benchmarks_mirror_the_outputs(finished):
    assert len(list((finished.folder / "logs/train_point").glob("dpcl-*.log"))) == 2
    assert len(list((finished.folder / "results/benchmarks/train_point").glob("dpcl-*.tsv"))) == 2


def test_running_a_points_config_reuses_the_point(project):
    config = sorted(project.folder.glob("results/artifacts/dpcl-*/config.yml"))[0]
    planned = project.planned("--config", f"sweep={config.relative_to(project.folder)}")
    assert set(planned) <= {"collect_scores", "summarize_sweep", "plot_sweep", "render_report"} and planned


def assert_equal_weights(paths, folder, other):
    """Asserts that checkpoints in `folder` have the weights of those in `other`, bit for bit."""
    for path in paths:
        twin = other / path.relative_to(folder)
        one, two = (torch.load(file, weights_only=False)["state_dict"] for file in (path, twin))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


#: a line of the library that each stage passes, where all processes die once
MOMENTS = {
    "data/mix.py": '    name = f"{index:06d}"\n    scene = ',
    "features/fill_cache.py": "    arrays = {name: [item.arrays",
    "training/loop.py": "            progress.seconds = seconds + time",
    "evaluation/evaluate.py": "    write_text(\n        job.folder / ",
}


def kill_once(file, line, marker, condition="True"):
    """Makes all processes of a run die before a line of the library, as when a machine goes down; only once."""
    text = file.read_text()
    assert text.count(line) == 1
    indent = line[: len(line) - len(line.lstrip())]
    code = f"{indent}if ({condition}) and not (marker := __import__('pathlib').Path({str(marker)!r})).exists():\n"
    code += f"{indent}    marker.touch(), __import__('os').killpg(0, {int(signal.SIGKILL)})\n"
    file.write_text(text.replace(line, code + line))


@pytest.mark.timeout(900)
def test_a_run_killed_in_a_training_resumes_and_ends_with_the_same_weights(project):
    # the state is saved after every step
    overrides = "train_config.learning_rate=0.1,train_config.num_epochs=4,train_config.checkpoint_minutes=0.000001"
    arguments = ("train", "--config", f"sweep={TINY}", f"set={overrides}")
    marker = project.folder / "killed"
    loop = project.folder / "workflow/scripts/separation/training/loop.py"
    # before the state of the third of the three steps of epoch 3 is saved
    kill_once(loop, MOMENTS["training/loop.py"], marker, "epoch == 2 and progress.batch == 3")
    killed = project.run(*arguments, check=False)
    assert killed.returncode == -signal.SIGKILL and marker.exists()
    project.run("--unlock", *arguments)
    project.run(*arguments)
    with contextlib.chdir(project.folder):
        workflow = in_process.plan(TINY, overrides)
        (point,) = workflow.trainings
        log = Path(f"logs/train_point/{point}.log").read_text()
        assert "resuming after epoch 2 and 2 batches of 4" in log
        # the same training, uninterrupted
        in_process.train(in_process.plan(TINY, overrides, ARTIFACTS_DIRECTORY="uninterrupted"))
        weights = list(Path("results/artifacts", point).glob("checkpoints/*.pth"))
        assert len(weights) == 2
        assert_equal_weights(weights, Path("results/artifacts"), Path("uninterrupted"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_in_every_stage_resumes_and_ends_with_the_same_results(finished, fresh):
    arguments = ("evaluate", "--config", f"sweep={TINY}", "set=train_config.learning_rate=0.01")
    markers = [fresh.folder / f"killed{number}" for number in range(len(MOMENTS))]
    for marker, (file, line) in zip(markers, MOMENTS.items(), strict=True):
        kill_once(fresh.folder / "workflow/scripts/separation" / file, line, marker)
    while not all(marker.exists() for marker in markers):
        before = [marker.exists() for marker in markers]
        killed = fresh.run(*arguments, check=False)
        assert killed.returncode == -signal.SIGKILL and [marker.exists() for marker in markers] != before
        fresh.run("--unlock", *arguments)
    fresh.run(*arguments)
    assert fresh.planned(*arguments) == {}
    one, other = fresh.folder / "results", finished.folder / "results"
    manifests = list(one.glob("data/tiny_music-*/*/manifest.json"))
    assert len(manifests) == 3
    for path in manifests:
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    weights = list(one.glob("artifacts/*/checkpoints/*.pth"))
    assert len(weights) == 2
    assert_equal_weights(weights, one, other)
    (scores,) = one.glob("artifacts/dpcl-*/evaluations/*/scores.parquet")
    pandas.testing.assert_frame_equal(*(pandas.read_parquet(f / scores.relative_to(one)) for f in (one, other)))
