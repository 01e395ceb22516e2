"""Experiments written for cookiecutter-nussl and for older nussl run through to their scores and reports."""

import pandas
import pytest

import in_process
from legacy_experiments import clustering_experiment, with_masks
from projects import Project
from separation.files.yaml_writer import write_yaml


def write_experiment(project: Project, kind: str) -> None:
    """Writes legacy.yml for the mixtures of a finished run."""
    folder = next(project.folder.glob("results/data/tiny_music-*"))
    content = clustering_experiment(folder, dataset_config__group_sources=[["drums", "bass", "other"]])
    content = with_masks(content) if kind == "mi" else content
    for split, entry in content["datasets"].items():
        entry["folder"] = str((folder / split).relative_to(project.folder))
    write_yaml(project.folder / "legacy.yml", content)


def assert_scored(project: Project, kind: str, points: int) -> None:
    summary = pandas.read_csv(project.folder / "results/sweeps/legacy/summary.csv")
    assert summary["point"].str.startswith(f"{kind}-scaper-s0-").sum() == points
    assert summary["SI-SDR"].notna().all()


@pytest.mark.parametrize("kind, points", [("dpcl", 2), ("mi", 1)])
def test_legacy_experiments_are_trained_compared_and_reported(project, monkeypatch, kind, points):
    write_experiment(project, kind)
    monkeypatch.chdir(project.folder)
    workflow = in_process.plan("legacy.yml")
    in_process.train(workflow)
    in_process.summarize(workflow)
    assert_scored(project, kind, points)
    assert in_process.report(workflow).is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_legacy_experiment_runs_through_to_the_report(project):
    write_experiment(project, "dpcl")
    done = project.run("--config", "sweep=legacy.yml")
    assert "use_librosa_stft: has no effect" in done.stderr
    assert_scored(project, "dpcl", points=2)
    assert (project.folder / "results/sweeps/legacy/report.html").is_file()
