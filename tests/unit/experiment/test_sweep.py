"""Sweep language: expansion of blocks, command-line changes and messages."""

import itertools
import json
from pathlib import Path

import pytest

from experiments import experiment, plan, swept
from separation.errors import UserError


def configs(workflow):
    return [json.loads(training.spec) for training in workflow.trainings.values()]


def test_lists_are_swept_as_a_cartesian_product_and_scalars_are_set(tmp_path):
    block = {"train_config.learning_rate": [0.1, 0.01], "train_config.sample_strategy": ["sequential", "random"]}
    workflow = plan(experiment(sweep=[{**block, "train_config.num_epochs": 3}]), tmp_path)
    assert swept(workflow) == [
        {"train_config.learning_rate": rate, "train_config.sample_strategy": strategy}
        for rate, strategy in itertools.product([0.1, 0.01], ["sequential", "random"])
    ]
    assert {config["train_config"]["num_epochs"] for config in configs(workflow)} == {3}


def test_without_a_sweep_there_is_one_point(tmp_path):
    assert len(plan(experiment(), tmp_path).trainings) == 1


def test_a_plain_key_sets_every_match_and_a_dotted_key_one(tmp_path):
    plain = configs(plan(experiment(sweep=[{"num_features": 33, "n_fft": 64}]), tmp_path))[0]
    modules = plain["model_config"]["modules"]
    assert [modules[name]["args"]["num_features"] for name in ("recurrent_stack", "embedding")] == [33, 33]
    exact = "model_config.modules.embedding.args.embedding_size"
    values = [
        config["model_config"]["modules"]["embedding"]["args"]["embedding_size"]
        for config in configs(plan(experiment(sweep=[{exact: [4, 6]}]), tmp_path))
    ]
    assert values == [4, 6]


def test_a_plain_key_sets_keys_that_only_the_schema_defines(tmp_path):
    workflow = plan(experiment(sweep=[{"weight_decay": [0, 0.1]}]), tmp_path)
    assert [config["train_config"]["weight_decay"] for config in configs(workflow)] == [0, 0.1]


def test_a_plain_key_sets_module_arguments_that_the_file_omits(tmp_path):
    workflow = plan(experiment(sweep=[{"init_forget": False}]), tmp_path)
    assert configs(workflow)[0]["model_config"]["modules"]["recurrent_stack"]["args"]["init_forget"] is False


def test_multiple_parameters_change_together(tmp_path):
    stack, embedding = (
        "model_config.modules.recurrent_stack.args.hidden_size",
        "model_config.modules.embedding.args.hidden_size",
    )
    groups = [{"bidirectional": True, stack: 8, embedding: 16}, {"bidirectional": False, stack: 8, embedding: 8}]
    workflow = plan(experiment(sweep=[{"learning_rate": [0.1, 0.2], "multiple_parameters_1": groups}]), tmp_path)
    assert len(workflow.trainings) == 4
    seen = {
        (modules["recurrent_stack"]["args"]["bidirectional"], modules["embedding"]["args"]["hidden_size"])
        for modules in (config["model_config"]["modules"] for config in configs(workflow))
    }
    assert seen == {(True, 16), (False, 8)}


def test_blocks_are_concatenated_and_rows_have_values_for_all_swept_keys(tmp_path):
    blocks = [{"n_fft": 128, "patience": [1, 2]}, {"n_fft": 64, "num_features": 33, "learning_rate": [0.1, 0.2]}]
    workflow = plan(experiment(sweep=blocks), tmp_path)
    assert len(workflow.trainings) == 4
    assert all(set(row) == {"n_fft", "patience", "num_features", "learning_rate"} for row in swept(workflow))
    assert [row["n_fft"] for row in swept(workflow)] == [128, 128, 64, 64]


def test_duplicate_points_of_several_blocks_are_trained_once_with_a_notice(tmp_path):
    blocks = [{"learning_rate": [0.1, 0.2]}, {"train_config.learning_rate": [0.2, 0.3]}]
    workflow = plan(experiment(sweep=blocks), tmp_path)
    assert len(workflow.trainings) == 3
    shared = workflow.table()[1]
    assert shared["block"] == "0;1"
    assert any("1 of 4 points" in notice for notice in workflow.notices)


@pytest.mark.parametrize("cache, count", [("", 0), ("any name", 3), (None, 0)])
def test_cache_is_enabled_by_a_name_and_disabled_by_an_empty_one(tmp_path, cache, count):
    workflow = plan(experiment(sweep=[{"cache": cache, "learning_rate": [0.1, 0.2]}]), tmp_path)
    assert len(workflow.caches) == count
    assert {len(training.caches) for training in workflow.trainings.values()} == {count}


def test_populate_cache_false_with_a_missing_cache_names_the_command_that_fills_it(tmp_path):
    with pytest.raises(UserError, match=r"snakemake cache --config sweep=.* set=populate_cache=true"):
        plan(experiment(sweep=[{"cache": "x", "populate_cache": False}]), tmp_path)


def test_points_that_differ_only_in_seeds_share_a_group(tmp_path):
    workflow = plan(experiment(sweep=[{"learning_rate": [0.1, 0.2], "seeds": [0, 1, 2]}]), tmp_path)
    rows = workflow.table()
    assert [row["seed"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert len({row["group"] for row in rows}) == 2
    assert all(f"-s{row['seed']}-" in row["point"] for row in rows)


def test_zip_pairs_values(tmp_path):
    workflow = plan(experiment(sweep=[{"zip": {"learning_rate": [0.1, 0.2], "batch_size": [1, 2]}}]), tmp_path)
    assert swept(workflow) == [{"learning_rate": 0.1, "batch_size": 1}, {"learning_rate": 0.2, "batch_size": 2}]


def test_random_draws_are_reproducible_and_within_bounds(tmp_path):
    random = {
        "count": 5,
        "seed": 3,
        "distributions": {
            "learning_rate": ["log_uniform", 1e-4, 1e-1],
            "patience": ["uniform", 1, 9],
            "optimizer": ["choice", ["adam", "sgd"]],
        },
    }
    first = swept(plan(experiment(sweep=[{"random": random}]), tmp_path))
    again = swept(plan(experiment(sweep=[{"random": random}]), tmp_path))
    assert first == again and len(first) == 5
    assert all(1e-4 <= row["learning_rate"] <= 1e-1 and row["optimizer"] in ("adam", "sgd") for row in first)
    fewer = {**random, "distributions": {"learning_rate": random["distributions"]["learning_rate"]}}
    alone = swept(plan(experiment(sweep=[{"random": fewer}]), tmp_path))
    assert [row["learning_rate"] for row in alone] == [row["learning_rate"] for row in first]


def test_exclude_removes_points(tmp_path):
    block = {
        "learning_rate": [0.1, 0.2],
        "batch_size": [1, 2],
        "exclude": [{"learning_rate": 0.1, "batch_size": [2, 3]}],
    }
    assert len(plan(experiment(sweep=[block]), tmp_path).trainings) == 3


def test_when_sweeps_a_key_only_if_its_condition_holds(tmp_path):
    block = {
        "optimizer": ["adam", "sgd"],
        "when": [{"if": {"train_config.optimizer": "sgd"}, "weight_decay": [0, 0.1]}],
    }
    rows = swept(plan(experiment(sweep=[block]), tmp_path))
    assert rows == [
        {"optimizer": "adam", "weight_decay": 0.0},
        {"optimizer": "sgd", "weight_decay": 0},
        {"optimizer": "sgd", "weight_decay": 0.1},
    ]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("train_config.num_epochs=7", [{}]),
        ("learning_rate=[0.5,0.25]", [{"learning_rate": 0.5}, {"learning_rate": 0.25}]),
        ("seeds=[4,5]", [{"info.seed": 4}, {"info.seed": 5}]),
        (
            "train_config.sample_strategy=random,train_config.batch_size=[1,2]",
            [
                {"train_config.batch_size": 1},
                {"train_config.batch_size": 2},
            ],
        ),
        ("group_sources=[drums,bass]", [{}]),
    ],
)
def test_the_command_line_sets_and_sweeps(tmp_path, text, expected):
    assert swept(plan(experiment(), tmp_path, overrides=text)) == expected


def test_the_command_line_takes_precedence_over_the_sweep(tmp_path):
    workflow = plan(experiment(sweep=[{"learning_rate": [0.1, 0.2]}]), tmp_path, overrides="learning_rate=0.5")
    assert [config["train_config"]["learning_rate"] for config in configs(workflow)] == [0.5]


@pytest.mark.parametrize(
    "block, message",
    [
        (
            {"train_config.learning_rat": [0.1]},
            "sweep[0].train_config.learning_rat: matches nothing in this experiment; did you mean 'learning_rate'?",
        ),
        ({"lerning_rate": [0.1]}, "did you mean 'learning_rate'?"),
        ({"model_config.modules.recurrent_stack.args.num_layer": 2}, "did you mean 'num_layers'?"),
        (
            {"train_config.learning_rate": [0.1, "fast"]},
            "sweep[0].train_config.learning_rate[1]: expected a number, found 'fast'",
        ),
        ({"train_config.batch_size": [0]}, "expected at least 1, found 0"),
        ({"train_config.batch_size": True}, "expected a whole number, found true"),
        ({"learning_rate": []}, "an empty list yields no points"),
        (
            {"zip": {"learning_rate": [1, 2], "batch_size": [1]}},
            "expected lists of equal length, found learning_rate (2), batch_size (1)",
        ),
        (
            {"random": {"count": 2, "distributions": {"learning_rate": ["lognormal", 1, 2]}}},
            "unknown distribution 'lognormal'",
        ),
        (
            {"random": {"count": 2, "distributions": {"learning_rate": ["log_uniform", 0, 2]}}},
            "expected bounds above 0",
        ),
        ({"random": {"conut": 2}}, "did you mean 'count'?"),
        ({"seeds": []}, "expected a list of whole numbers"),
        ({"seeds": [-1]}, "expected at least 0, found -1"),
        (
            {"learning_rate": [0.1], "exclude": [{"learning_rate": 0.1}]},
            "this block yields no points: `exclude` removes every combination",
        ),
        ({"when": [{"learning_rate": 1}]}, "expected a condition under 'if'"),
        ({"populate_cache": "yes"}, "expected true or false, found 'yes'"),
        ({"multiple_parameters_1": [1]}, "expected a list of mappings"),
        ({"num_cache_workers": -1}, "expected a whole number of at least 0, found -1"),
        ({"learning_rate": [float("inf")]}, "expected a finite number"),
    ],
)
def test_mistakes_in_blocks_are_reported_in_one_line_with_file_line_and_key(tmp_path, block, message):
    with pytest.raises(UserError) as raised:
        plan(experiment(sweep=[block]), tmp_path)
    text = str(raised.value)
    assert message in text and "\n" not in text
    file, line, _ = text.split(":", 2)
    assert Path(file).name == "experiment.yml" and int(line) > 1


def test_arguments_of_unused_modules_have_no_effect_and_give_a_notice(tmp_path):
    workflow = plan(experiment(sweep=[{"num_mels": -1}]), tmp_path)
    assert any("num_mels has no effect" in notice for notice in workflow.notices)


def test_optimizers_for_sparse_gradients_are_rejected_while_planning(tmp_path):
    content = experiment(train_config__optimizer="SparseAdam")
    with pytest.raises(UserError, match=r"train_config.optimizer: 'SparseAdam' needs sparse gradients"):
        plan(content, tmp_path)


def test_every_value_of_a_sweep_is_checked(tmp_path):
    content = experiment(sweep=[{"train_config.optimizer": ["adam", "adman"]}])
    with pytest.raises(UserError, match=r"train_config.optimizer: torch.optim has no 'adman'; did you mean 'ada"):
        plan(content, tmp_path)
