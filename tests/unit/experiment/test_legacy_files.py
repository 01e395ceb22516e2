"""Experiment files written for cookiecutter-nussl and for older versions of nussl."""

import json

import pytest

from experiments import experiment, plan
from legacy_experiments import clustering_experiment, with_masks
from separation.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mixtures").mkdir()
    (tmp_path / "mixtures" / "000.wav").write_bytes(b"RIFF")
    return tmp_path / "mixtures"


def specs(workflow):
    return [json.loads(training.spec) for training in workflow.trainings.values()]


def test_legacy_clustering_experiments_are_migrated(tmp_path, folder):
    workflow = plan(clustering_experiment(folder), tmp_path)
    assert len(workflow.trainings) == 2
    spec = specs(workflow)[0]
    assert spec["train_config"]["loss_function"] == [["DeepClusteringLoss", "embedding", 1]]
    assert spec["dataset_config"]["data_keys_for_training"] == ["mix_magnitude", "ideal_binary_mask", "weights"]
    assert spec["model_config"]["connections"][0] == ["log_spectrogram", ["mix_magnitude"]]
    assert spec["model_config"]["modules"]["embedding"]["args"]["num_audio_channels"] == 1
    assert spec["model_config"]["modules"]["mel_projection"]["args"]["num_frequencies"] == 65
    ((work, _), *_) = workflow.evaluations.values()
    evaluation = json.loads(work.spec)
    assert evaluation["algorithm_config"]["args"] == {"beta": 5, "num_sources": 2, "percentile": 90}
    assert evaluation["test_config"]["testers"] == [{"BSSEvalScale": {"compute_permutation": True}}]


def test_ignored_keys_give_notices_with_their_lines(tmp_path, folder):
    notices = "\n".join(plan(clustering_experiment(folder), tmp_path).notices)
    for key in ("blocking", "num_gpus", "overwrite_cache", "use_librosa_stft", "use_blocking_executor", "testers"):
        assert f": {key}: " in notices


def test_masks_under_another_name_become_the_output_mask(tmp_path, folder):
    content = with_masks(clustering_experiment(folder))
    workflow = plan(content, tmp_path)
    (spec,) = specs(workflow)
    assert spec["model_config"]["output"] == ["estimates", "mask"]
    assert spec["train_config"]["loss_function"] == [
        ["PermutationInvariantLoss", "estimates", 1, {"loss_function": "MSELoss"}]
    ]
    assert any("num_sources has no effect" in notice for notice in workflow.notices)


def test_directories_without_braces_are_read_as_variables(tmp_path, folder):
    content = clustering_experiment(folder)
    for split in content["datasets"].values():
        split["folder"] = "DATA_DIRECTORY/mixtures"
    workflow = plan(content, tmp_path, environment={"DATA_DIRECTORY": str(tmp_path)})
    assert len(workflow.trainings) == 2


def test_old_and_new_names_of_a_loss_give_the_same_point(tmp_path):
    new = plan(experiment(), tmp_path)
    old = plan(experiment(train_config__loss_function=[["dpcl", "embedding", 1.0]]), tmp_path)
    assert list(new.trainings) == list(old.trainings)


def test_removed_features_are_errors_that_name_the_remedy(tmp_path, folder):
    content = clustering_experiment(folder)
    content["algorithm_config"]["args"]["enhancement_amount"] = 0.4
    with pytest.raises(UserError, match="enhancement is no longer supported; remove this key"):
        plan(content, tmp_path)
