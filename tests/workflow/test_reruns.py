"""The rerun contract: the number of jobs that a change plans after a finished run."""

import os
import shutil

import pytest

from projects import ROOT, TINY, Project
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml
from separation.planning.expansion import load_workflow

SWEEP = ("--config", f"sweep={TINY}")
ANALYSIS = {"collect_scores": 1, "summarize_sweep": 1, "plot_sweep": 1, "render_report": 1}
ONE_POINT = {"train_point": 1, "evaluate_point": 1, **ANALYSIS}


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


#: edits of the experiment, and the kinds of work that get new ids
POINTS = {"trainings", "evaluations"}
EDITS = [
    ("notes: tiny", "notes: other words", set()),
    ("num_epochs: 2", "num_epochs: 2.0  # two", set()),
    ("num_epochs: 2", "num_epochs: 2\n  num_workers: 2", set()),
    ("num_epochs: 2", "num_epochs: 2\n  device: cpu", set()),
    ("populate_cache: true", "populate_cache: true\n    num_cache_workers: 2", set()),
    ("cache: tiny", "cache: another_name", set()),
    ("[0.01, 0.001]", "[0.001, 1.0e-2]", set()),
    ("[0.01, 0.001]", "[0.01, 0.1]", POINTS),
    ("num_epochs: 2", "num_epochs: 3", POINTS),
    ("mask_type: soft", "mask_type: binary", {"evaluations"}),
    ("sweep:", "test_config:\n  keep_estimates: all\nsweep:", {"evaluations"}),
    (
        "sweep:",
        "test_config:\n  testers: [{BSSEvalV4: {compute_permutation: true}}]\nsweep:",
        {"evaluations", "baselines"},
    ),
    ("hop_length: 64", "hop_length: 32", {"caches", "baselines", *POINTS}),
]


@pytest.mark.parametrize("before, after, changed", EDITS)
def test_an_edit_changes_these_ids_and_no_others(tmp_path, before, after, changed):
    text = (ROOT / TINY).read_text()
    assert before in text
    original, edited = tmp_path / "original.yml", tmp_path / "edited.yml"
    original.write_text(text)
    edited.write_text(text.replace(before, after, 1))
    directories = {f"{name}_DIRECTORY": str(tmp_path) for name in ("DATA", "CACHE", "ARTIFACTS")}
    old, new = (load_workflow({"sweep": str(path)}, directories) for path in (original, edited))
    kinds = ("mixtures", "caches", "trainings", "evaluations", "baselines")
    assert {kind for kind in kinds if set(getattr(old, kind)) != set(getattr(new, kind))} == changed


def test_what_changes_no_result_plans_nothing(project):
    """The neutral edits of above, reordered keys, resources, new dates and pruned caches, all at once."""
    content = read_yaml(project.folder / TINY).value
    reversed_sections = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in content.items()
    }
    write_yaml(project.folder / TINY, dict(reversed(reversed_sections.items())))
    edit(project, "0.01", "1.0e-2")
    edit(project, "notes: tiny", "notes: other words")
    edit(project, "num_epochs: 2", "num_epochs: 2.0  # two\n  num_workers: 2\n  device: cpu")
    edit(project, "populate_cache: true", "populate_cache: false\n  num_cache_workers: 2")
    edit(project, "cache: tiny", "cache: another_name")
    resources = "{train_point: {mem_mb: 9000, runtime: 10}, populate_cache: {threads: 2}}"
    edit(project, "resources: {}", f"resources: {resources}", "config/config.yaml")
    scripts = project.folder.glob("workflow/**/*.py")
    for path in [*scripts, *project.folder.glob("workflow/rules/*"), project.folder / TINY]:
        os.utime(path)
    prune(project)
    assert project.planned(*SWEEP) == {}


def test_switching_on_the_container_plans_nothing(project, apptainer_for_planning):
    path = f"{apptainer_for_planning}:{os.environ['PATH']}"
    assert project.planned("--sdm", "apptainer", *SWEEP, PATH=path) == {}
    edit(project, "num_epochs: 2", "num_epochs: 3")
    assert project.planned("--sdm", "apptainer", *SWEEP, PATH=path)["train_point"] == 2


@pytest.mark.parametrize("pruned", [False, True])
def test_an_added_value_plans_only_its_point(project, pruned):
    if pruned:
        prune(project)
    edit(project, "[0.01, 0.001]", "[0.01, 0.001, 0.1]")
    assert project.planned(*SWEEP) == ONE_POINT


def test_removed_and_reordered_values_rebuild_only_tables_and_report(project):
    edit(project, "[0.01, 0.001]", "[0.001, 0.01]")
    assert project.planned(*SWEEP) == ANALYSIS
    edit(project, "[0.001, 0.01]", "[0.01]")
    assert project.planned(*SWEEP) == ANALYSIS


def test_a_training_key_plans_training_and_evaluation(project):
    edit(project, "num_epochs: 2", "num_epochs: 3")
    assert project.planned(*SWEEP) == {"train_point": 2, "evaluate_point": 2, **ANALYSIS}


def test_an_evaluation_key_plans_only_evaluation(project):
    edit(project, "mask_type: soft", "mask_type: binary")
    assert project.planned(*SWEEP) == {"evaluate_point": 2, **ANALYSIS}


def test_another_metric_plans_evaluation_and_baselines(project):
    edit(project, "sweep:", "test_config:\n  testers: [{BSSEvalV4: {compute_permutation: true}}]\nsweep:")
    assert project.planned(*SWEEP) == {"evaluate_point": 2, "evaluate_baselines": 1, **ANALYSIS}


def test_an_stft_key_plans_caches_and_everything_after(project):
    edit(project, "hop_length: 64", "hop_length: 32")
    planned = {"populate_cache": 3, "train_point": 2, "evaluate_point": 2, "evaluate_baselines": 1, **ANALYSIS}
    assert project.planned(*SWEEP) == planned


def test_a_changed_recipe_plans_mixing_and_everything_after(project):
    edit(project, "seed: 0\ncoherent", "seed: 1\ncoherent", "config/datasets/tiny_music.yml")
    planned = {"mix_dataset": 3, "populate_cache": 3, "train_point": 2, "evaluate_point": 2, "evaluate_baselines": 1}
    assert project.planned(*SWEEP) == {**planned, **ANALYSIS}


def test_a_deleted_checkpoint_plans_the_training_of_its_point(project):
    (points(project)[0] / "checkpoints/best.model.pth").unlink()
    assert project.planned(*SWEEP) == ONE_POINT


def test_deleted_scores_plan_their_evaluation(project):
    next(points(project)[0].glob("evaluations/*/scores.parquet")).unlink()
    assert project.planned(*SWEEP) == {"evaluate_point": 1, **ANALYSIS}


def test_deleted_mixtures_of_finished_points_plan_nothing(project):
    for path in project.folder.glob("results/data/tiny_music-*"):
        shutil.rmtree(path)
    assert project.planned("train", *SWEEP) == {}


def test_a_second_clone_on_the_same_directories_plans_only_tables_and_report(project, fresh):
    directories = {
        f"{name}_DIRECTORY": str(project.folder / "results" / name.lower()) for name in ("DATA", "CACHE", "ARTIFACTS")
    }
    assert fresh.planned(*SWEEP, **directories) == ANALYSIS


def test_two_files_under_one_name_are_an_error(project):
    shutil.copy(project.folder / TINY, project.folder / "copy.yml")
    done = project.run("-n", "--config", "sweep=copy.yml", check=False)
    assert done.returncode == 1
    assert f"the name 'tiny_dpcl' is already used by {TINY}" in done.stderr and "Traceback" not in done.stderr


def test_an_added_value_on_pruned_caches_trains_only_its_point(project):
    before = {path: (path / "checkpoints/best.model.pth").stat().st_mtime_ns for path in points(project)}
    prune(project)
    edit(project, "[0.01, 0.001]", "[0.01, 0.001, 0.1]")
    project.run("train", *SWEEP)
    after = {path: (path / "checkpoints/best.model.pth").stat().st_mtime_ns for path in points(project)}
    assert len(after) == 3 and before.items() <= after.items()
    assert project.planned(*SWEEP) == {"evaluate_point": 1, **ANALYSIS}


def test_a_removed_and_restored_point_is_not_trained_again(project):
    edit(project, "[0.01, 0.001]", "[0.01]")
    table = "results/sweeps/tiny_dpcl/points.csv"
    project.run(table, *SWEEP)
    assert len((project.folder / table).read_text().splitlines()) == 2
    edit(project, "[0.01]", "[0.01, 0.001]")
    assert project.planned(*SWEEP) == ANALYSIS
