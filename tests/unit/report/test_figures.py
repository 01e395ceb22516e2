"""Figures of a sweep."""

import json
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.files.atomic import read_json
from separation.files.layout import SweepFiles
from separation.report.figures import plot_sweep
from simulated_sweep import simulate_sweep


def plot(folder, swept=None, **options):
    """Simulates and draws a sweep; returns it with its figures: name -> (specification, entry in the index)."""
    sweep = simulate_sweep(folder, swept, **options)
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    plot_sweep(sweep.files, sweep.artifacts)
    return sweep, read_figures(sweep.files)


def read_figures(files):
    index = read_json(files.figure_index)
    return {entry["name"]: (read_json(files.figures / f"{entry['name']}.vl.json"), entry) for entry in index}


def rows_of(specification):
    """All rows of data in a specification."""
    return [row for rows in specification["datasets"].values() for row in rows]


def text_of(svg):
    return [element.text for element in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def drawn(drawn_sweep):
    return drawn_sweep, read_figures(drawn_sweep.files)


def test_each_figure_is_an_svg_and_a_specification(drawn):
    sweep, figures = drawn
    assert list(figures) == [
        "validation_loss",
        "training_loss",
        "score_distributions",
        "source_scores",
        "improvement_against_input",
        "condition_00_snr_vocals",
        "parallel_coordinates",
        "main_effects",
        "effect_00_learning_rate",
        "effect_01_sample_strategy",
        "validation_against_test",
        "score_against_time",
    ]
    for name, (specification, entry) in figures.items():
        assert ElementTree.parse(sweep.files.figures / f"{name}.svg").getroot().tag.endswith("svg")
        assert "vega-lite" in specification["$schema"]
        assert entry["title"]
        assert entry["caption"]
        assert specification["description"]


def test_figures_contain_their_data_and_load_nothing(drawn):
    _, figures = drawn
    for specification, _ in figures.values():
        assert '"url"' not in json.dumps(specification)


def test_learning_curves_show_every_epoch_of_every_point(drawn):
    _, figures = drawn
    for name, column in (("validation_loss", "validation_loss"), ("training_loss", "train_loss")):
        rows = rows_of(figures[name][0])
        assert len(rows) == 8 * 12
        assert all(0 < row[column] < 1 for row in rows)


def test_distributions_show_every_mixture_of_points_and_baselines(drawn):
    sweep, figures = drawn
    rows = [row for row in rows_of(figures["score_distributions"][0]) if "item" in row]
    assert len(rows) == (8 + 5) * 48
    texts = text_of(sweep.files.figures / "score_distributions.svg")
    assert "1 · learning_rate=0.01, sample_strategy=sequential" in texts
    assert {"Fixed mask", "Ideal binary mask", "Mixture (nothing done)"} <= set(texts)


def test_the_best_point_has_its_own_colour(drawn):
    _, figures = drawn
    rows = [row for row in rows_of(figures["validation_against_test"][0]) if "kind" in row]
    best = [row for row in rows if row["kind"] == "best point"]
    assert len(rows) == 8
    assert [row["criterion"] for row in best] == [min(row["criterion"] for row in rows)]


def test_values_of_a_swept_number_are_sorted_by_size(drawn):
    _, figures = drawn
    specification, _ = figures["effect_00_learning_rate"]
    orders = [layer["encoding"].get("x", {}).get("sort") for layer in specification["layer"]]
    assert ["0.0001", "0.001", "0.01", "0.1"] in orders


def test_every_source_has_a_mean_with_an_interval(drawn):
    _, figures = drawn
    rows = [row for row in rows_of(figures["source_scores"][0]) if "source" in row]
    assert len(rows) == (8 + 5) * 2
    assert all(row["low"] <= row["score"] <= row["high"] for row in rows)


def test_same_sweep_draws_same_bytes(drawn, tmp_path):
    sweep, _ = drawn
    again = SweepFiles(tmp_path)
    for path in (path for path in sweep.files.path.iterdir() if path.is_file()):
        shutil.copy(path, tmp_path)
    plot_sweep(again, sweep.artifacts)
    for path in sweep.files.figures.iterdir():
        assert (again.figures / path.name).read_bytes() == path.read_bytes()


def test_one_point_has_curves_and_scores_but_no_effects(tmp_path):
    stale = tmp_path / "figures" / "effect_07_gone.svg"
    stale.parent.mkdir()
    stale.write_text("<svg/>")
    _, figures = plot(tmp_path, {"train_config.learning_rate": [0.01]}, num_items=6, num_songs=3)
    assert list(figures) == [
        "validation_loss",
        "training_loss",
        "score_distributions",
        "source_scores",
        "improvement_against_input",
        "condition_00_snr_vocals",
    ]
    assert not stale.exists()


def test_many_points_are_drawn_by_rank(tmp_path):
    rates = [round(0.001 * 1.1**index, 6) for index in range(40)]
    _, figures = plot(tmp_path, {"train_config.learning_rate": rates}, num_items=6, num_songs=3, num_epochs=3)
    specification, _ = figures["score_distributions"]
    assert sorted(row["rank"] for row in rows_of(specification) if "rank" in row) == list(range(1, 41))
    assert specification["height"] < 400
    assert len({row["label"] for row in rows_of(figures["source_scores"][0]) if "source" in row}) == 30 + 5
    assert "30 points with the lowest validation loss" in figures["source_scores"][1]["caption"]
    assert figures["effect_00_learning_rate"][0]["layer"][-1]["encoding"]["x"]["type"] == "quantitative"
