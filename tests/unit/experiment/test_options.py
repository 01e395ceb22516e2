"""Typed options hold every key of the schema, with the schema's defaults and neutral values."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from separation.errors import UserError
from separation.experiment import ids
from separation.experiment.options import (
    DatasetOptions,
    EvaluationOptions,
    NetworkOptions,
    PointOptions,
    RemixOptions,
    TrainingOptions,
)
from separation.experiment.schema_defaults import load_schema
from training_examples import experiment

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
PROPERTIES = load_schema("experiment")["properties"]
SECTIONS = {
    DatasetOptions: ("dataset_config",),
    TrainingOptions: ("train_config",),
    NetworkOptions: ("model_config",),
    EvaluationOptions: ("algorithm_config", "test_config"),
}
REQUIRED = {
    "dataset_config": {"sample_rate": 8000, "n_fft": 64, "hop_length": 32},
    "train_config": {"loss_function": [["dpcl", "embedding", 1.0]], "num_epochs": 3},
    "model_config": {"modules": {"mix_magnitude": {}}, "connections": [], "output": ["mix_magnitude"]},
    "algorithm_config": {"class": "DeepClustering"},
    "test_config": {},
}


def as_tuples(value):
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


@pytest.mark.parametrize(("options", "sections"), SECTIONS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_every_key_of_the_schema_is_a_field_and_every_field_a_key(options, sections):
    keys = {key for section in sections for key in PROPERTIES[section]["properties"]}
    assert {field.name.removesuffix("_") for field in fields(options)} == keys


def test_every_key_of_a_remix_is_a_field():
    keys = PROPERTIES["dataset_config"]["properties"]["remix"]["properties"]
    assert {field.name for field in fields(RemixOptions)} == set(keys)


@pytest.mark.parametrize(("options", "sections"), SECTIONS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_missing_keys_have_the_defaults_of_the_schema(options, sections):
    read = options.read(*(REQUIRED[section] for section in sections))
    for section in sections:
        for key, described in PROPERTIES[section]["properties"].items():
            field = "class_" if key == "class" else key
            expected = REQUIRED[section].get(key, described.get("default"))
            assert as_tuples(getattr(read, field)) == as_tuples(expected), f"{section}.{key}"


def test_keys_of_a_remix_have_the_defaults_of_the_schema():
    assert DatasetOptions.read({**REQUIRED["dataset_config"], "remix": {}}).remix == RemixOptions(1, (0, 0))


def test_neutral_values_are_the_defaults_of_the_schema():
    for path, value in ids.NEUTRAL.items():
        section, key = path.split(".")
        assert PROPERTIES[section]["properties"][key]["default"] == value, path


def test_a_missing_key_takes_its_neutral_value_even_if_the_default_differs(monkeypatch):
    monkeypatch.setitem(ids.NEUTRAL, "train_config.patience", 77)
    assert TrainingOptions.read(REQUIRED["train_config"]).patience == 77
    assert TrainingOptions.read({**REQUIRED["train_config"], "patience": 2}).patience == 2


@pytest.mark.parametrize("section", ["dataset_config", "train_config", "model_config", "algorithm_config"])
def test_a_missing_section_or_required_key_is_an_error_that_names_it(section):
    config = experiment()
    required = next(iter(REQUIRED[section]))
    with pytest.raises(UserError, match=rf"^{section}\.{required}: missing key"):
        PointOptions.read({**config, section: {key: v for key, v in config[section].items() if key != required}})
    with pytest.raises(UserError, match=rf"^{section}: missing section"):
        PointOptions.read({key: value for key, value in config.items() if key != section})


def test_dataset_options_are_frozen_and_hashable():
    options = DatasetOptions.read({**REQUIRED["dataset_config"], "group_sources": [["a", "b"]], "remix": {}})
    assert options.group_sources == (("a", "b"),)
    assert len({options, DatasetOptions.read({**REQUIRED["dataset_config"], "group_sources": [["a", "b"]]})}) == 2
    with pytest.raises(AttributeError):
        options.n_fft = 128


def test_a_network_and_the_written_config_are_kept_as_written():
    config = experiment()
    options = PointOptions.read(config)
    assert options.written is config
    assert options.network.connections == config["model_config"]["connections"]
    assert list(options.network.modules) == list(config["model_config"]["modules"])
    assert (options.point, options.seed, options.extras) == ("dpcl-example-s0-0123456789ab", 0, "extras")


def test_options_are_read_without_jsonschema():
    code = "import sys, separation.experiment.options; print('jsonschema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
