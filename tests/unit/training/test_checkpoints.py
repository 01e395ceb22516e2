"""States of earlier versions resume, and settings that change the weights change the fingerprint."""

import pytest

from separation.experiment.ids import excluded_keys
from separation.experiment.schema_defaults import load_schema
from separation.training.checkpoints import accepted_fingerprints, fingerprint
from training_examples import experiment

#: fingerprint of `experiment()` in states of version 1
VERSION_1 = "ead16623662bc0dc7ac3021044a0168d91c12ccdbfaf736bd0d482d88551f9bd"
KEYS = load_schema("experiment")["properties"]["train_config"]["properties"]


def test_fingerprints_of_earlier_versions_stay_valid():
    config = experiment()
    assert fingerprint(config) == VERSION_1
    del config["train_config"]["data_parallel"]
    assert fingerprint(config) == VERSION_1


def test_states_of_earlier_versions_resume_with_data_parallel():
    """Those versions left it out of the fingerprint: it is part of the point's id, so of the folder of the state."""
    config = experiment(data_parallel=True)
    assert accepted_fingerprints(config) == {fingerprint(config), VERSION_1}
    assert accepted_fingerprints(experiment()) == {VERSION_1}


@pytest.mark.parametrize("key", excluded_keys("train_config"))
def test_keys_that_change_no_result_change_no_fingerprint(key):
    assert fingerprint(experiment(**{key: "another value"})) == fingerprint(experiment())


@pytest.mark.parametrize("key", sorted(set(KEYS) - set(excluded_keys("train_config"))))
def test_keys_that_are_part_of_the_id_change_the_fingerprint(key):
    value = True if key == "data_parallel" else "another value"
    assert fingerprint(experiment(**{key: value})) != fingerprint(experiment())


def test_the_cache_name_does_not_change_the_fingerprint():
    assert fingerprint(experiment(dataset={"cache": "somewhere"})) == fingerprint(experiment())
