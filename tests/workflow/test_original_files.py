"""Experiments in the words of cookiecutter-nussl and of older nussl run to their reports."""

import pandas
import pytest

from original_words import original, with_masks
from separation.files.yaml_writer import write_yaml


@pytest.mark.parametrize("kind, points", [("dpcl", 2), ("mi", 1)])
def test_an_experiment_in_the_originals_words_runs_to_its_report(project, kind, points):
    folder = next(project.folder.glob("results/data/tiny_music-*"))
    content = original(folder, dataset_config__group_sources=[["drums", "bass", "other"]])
    content = with_masks(content) if kind == "mi" else content
    for split, entry in content["datasets"].items():
        entry["folder"] = str((folder / split).relative_to(project.folder))
    write_yaml(project.folder / "original.yml", content)
    done = project.run("--config", "sweep=original.yml")
    assert "use_librosa_stft: has no effect" in done.stderr
    summary = pandas.read_csv(project.folder / "results/sweeps/original/summary.csv")
    assert summary["point"].str.startswith(f"{kind}-scaper-s0-").sum() == points
    assert summary["SI-SDR"].notna().all()
    assert (project.folder / "results/sweeps/original/report.html").is_file()
