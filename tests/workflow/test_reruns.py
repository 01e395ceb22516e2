"""The rerun contract: what a change plans, counted in jobs, after a run that finished."""

import os
import shutil

import pytest

from conftest import TINY, Project
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml

SWEEP = ("--config", f"sweep={TINY}")
GATHERED = {"collect_scores": 1, "summarize_sweep": 1, "plot_sweep": 1, "render_report": 1}


def edit(project: Project, before: str, after: str, file: str = TINY) -> None:
    path = project.folder / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


def prune(project: Project) -> None:
    for store in project.folder.glob("results/cache/*/*.zarr"):
        shutil.rmtree(store)


def points(project: Project):
    return sorted(project.folder.glob("results/artifacts/dpcl-*"))


def test_nothing_changed(project):
    assert project.planned(*SWEEP) == {}


def test_pruned_caches(project):
    prune(project)
    assert project.planned(*SWEEP) == {}


def test_keys_in_another_order_and_numbers_spelled_otherwise(project):
    content = read_yaml(project.folder / TINY).value
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in content.items()
    }
    write_yaml(project.folder / TINY, dict(reversed(turned.items())))
    edit(project, "0.01", "1.0e-2")
    edit(project, "num_epochs: 2", "num_epochs: 2.0  # two")
    assert project.planned(*SWEEP) == {}


@pytest.mark.parametrize(
    "before, after",
    [
        ("notes: tiny", "notes: other words"),
        ("num_epochs: 2", "num_epochs: 2\n  num_workers: 2"),
        ("num_epochs: 2", "num_epochs: 2\n  device: cpu"),
        ("populate_cache: true", "populate_cache: true\n    num_cache_workers: 2"),
        ("cache: tiny", "cache: another_name"),
    ],
)
def test_what_changes_no_result(project, before, after):
    edit(project, before, after)
    assert project.planned(*SWEEP) == {}


def test_what_jobs_ask_for(project):
    asked = "{train_point: {mem_mb: 9000, runtime: 10}, populate_cache: {threads: 2}}"
    edit(project, "resources: {}", f"resources: {asked}", "config/config.yaml")
    assert project.planned(*SWEEP) == {}


def test_touched_scripts_rules_and_experiment(project):
    for path in [
        *project.folder.glob("workflow/**/*.py"),
        *project.folder.glob("workflow/rules/*"),
        project.folder / TINY,
    ]:
        os.utime(path)
    assert project.planned(*SWEEP) == {}


def test_the_container_switched_on(project, apptainer_for_planning):
    path = f"{apptainer_for_planning}:{os.environ['PATH']}"
    assert project.planned("--sdm", "apptainer", *SWEEP, PATH=path) == {}
    edit(project, "num_epochs: 2", "num_epochs: 3")
    assert project.planned("--sdm", "apptainer", *SWEEP, PATH=path)["train_point"] == 2


@pytest.mark.parametrize("pruned", [False, True])
def test_one_value_added(project, pruned):
    if pruned:
        prune(project)
    edit(project, "[0.01, 0.001]", "[0.01, 0.001, 0.1]")
    assert project.planned(*SWEEP) == {"train_point": 1, "evaluate_point": 1, **GATHERED}


def test_one_value_taken_away_and_values_swapped(project):
    edit(project, "[0.01, 0.001]", "[0.001, 0.01]")
    assert project.planned(*SWEEP) == GATHERED
    edit(project, "[0.001, 0.01]", "[0.01]")
    assert project.planned(*SWEEP) == GATHERED


def test_a_training_key(project):
    edit(project, "num_epochs: 2", "num_epochs: 3")
    assert project.planned(*SWEEP) == {"train_point": 2, "evaluate_point": 2, **GATHERED}


@pytest.mark.parametrize(
    "before, after",
    [
        ("mask_type: soft", "mask_type: binary"),
        ("sweep:", "test_config:\n  keep_estimates: all\nsweep:"),
    ],
)
def test_an_evaluation_key(project, before, after):
    edit(project, before, after)
    assert project.planned(*SWEEP) == {"evaluate_point": 2, **GATHERED}


def test_another_metric(project):
    edit(project, "sweep:", "test_config:\n  testers: [{BSSEvalV4: {compute_permutation: true}}]\nsweep:")
    assert project.planned(*SWEEP) == {"evaluate_point": 2, "evaluate_baselines": 1, **GATHERED}


def test_an_stft_key(project):
    edit(project, "hop_length: 64", "hop_length: 32")
    planned = {"populate_cache": 3, "train_point": 2, "evaluate_point": 2, "evaluate_baselines": 1, **GATHERED}
    assert project.planned(*SWEEP) == planned


def test_a_dataset_recipe(project):
    edit(project, "seed: 0\ncoherent", "seed: 1\ncoherent", "config/datasets/tiny_music.yml")
    planned = {"mix_dataset": 3, "populate_cache": 3, "train_point": 2, "evaluate_point": 2, "evaluate_baselines": 1}
    assert project.planned(*SWEEP) == {**planned, **GATHERED}


def test_a_deleted_checkpoint(project):
    (points(project)[0] / "checkpoints/best.model.pth").unlink()
    assert project.planned(*SWEEP) == {"train_point": 1, "evaluate_point": 1, **GATHERED}


def test_deleted_scores(project):
    next(points(project)[0].glob("evaluations/*/scores.parquet")).unlink()
    assert project.planned(*SWEEP) == {"evaluate_point": 1, **GATHERED}


def test_deleted_mixtures_whose_results_exist(project):
    for path in project.folder.glob("results/data/tiny_music-*"):
        shutil.rmtree(path)
    assert project.planned("train", *SWEEP) == {}


def test_a_second_clone_on_the_same_directories(project, fresh):
    places = {
        f"{name}_DIRECTORY": str(project.folder / "results" / name.lower()) for name in ("DATA", "CACHE", "ARTIFACTS")
    }
    assert fresh.planned(*SWEEP, **places) == GATHERED


def test_two_files_under_one_name_are_an_error(project):
    shutil.copy(project.folder / TINY, project.folder / "copy.yml")
    done = project.run("-n", "--config", "sweep=copy.yml", check=False)
    assert done.returncode == 1
    assert f"the name 'tiny_dpcl' is already used by {TINY}" in done.stderr and "Traceback" not in done.stderr


def test_populate_cache_false_with_the_cache_there_plans_nothing(project):
    edit(project, "populate_cache: true", "populate_cache: false")
    assert project.planned(*SWEEP) == {}


def test_one_value_added_on_pruned_caches_trains_only_that_point(project):
    before = {path: (path / "checkpoints/best.model.pth").stat().st_mtime_ns for path in points(project)}
    prune(project)
    edit(project, "[0.01, 0.001]", "[0.01, 0.001, 0.1]")
    project.run(*SWEEP)
    after = {path: (path / "checkpoints/best.model.pth").stat().st_mtime_ns for path in points(project)}
    assert len(after) == 3 and before.items() <= after.items()
    assert project.planned(*SWEEP) == {}


def test_a_point_taken_out_and_put_back_is_not_trained_again(project):
    edit(project, "[0.01, 0.001]", "[0.01]")
    project.run(*SWEEP)
    summary = (project.folder / "results/sweeps/tiny_dpcl/points.csv").read_text()
    assert len(summary.splitlines()) == 2
    edit(project, "[0.01]", "[0.01, 0.001]")
    assert project.planned(*SWEEP) == GATHERED
