"""Options that jobs read: typed, of constant size, with each point's own settings."""

import os
import pickle
from pathlib import Path

import pytest

from experiments import experiment, plan
from separation.errors import UserError
from separation.planning.point_config import evaluation_config
from separation.planning.run_options import RunOptions


@pytest.fixture
def working(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options_in_job(workflow) -> RunOptions:
    workflow.job_table.write(workflow.experiment.name)
    return RunOptions.of({"run_options": pickle.loads(pickle.dumps(workflow.run_options.as_config()))})


def test_a_job_reads_the_options_that_planning_wrote(working):
    rates = {"train_config.learning_rate": [0.1, 0.01], "cache": "x"}
    workflow = plan(experiment(sweep=[rates]), working)
    options = options_in_job(workflow)
    assert options == workflow.run_options
    assert options.jobs == workflow.job_table
    for row in workflow.rows:
        assert options.jobs.labels[row.point] == {"label": row.label, "swept": row.swept}


def test_a_point_has_its_own_settings_that_change_no_result(working):
    groups = [
        {"train_config.learning_rate": 0.1},
        {"train_config.learning_rate": 0.01, "info.notes": "slow", "train_config.num_workers": 3},
    ]
    workflow = plan(experiment(sweep=[{"multiple_parameters_1": groups}]), working)
    first, second = (options_in_job(workflow).jobs.point(point) for point in workflow.trainings)
    assert first["info"]["notes"] != "slow" and first["train_config"]["num_workers"] == 0
    assert second["info"]["notes"] == "slow" and second["train_config"]["num_workers"] == 3
    assert first["splits"] == second["splits"] and first["splits"]["train"]["split"] == "train"


def test_the_size_of_run_options_does_not_depend_on_the_number_of_points(working):
    sizes = []
    for count in (2, 50):
        workflow = plan(
            experiment(sweep=[{"train_config.learning_rate": [0.1 / (n + 1) for n in range(count)]}]), working
        )
        sizes.append(len(pickle.dumps(workflow.run_options.as_config())))
    assert sizes[0] == sizes[1] < 4000


def test_each_table_has_its_own_file_and_is_written_once(working):
    one = plan(experiment(info={"notes": "a"}), working)
    other = plan(experiment(info={"notes": "b"}), working)
    assert one.run_options.table != other.run_options.table
    options = options_in_job(one)
    before = Path(options.table).stat().st_ino
    options_in_job(one)
    assert Path(options.table).stat().st_ino == before


def test_tables_without_a_recent_run_are_removed(working):
    old, recent = (plan(experiment(info={"notes": notes}), working) for notes in ("old", "recent"))
    tables = [Path(options_in_job(each).table) for each in (old, recent)]
    of_another_sweep = tables[0].with_name(f"other-{'0' * 12}.json")
    of_another_sweep.touch()
    for path in (tables[0], of_another_sweep):
        os.utime(path, (0, 0))
    options_in_job(recent)
    assert [path.exists() for path in (*tables, of_another_sweep)] == [False, True, True]


def test_a_deleted_table_is_reported_with_a_remedy(working):
    options = plan(experiment(), working).run_options
    with pytest.raises(UserError, match=r"the options of this run were deleted.*start the workflow again"):
        _ = options.jobs


def test_the_config_of_an_evaluation_has_the_sections_of_that_evaluation():
    config = {"info": {"seed": 0}, "algorithm_config": {"class": "A"}, "test_config": {"testers": ["a"]}}
    options = {"algorithm_config": {"class": "B", "args": {"device": "cpu"}}, "test_config": {"num_workers": 2}}
    spec = {"algorithm_config": {"class": "B", "args": {}}, "test_config": {"testers": ["b"]}}
    assert evaluation_config(config, spec, options) == {
        "info": {"seed": 0},
        "algorithm_config": {"class": "B", "args": {}},
        "test_config": {"num_workers": 2, "testers": ["b"]},
    }


def test_the_sheet_of_the_experiment_overrides_config(working):
    options = plan(experiment(), working).run_options
    assert options.sheet_destination({})["worksheet"] == options.sweep
    named = {"spreadsheet_name": "mine", "worksheet_name": "today"}
    assert options.sheet_destination(named) == {"spreadsheet": "mine", "worksheet": "today"}
