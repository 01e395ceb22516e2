"""The smallest complete run, from toy music to a report."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jams
import pandas
import psutil
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


def test_a_run_killed_in_a_training_resumes_and_ends_with_the_same_weights(project):
    # the state is saved after every step
    overrides = "train_config.learning_rate=0.1,train_config.num_epochs=4,train_config.checkpoint_minutes=0.000001"
    arguments = ("train", "--config", f"sweep={TINY}", f"set={overrides}")
    # all processes die once, before the state of the third of the three steps of epoch 3 is saved
    marker = project.folder / "killed"
    loop = project.folder / "workflow/scripts/separation/training/loop.py"
    text, step = loop.read_text(), "            progress.batch += len(group)\n"
    assert step in text
    kill = f"""\
            if epoch == 2 and progress.batch == 3 and not Path({str(marker)!r}).exists():
                Path({str(marker)!r}).touch()
                __import__("os").killpg(0, {int(signal.SIGKILL)})
"""
    loop.write_text(text.replace(step, step + kill))
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
def test_a_run_killed_at_any_moment_resumes_and_ends_with_the_same_weights(finished, fresh):
    command = [sys.executable, "-m", "snakemake", "--config", f"sweep={TINY}", "set=train_config.num_epochs=40"]
    process = subprocess.Popen(command, cwd=fresh.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if "Training dpcl" in line:
            break
    # in the middle of the first training runs: as soon as one has a state to resume from
    while not list(fresh.folder.glob("results/artifacts/*/state/state.pt")):
        assert process.poll() is None
        os.sched_yield()
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()
    assert not list(fresh.folder.glob("results/artifacts/*/checkpoints/best.model.pth"))
    fresh.run("--unlock", "--config", f"sweep={TINY}")
    fresh.run("train", "--config", f"sweep={TINY}", "set=train_config.num_epochs=40")
    logs = "".join(path.read_text() for path in fresh.folder.glob("logs/train_point/*.log"))
    assert "resuming after epoch" in logs
    # the same training runs in another folder, uninterrupted
    directories = {f"{name}_DIRECTORY": str(finished.folder / "results" / name.lower()) for name in ("DATA", "CACHE")}
    other = {**directories, "ARTIFACTS_DIRECTORY": str(fresh.folder / "uninterrupted")}
    fresh.run("train", "--config", f"sweep={TINY}", "set=train_config.num_epochs=40", **other)
    weights = sorted(fresh.folder.glob("results/artifacts/*/checkpoints/*.pth"))
    assert len(weights) == 4
    assert_equal_weights(weights, fresh.folder / "results/artifacts", fresh.folder / "uninterrupted")
