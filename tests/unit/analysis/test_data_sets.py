"""Points that were trained or tested on different data: nothing compares them."""

import re

import pandas as pd
import pytest

from separation.analysis.data_sets import data_sets
from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.files.atomic import write_json
from separation.report.figures import plot_sweep
from separation.report.render import render_report
from simulated_sweep import simulate_sweep

OTHER = "speech-def"


@pytest.fixture
def sweep(tmp_path):
    """Four points; the last two have other test data, with baselines of their own, 20 dB higher."""
    sweep = simulate_sweep(tmp_path, {"train_config.learning_rate": [0.1, 0.01, 0.001, 0.0001]}, num_items=24)
    moved = {point["point"] for point in sweep.points[2:]}
    for path in list(sweep.score_files):
        table = pd.read_parquet(path)
        if table["point"].iloc[0] in moved:
            table.assign(dataset=OTHER).to_parquet(path, index=False)
        elif path.parent.parent.name == "baselines":
            other = path.with_name("other.parquet")
            gains = {name: table[name] + 20 for name in ("SI-SDR", "SI-SDRi")}
            table.assign(dataset=OTHER, evaluation="baselines-other", **gains).to_parquet(other, index=False)
            sweep.score_files.append(other)
    for point in sweep.points:
        point["baselines"] = "baselines-other" if point["point"] in moved else "baselines-ba9876543210"
    return sweep


def analyze(sweep):
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    plot_sweep(sweep.files, sweep.artifacts)
    render_report("across", sweep.files, sweep.artifacts, {})
    return pd.read_csv(sweep.files.summary), sweep.files.report.read_text()


def test_no_best_point_is_named_across_data(sweep):
    summary, page = analyze(sweep)
    assert not summary["best"].any()
    assert summary["data"].head(4).tolist() == ["toy_music-abc/test"] * 2 + [f"{OTHER}/test"] * 2
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)))
    assert "No best network: the points have different data" in text
    assert "Of 6 pairs of networks, 4 have no test mixture in common and are not compared." in text
    assert "The best point of each data set" in text
    assert re.search(rf"data = {OTHER}/test 2 learning_rate=0\.001", text)
    assert "reaches" not in text, "no oracle is quoted"
    assert "★" not in text
    assert "Ideal binary mask (" in text and f"of {OTHER}/test" in text, "each data set has its own baselines"
    assert not (sweep.files.figures / "score_against_time.svg").exists()
    assert "strokeDash" not in (sweep.files.figures / "score_distributions.vl.json").read_text()


def test_each_point_is_measured_against_its_own_oracle(sweep):
    summary, _ = analyze(sweep)
    for index in range(4):
        row = summary.iloc[index]
        oracle = summary[(summary["point"] == "ideal_binary_mask") & (summary["data"] == row["data"])].iloc[0]
        mixture = summary[(summary["point"] == "mixture") & (summary["data"] == row["data"])].iloc[0]
        share = (row["SI-SDR"] - mixture["SI-SDR"]) / (oracle["SI-SDR"] - mixture["SI-SDR"])
        assert row["oracle_share"] == pytest.approx(share, abs=1e-3)


def test_shared_mixtures_are_the_same_data_unless_validation_differs(tmp_path):
    sweep = simulate_sweep(tmp_path, {"train_config.learning_rate": [0.1, 0.01]}, num_items=8)
    scores = pd.concat([pd.read_parquet(path) for path in sweep.score_files])
    points = [point["point"] for point in sweep.points]
    assert data_sets(scores, sweep.artifacts) == {}
    half = scores[(scores["point"] != points[0]) | (scores["item"] < "000004")]
    assert data_sets(half, sweep.artifacts) == {}
    for point, val in zip(points, ("music-1", "music-2"), strict=True):
        write_json(sweep.folder(point).spec, {"datasets": {"val": {"id": val, "split": "val"}}})
    names = data_sets(scores, sweep.artifacts)
    assert names[points[0], sweep.points[0]["evaluation"]] == "toy_music-abc/test, validated on music-1/val"
    assert len({names[point, sweep.points[0]["evaluation"]] for point in points}) == 2
