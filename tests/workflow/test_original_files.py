"""An experiment in the words of cookiecutter-nussl and of older nussl runs to its report."""

import pandas

from original_words import original
from separation.yaml_writer import write_yaml


def test_an_experiment_in_the_originals_words_runs_to_its_report(project):
    folder = next(project.folder.glob("results/data/tiny_music-*"))
    content = original(folder, dataset_config__group_sources=[["drums", "bass", "other"]])
    for split, entry in content["datasets"].items():
        entry["folder"] = str((folder / split).relative_to(project.folder))
    write_yaml(project.folder / "original.yml", content)
    done = project.run("--config", "sweep=original.yml")
    assert "use_librosa_stft: has no effect" in done.stderr
    summary = pandas.read_csv(project.folder / "results/sweeps/original/summary.csv")
    assert summary["point"].str.startswith("dpcl-scaper-s0-").sum() == 2
    assert summary["SI-SDR"].notna().all()
    assert (project.folder / "results/sweeps/original/report.html").is_file()
