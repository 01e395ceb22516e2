"""`make compare`: several sweeps in one table and one report."""

import contextlib
import os
import subprocess
import sys

import pandas
import pytest

import in_process
from projects import ROOT, TINY, UNSET, Project
from separation.commands import compare


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory) -> Project:
    """The tiny sweep, one that shares a point with it, and one that tests this point on other mixtures."""
    project = finished.copy(tmp_path_factory.mktemp("compare") / "project")
    text = (project.folder / TINY).read_text().replace("[0.01, 0.001]", "[0.001]")
    for name, test in (
        ("shares", "test: {dataset: tiny_music}"),
        ("other_test", "test: {dataset: tiny_music, split: val}"),
    ):
        written = text.replace("name: tiny_dpcl", f"name: {name}").replace("test: {dataset: tiny_music}", test)
        (project.folder / f"tests/experiments/{name}.yml").write_text(written)
        with contextlib.chdir(project.folder):
            in_process.summarize(in_process.plan(f"tests/experiments/{name}.yml"))
    return project


def test_a_shared_point_has_one_row_with_both_labels(swept):
    # as the Makefile runs it
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    environment["PYTHONPATH"] = str(ROOT / "workflow/scripts")
    command = [sys.executable, "-m", "separation.commands.compare", "tiny_dpcl,shares"]
    done = subprocess.run(command, cwd=swept.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "2 points, 1 of them in more than one sweep: results/comparisons/tiny_dpcl+shares/report.html"
    )
    folder = swept.folder / "results/comparisons/tiny_dpcl+shares"
    points = pandas.read_csv(folder / "points.csv").set_index("train_config.learning_rate")
    assert points["sweep"].to_dict() == {0.01: "tiny_dpcl", 0.001: "tiny_dpcl + shares"}
    assert points.loc[0.001, "label"].startswith("tiny_dpcl: learning_rate=0.001 | shares: ")
    # scores and means equal those of the sweep itself
    one, both = (
        pandas.read_csv(swept.folder / f"results/{name}/summary.csv")
        for name in ("sweeps/tiny_dpcl", "comparisons/tiny_dpcl+shares")
    )
    columns = ["point", "validation_loss", "SI-SDR", "SI-SDRi", "items", "best"]
    pandas.testing.assert_frame_equal(one[columns], both[columns])
    page = (folder / "report.html").read_text()
    assert "Comparison of sweeps" in page
    assert "tests/experiments/shares.yml" in page


def test_different_test_mixtures_are_reported(swept, run_command):
    done = run_command(compare.main, swept.folder, "tests/experiments/other_test.yml,tiny_dpcl")
    assert done.returncode == 0, done.stderr
    notice = "The sweeps were tested on different mixtures (other_test on 2 mixtures of tiny_music/val; tiny_dpcl on 2"
    assert notice in done.stdout
    folder = swept.folder / "results/comparisons/other_test+tiny_dpcl"
    assert notice in (folder / "report.html").read_text()
    summary = pandas.read_csv(folder / "summary.csv").dropna(subset="validation_loss")
    assert len(summary) == 3
    pairs = pandas.read_csv(folder / "comparisons.csv").query("kind == 'pair'")
    assert (pairs["verdict"] == "no mixture in common").sum() == 2


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (
            "tiny_dpcl,shars",
            "expected the name of a sweep with results in results/sweeps, found 'shars'; did you mean 'shares'?",
        ),
        ("tiny_dpcl", "expected two or more sweeps, found tiny_dpcl"),
        ("tiny_dpcl,tiny_dpcl", "expected two or more sweeps, found tiny_dpcl, tiny_dpcl"),
    ],
)
def test_a_wrong_name_is_reported_in_one_line(swept, run_command, sweeps, message):
    done = run_command(compare.main, swept.folder, sweeps)
    assert done.returncode == 1
    assert done.stderr == f"Error: sweeps: {message}\n"


def test_the_error_for_a_sweep_without_scores_has_the_remedy(swept, run_command):
    scores = swept.folder / "results/sweeps/shares/scores.parquet"
    hidden = scores.rename(scores.with_suffix(".hidden"))
    done = run_command(compare.main, swept.folder, "tiny_dpcl,shares")
    hidden.rename(scores)
    assert done.returncode == 1
    assert "is not evaluated yet; run: snakemake --config sweep=tests/experiments/shares.yml" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_compare_passes_the_sweeps():
    done = subprocess.run(["make", "-n", "compare", "sweeps=a,b"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "separation.commands.compare 'a,b'" in done.stdout
