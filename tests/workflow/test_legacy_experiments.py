"""Experiments written for cookiecutter-nussl and for older nussl run through to their reports."""

import pandas
import pytest

from legacy_experiments import clustering_experiment, with_masks
from separation.files.yaml_writer import write_yaml


@pytest.mark.parametrize("kind, points", [("dpcl", 2), ("mi", 1)])
def test_legacy_experiments_run_through_to_the_report(project, kind, points):
    folder = next(project.folder.glob("results/data/tiny_music-*"))
    content = clustering_experiment(folder, dataset_config__group_sources=[["drums", "bass", "other"]])
    content = with_masks(content) if kind == "mi" else content
    for split, entry in content["datasets"].items():
        entry["folder"] = str((folder / split).relative_to(project.folder))
    write_yaml(project.folder / "legacy.yml", content)
    done = project.run("--config", "sweep=legacy.yml")
    assert "use_librosa_stft: has no effect" in done.stderr
    summary = pandas.read_csv(project.folder / "results/sweeps/legacy/summary.csv")
    assert summary["point"].str.startswith(f"{kind}-scaper-s0-").sum() == points
    assert summary["SI-SDR"].notna().all()
    assert (project.folder / "results/sweeps/legacy/report.html").is_file()
