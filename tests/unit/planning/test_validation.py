"""When points are chosen by a score on the validation split, and by which."""

import pytest

from experiments import experiment, plan
from separation.errors import UserError

DIFFERENT = [{"dataset_config.output_type": ["msa", "psa"]}]
SAME = [{"train_config.learning_rate": [0.1, 0.2]}]


def test_points_with_one_loss_are_not_scored_on_the_validation_split(tmp_path):
    workflow = plan(experiment(sweep=SAME), tmp_path)
    assert workflow.validations == {}
    assert workflow.notices == []
    assert all("validation" not in row for row in workflow.table()), "points.csv is as it was"


def test_different_losses_are_scored_by_one_tester_on_the_validation_split(tmp_path):
    testers = [{"STOI": {}}, {"BSSEvalScale": {"compute_permutation": True}}]
    content = experiment(sweep=DIFFERENT, test_config={"testers": testers, "keep_estimates": "all"})
    workflow = plan(content, tmp_path)
    assert len(workflow.validations) == 2
    (_, evaluation), *_ = workflow.validations
    job, split = workflow.validations[next(iter(workflow.validations))]
    assert split.split == "val"
    assert "STOI" not in job.spec and '"keep_estimates":"none"' in job.spec
    assert {row["validation"] for row in workflow.table()} == {evaluation}
    assert {row["validation_metric"] for row in workflow.table()} == {"SI-SDR"}


def test_the_metric_can_be_chosen_and_enters_no_id(tmp_path):
    def ids(metric, sweep):
        workflow = plan(experiment(sweep=sweep, test_config={"validation_metric": metric}), tmp_path)
        return list(workflow.evaluations), [row["validation_metric"] for row in workflow.table() if "validation" in row]

    default, metrics = ids(None, DIFFERENT)
    assert metrics == ["SI-SDR"] * 2
    assert ids("loss", DIFFERENT) == (default, [])
    assert ids("SNR", DIFFERENT) == (default, ["SNR"] * 2)
    assert ids("SNR", SAME)[1] == ["SNR"] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_config": {"validation_metric": "SI-SDD"}},
         r"test_config\.validation_metric: expected loss or a metric of the testers, found 'SI-SDD'; did you mean"),
        ({"test_config": {"validation_metric": "PESQ"}}, r"found 'PESQ'; the testers measure SI-SDR, SI-SDRi"),
        ({"sweep": [{"test_config.validation_metric": ["SNR", "SI-SDR"]}]},
         r"expected one metric for all points of the sweep, found SNR, SI-SDR"),
    ],
)  # fmt: skip
def test_an_unusable_metric_is_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        plan(experiment(**changes), tmp_path)
    assert "\n" not in str(error.value)
