"""`make plan` and `make prune`."""

import json

import pytest

from experiments import experiment, plan
from separation.commands.plan import main, plan_of, print_plan
from separation.commands.prune import find_leftovers, remove
from separation.files.atomic import write_json
from separation.files.layout import PointFolder


def finish(workflow, point):
    """Writes the files of a finished point."""
    folder = workflow.settings.artifacts / point
    write_json(PointFolder(folder).spec, json.loads(workflow.trainings[point].spec))
    files = ["config.yml", "checkpoints/best.model.pth"]
    for (owner, name), (work, _) in workflow.evaluations.items():
        if owner == point:
            write_json(PointFolder(folder).evaluation(name).spec, json.loads(work.spec))
            files.append(f"evaluations/{name}/scores.parquet")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x" * 100)


@pytest.fixture
def workflow(tmp_path):
    return plan(experiment(sweep=[{"learning_rate": [0.1, 0.2], "cache": "x"}]), tmp_path)


def test_points_are_new_and_then_finished(workflow):
    first, second = workflow.trainings
    assert [row["state"] for row in plan_of(workflow)["points"]] == ["new", "new"]
    finish(workflow, first)
    current = plan_of(workflow)
    assert [row["state"] for row in current["points"]] == ["finished", "new"]
    assert current["jobs"] == {"train_point": 1, "evaluate_point": 1}
    assert current["points"][1]["nearest"] == first
    assert current["points"][1]["differs"] == {"train_config.learning_rate": {"now": 0.2, "then": 0.1}}
    assert second == current["points"][1]["point"]


def test_a_changed_training_key_is_named(workflow, tmp_path):
    for point in workflow.trainings:
        finish(workflow, point)
    changed = plan(experiment(sweep=[{"learning_rate": [0.1, 0.2], "cache": "x"}], train_config__patience=9), tmp_path)
    for row in plan_of(changed)["points"]:
        assert row["differs"] == {"train_config.patience": {"now": 9, "then": 5}}


def test_a_changed_evaluation_key_is_named(workflow, tmp_path):
    for point in workflow.trainings:
        finish(workflow, point)
    sweep, args = [{"learning_rate": [0.1, 0.2]}], {"num_sources": 2, "mask_type": "binary"}
    for row in plan_of(plan(experiment(sweep=sweep, algorithm_config__args=args), tmp_path))["points"]:
        assert row["state"] == "trained"
        assert row["differs"] == {"algorithm_config.args.mask_type": {"now": "binary", "then": "soft"}}


def test_missing_datasets_and_caches_are_named(workflow):
    missing = plan_of(workflow)["missing"]
    assert len(missing["datasets"]) == len(missing["caches"]) == 3 and len(missing["baselines"]) == 1


def test_scores_that_choose_points_and_those_of_other_systems_are_counted(tmp_path, capsys):
    (tmp_path / "theirs" / "000000").mkdir(parents=True)
    (tmp_path / "theirs" / "000000" / "vocals.wav").touch()
    sweep = [{"dataset_config.output_type": ["msa", "psa"]}]
    content = experiment(sweep=sweep) | {"systems": [{"name": "theirs", "folder": str(tmp_path / "theirs")}]}
    workflow = plan(content, tmp_path)
    expected = {"train_point": 2, "evaluate_point": 2, "evaluate_validation": 2, "score_system": 1}
    assert plan_of(workflow)["jobs"] == expected
    point, evaluation = next(iter(workflow.validations))
    scores = PointFolder(workflow.settings.artifacts / point).validation(evaluation).scores
    scores.parent.mkdir(parents=True)
    scores.write_text("")
    print_plan(plan_of(workflow))
    assert "1 scores on validation data, 1 scores of other systems" in capsys.readouterr().out


def test_the_table_shows_values_missing_data_and_jobs(workflow, capsys):
    print_plan(plan_of(workflow))
    shown = capsys.readouterr().out
    assert "learning_rate" in shown and "0.1" in shown and "left to do: 2 training runs, 2 evaluations" in shown
    assert "datasets to mix: " in shown and "caches to fill: " in shown and "baselines to evaluate: " in shown


def test_the_command_prints_json_on_request_and_one_line_for_mistakes(workflow, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--sweep", str(tmp_path / "experiment.yml"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 2
    assert main(["--sweep", "no/such.yml"]) == 1
    assert capsys.readouterr().err == "Error: no/such.yml: no such file\n"


def test_only_points_that_no_experiment_refers_to_are_removed(workflow, tmp_path):
    wider = plan(experiment(sweep=[{"learning_rate": [0.1, 0.2, 0.3], "cache": "x"}]), tmp_path)
    for point in wider.trainings:
        finish(wider, point)
    kept, removed = set(workflow.trainings), set(wider.trainings) - set(workflow.trainings)
    users_own = workflow.settings.artifacts / "my notes"
    users_own.mkdir()
    leftovers = find_leftovers([workflow])
    assert [(leftover.kind, leftover.path.name) for leftover in leftovers] == [("point", *removed)]
    assert leftovers[0].size > 300
    for leftover in leftovers:
        remove(leftover)
    assert {path.name for path in workflow.settings.artifacts.iterdir()} == {*kept, "my notes"}


def test_cache_arrays_are_removed_on_request_and_their_manifests_stay(workflow):
    for cache, split in workflow.caches:
        folder = workflow.settings.cache / cache
        (folder / f"{split}.zarr").mkdir(parents=True)
        (folder / f"{split}.json").write_text("{}")
    assert find_leftovers([workflow]) == []
    leftovers = find_leftovers([workflow], caches_too=True)
    assert [leftover.kind for leftover in leftovers] == ["cache arrays"] * 3
    for leftover in leftovers:
        remove(leftover)
    assert len(list(workflow.settings.cache.glob("*/*.json"))) == 3
    assert plan_of(workflow)["missing"]["pruned caches"]


def test_an_unfinished_cache_is_a_leftover(workflow):
    for cache in ("tiny_music-000000000000", next(iter(workflow.caches))[0]):
        (workflow.settings.cache / cache / ".train.zarr.partial" / "shards").mkdir(parents=True)
    assert [leftover.path.name for leftover in find_leftovers([workflow])] == ["tiny_music-000000000000"]
    both = find_leftovers([workflow], caches_too=True)
    assert {leftover.kind for leftover in both} == {"cache", "cache arrays"}
