"""Ids of evaluations: those whose results have changed since the first release are new, all others are as they were."""

import pytest

from separation.experiment.ids import digest
from separation.planning.specs import baselines_spec, evaluation_spec
from separation.planning.splits import Split

TEST = Split("songs-0123456789ab", "songs", "test", "data", "data/manifest.json", {"dataset": "songs"})
MASKS = {"class": "DeepMaskEstimation", "args": {"mask_type": "soft"}}
CLUSTERS = {"class": "DeepClustering", "args": {"num_sources": 2}}
WINDOWS = {"window": 8000, "hop": 8000}


def evaluation(algorithm, testers):
    """The id of an evaluation, and the id that the first release gave it."""
    first = digest(
        {
            "algorithm_config": algorithm,
            "test_config": {"testers": testers},
            "test": TEST.identity,
            "versions": {"evaluate": 1},
        }
    )
    return evaluation_spec(algorithm, {"testers": testers}, TEST, {}).id, f"songs-{first}"


@pytest.mark.parametrize(
    ("algorithm", "testers"),
    [
        (MASKS, [{"PESQ": {}}]),
        (MASKS, [{"BSSEvalV4": WINDOWS}]),
        (MASKS, ["PESQ", ["BSSEvalV4", WINDOWS]]),
        ({"class": "DeepClustering", "args": {"num_sources": 2, "n_init": 1}}, [{"PESQ": {}}]),
        ({"class": "DeepClustering", "args": {"clustering_type": "GaussianMixture"}}, [{"PESQ": {}}]),
    ],
)
def test_evaluations_with_the_same_results_as_ever_keep_their_id(algorithm, testers):
    now, first = evaluation(algorithm, testers)
    assert now == first


@pytest.mark.parametrize(
    ("algorithm", "testers"),
    [
        (CLUSTERS, [{"PESQ": {}}]),
        (MASKS, [{"BSSEvalScale": {}}]),
        (MASKS, ["BSSEvalScale"]),
        (MASKS, [{"BSSEvalV4": {}}]),
        (MASKS, [{"BSSEvalV4": {"window": 8000}}]),
        (MASKS, [{"STOI": {}}]),
    ],
)
def test_evaluations_with_other_results_have_a_new_id(algorithm, testers):
    now, first = evaluation(algorithm, testers)
    assert now != first


def test_baselines_have_a_new_id_for_the_same_testers():
    keys = ("sample_rate", "num_channels", "n_fft", "hop_length", "window_type", "group_sources", "group_names")
    dataset = dict.fromkeys((*keys, "ignore_sources", "source_labels"), 1)

    def versions(testers):
        return baselines_spec(dataset, {"testers": testers}, {"train": TEST, "test": TEST}, {}).spec

    assert '"versions":{"baselines":1}' in versions([{"BSSEvalV4": WINDOWS}])
    assert '"versions":{"BSSEvalScale":2,"baselines":1}' in versions([{"BSSEvalScale": {}}])
