"""Ids: equal settings give the same id, changed settings a new one."""

import json
import math

import pytest

from experiments import TINY, experiment, plan
from separation.errors import UserError
from separation.experiment import ids, schema
from separation.experiment.ids import canonical_json, digest
from separation.files.yaml_writer import write_yaml
from separation.planning.expansion import load_workflow
from separation.planning.point_config import complete_config

# ids that users have on disk
KNOWN = {
    "points": ["dpcl-tiny_music-s0-37c9f9c38539", "dpcl-tiny_music-s0-1bf21c7e67c4"],
    "caches": {"tiny_music-0b336944d2e3"},
    "evaluations": {"tiny_music-ddad4384475c"},
    "datasets": {"tiny_music-5a1bb2cb555a"},
}


def only(workflow):
    (point,) = workflow.trainings
    return point


def evaluations(workflow):
    return {evaluation for _, evaluation in workflow.evaluations}


def test_number_spellings_have_the_same_json_and_true_differs_from_1():
    assert canonical_json({"a": 1}) == canonical_json({"a": 1.0}) == canonical_json({"a": 1e0}) == '{"a":1}'
    assert canonical_json(True) != canonical_json(1)
    assert canonical_json(-0.0) == "0" and canonical_json((1, 2)) == canonical_json([1, 2])


def test_the_id_of_a_value_is_known():
    # a change here gives every point a new id: raise a stage's version instead
    assert digest({"b": [1.0, "ü", None, True], "a": {"y": 0.1, "x": 2}}) == "e85001979277"


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_numbers_that_are_not_finite_have_no_id(value):
    with pytest.raises(ValueError, match="finite"):
        canonical_json(value)


def test_key_order_comments_and_number_spelling_keep_ids(tmp_path):
    first = only(plan(experiment(train_config__learning_rate=0.01), tmp_path))
    content = experiment(train_config__learning_rate=0.01)
    turned = json.loads(json.dumps(content))
    turned = {key: dict(reversed(value.items())) for key, value in reversed(turned.items())}
    write_yaml(tmp_path / "experiment.yml", turned)
    text = (tmp_path / "experiment.yml").read_text().replace("0.01", "1.0e-2 # slow")
    (tmp_path / "other.yml").write_text(text.replace("batch_size: 2", "batch_size: 2.0"))
    assert only(load_workflow({"sweep": str(tmp_path / "other.yml")}, {})) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"info__notes": "other words"},
        {"info__project_name": "elsewhere"},
        {"train_config__num_workers": 3},
        {"model_config__name": "another name"},
        {"dataset_config__cache": "on"},
        {"train_config__device": "cpu"},
        {"test_config__num_workers": 4},
        {"test_config": {"keep_estimates": "all"}},
        {"algorithm_config__args": {"num_sources": 2, "mask_type": "binary"}},
        {"datasets__test": {"dataset": "toy_music"}},
        {"train_config__optimizer": "adam"},
        {"train_config__weight_decay": 0},
        {"train_config__initial_length": None},
    ],
)
def test_settings_without_effect_on_weights_keep_the_id_of_a_point(tmp_path, changes):
    assert only(plan(experiment(**changes), tmp_path)) == only(plan(experiment(), tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"info__seed": 1},
        {"train_config__num_epochs": 3},
        {"train_config__weight_decay": 1e-5},
        {"dataset_config__length": 40},
        {"datasets__train": {"dataset": "toy_music"}},
        {"datasets__val": {"dataset": "tiny_music", "split": "train"}},
        {"model_config__output": ["embedding", "recurrent_stack"]},
    ],
)
def test_settings_with_effect_on_weights_change_the_id_of_a_point(tmp_path, changes):
    assert only(plan(experiment(**changes), tmp_path)) != only(plan(experiment(), tmp_path))


def test_points_that_differ_only_in_evaluation_share_a_training(tmp_path):
    sweep = [{"algorithm_config.args.mask_type": ["soft", "binary"], "learning_rate": [0.1, 0.2]}]
    workflow = plan(experiment(sweep=sweep), tmp_path)
    assert len(workflow.trainings) == 2 and len(workflow.evaluations) == 4 and len(workflow.rows) == 4


def test_ids_do_not_depend_on_directories(tmp_path):
    here = plan(experiment(dataset_config__cache="x"), tmp_path)
    there = plan(experiment(dataset_config__cache="y"), tmp_path, environment={"DATA_DIRECTORY": "/elsewhere"})
    assert list(here.trainings) == list(there.trainings) and list(here.caches) == list(there.caches)
    assert evaluations(here) == evaluations(there) and list(here.baselines) == list(there.baselines)


def test_two_sweeps_share_the_points_they_have_in_common(tmp_path):
    one = plan(experiment(info__name="one", sweep=[{"learning_rate": [0.1, 0.2]}]), tmp_path)
    two = plan(experiment(info__name="two", sweep=[{"learning_rate": [0.2, 0.3]}]), tmp_path)
    assert len(set(one.trainings) & set(two.trainings)) == 1


def test_cache_ids_depend_on_stft_keys_and_not_on_training_keys(tmp_path):
    base = list(plan(experiment(dataset_config__cache="x"), tmp_path).caches)
    trained = plan(
        experiment(dataset_config__cache="x", train_config__num_epochs=9, dataset_config__length=9), tmp_path
    )
    assert list(trained.caches) == base
    finer = plan(experiment(dataset_config__cache="x", dataset_config__hop_length=32), tmp_path)
    assert not set(finer.caches) & set(base)


def test_audio_caches_have_their_own_ids_and_serve_all_targets(tmp_path):
    features = plan(experiment(dataset_config__cache="x"), tmp_path)
    audio = plan(experiment(dataset_config__cache="x", dataset_config__cache_kind="audio"), tmp_path)
    assert not set(features.caches) & set(audio.caches)
    assert only(features) != only(audio)
    uncached = plan(experiment(dataset_config__cache_kind="audio"), tmp_path)
    assert only(uncached) == only(audio)
    other = {"dataset_config__output_type": "msa", "dataset_config__weight_threshold": None}
    other_targets = plan(experiment(dataset_config__cache="x", dataset_config__cache_kind="audio", **other), tmp_path)
    assert set(other_targets.caches) == set(audio.caches) and only(other_targets) != only(audio)


def test_ids_of_user_folders_depend_on_the_listing_and_not_on_the_path(tmp_path):
    ids = []
    for name in ("here", "there"):
        folder = tmp_path / name / "mixtures"
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(b"12345")
        split = {"folder": str(folder), "class": "MixSourceFolder"}
        ids.append(only(plan(experiment(datasets={"train": split, "val": split, "test": split}), tmp_path)))
    (folder / "a.wav").write_bytes(b"123456")
    ids.append(only(plan(experiment(datasets={"train": split, "val": split, "test": split}), tmp_path)))
    assert ids[0] == ids[1] != ids[2]


def test_the_complete_config_of_a_point_gives_the_same_point(tmp_path):
    sweep = [{"learning_rate": [0.1, 0.2], "cache": "x"}]
    workflow = plan(experiment(sweep=sweep, info__notes="a: b # c"), tmp_path)
    for point, training in workflow.trainings.items():
        options = workflow.job_table.point(point)
        config = complete_config(json.loads(training.spec), options, point, "somewhere")
        again = plan(config, tmp_path)
        assert list(again.trainings) == [point]
        assert list(again.evaluations) == [key for key in workflow.evaluations if key[0] == point]
        assert list(again.caches) == list(workflow.caches)
        assert again.experiment.name == point


def test_options_at_neutral_values_keep_older_ids(monkeypatch):
    before = {"optimizer": "adam"}
    monkeypatch.setitem(ids.NEUTRAL, "train_config.new_option", 0.0)
    assert ids.without_excluded({**before, "new_option": 0}, "train_config") == before
    assert ids.without_excluded({**before, "new_option": 1}, "train_config") == {**before, "new_option": 1}


def test_different_points_with_the_same_id_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("separation.planning.specs.text_digest", lambda text: "0" * 12)
    with pytest.raises(UserError, match="two different points have the id dpcl-tiny_music-s0-000000000000"):
        plan(experiment(sweep=[{"learning_rate": [0.1, 0.2]}]), tmp_path)


def test_excluded_keys_exist_in_the_schema():
    for path in ids.EXCLUDED:
        parts = tuple(path.split("."))
        part, rest = schema.subschema("experiment", parts)
        # arguments of an algorithm are not in the schema one by one
        assert part is not None and (not rest or parts[:2] == ("algorithm_config", "args")), path


def test_the_experiment_key_is_filled_in_after_hashing(tmp_path):
    content = experiment(info__notes="kept under ${EXPERIMENT_KEY}", info__experiment_key="${EXPERIMENT_KEY}")
    workflow = plan(content, tmp_path)
    (point,) = workflow.trainings
    config = complete_config(json.loads(workflow.trainings[point].spec), workflow.job_table.common, point, "x")
    assert config["info"]["notes"] == f"kept under {point}" and config["info"]["experiment_key"] == point
    assert only(plan(experiment(), tmp_path)) == point


def test_the_ids_of_the_tiny_experiment_are_known():
    # a change here rebuilds all results that users have on disk; raise a stage's version instead
    workflow = load_workflow({"sweep": str(TINY)}, {})
    assert list(workflow.trainings) == KNOWN["points"]
    assert {cache for cache, _ in workflow.caches} == KNOWN["caches"]
    assert evaluations(workflow) == KNOWN["evaluations"]
    assert set(workflow.datasets) == KNOWN["datasets"]
