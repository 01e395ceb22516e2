"""Costs of points, from histories and benchmark files."""

import math

import pandas as pd
import pytest

from separation.analysis.costs import exact_duration, rate_unit, read_costs
from separation.files.atomic import write_json
from separation.files.layout import PointFolder

POINTS = pd.DataFrame({"point": ["a", "b"], "evaluation": ["e", "e"]})


def write_training(folder, point, history, device=None):
    """Writes the history of a training run, and the device in its progress file."""
    point = PointFolder(folder / point)
    point.path.mkdir()
    history = {"epoch": [1, 2], "train_loss": [1.0, 0.5], "validation_loss": [1.0, 0.6], **history}
    pd.DataFrame(history).to_csv(point.history)
    if device is not None:
        write_json(point.progress, {"device": device})


def test_costs_have_total_time_peak_memory_and_device(tmp_path):
    write_training(tmp_path, "a", {"seconds": [10.0, 12.5], "memory_mb": [300, 350]}, "cuda:0 (NVIDIA H200)")
    write_training(tmp_path, "b", {})
    job = tmp_path / "benchmarks/evaluate_point/a/e.tsv"
    job.parent.mkdir(parents=True)
    job.write_text("s\th:m:s\tmax_rss\n31.5\t0:00:31\t400\n")
    measured = {"parameters": 1000, "multiply_adds_per_second": 2e9, "real_time_factor": 0.1, "peak_memory_mb": None}
    write_json(PointFolder(tmp_path / "a").evaluation("e").costs, measured)
    costs = read_costs(POINTS, tmp_path, tmp_path / "benchmarks").set_index("point")
    assert costs.loc["a", ["parameters", "multiply_adds_per_second", "real_time_factor"]].tolist() == [1000, 2e9, 0.1]
    assert math.isnan(costs.loc["a", "peak_memory_mb"]) and math.isnan(costs.loc["b", "parameters"])
    assert costs.loc["a", ["train_seconds", "memory_mb", "evaluate_seconds", "epochs"]].tolist() == [22.5, 350, 31.5, 2]
    assert costs.loc["a", "device"] == "cuda:0 (NVIDIA H200)"
    assert costs.loc["b", "device"] == ""
    assert costs.loc["b", ["train_seconds", "memory_mb", "evaluate_seconds"]].isna().all()


def test_total_time_is_unknown_if_an_epoch_has_no_time(tmp_path):
    write_training(tmp_path, "a", {"seconds": [10.0, None]})
    write_training(tmp_path, "b", {"seconds": [1, 1]})
    costs = read_costs(POINTS, tmp_path, tmp_path)
    assert math.isnan(costs["train_seconds"][0])
    assert costs["train_seconds"][1] == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (42.4, "42 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (math.nan, "–"),
    ],
)
def test_durations_are_readable(seconds, text):
    assert exact_duration(seconds) == text


def test_long_trainings_are_measured_in_hours():
    assert rate_unit(pd.DataFrame({"train_seconds": [20.0, math.nan]})) == ("min", 60.0)
    assert rate_unit(pd.DataFrame({"train_seconds": [20.0, 4000.0]})) == ("h", 3600.0)
