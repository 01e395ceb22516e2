"""Metrics of the user's own, from a folder of Python files to tables and the report."""

import re
import textwrap

import numpy as np
import pandas as pd
import pytest

import experiments
from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.data.items import Items
from separation.errors import UserError
from separation.evaluation.baselines import evaluate_baselines
from separation.evaluation.evaluate import evaluate_point
from separation.evaluation.user_metrics import all_testers, score_user_metrics
from separation.experiment.config import ROOT
from separation.experiment.options import PointOptions
from separation.files.score_table import read_user_metrics, write_score_table
from separation.files.yaml_reader import parse_yaml
from separation.report.figures import plot_sweep
from separation.report.render import render_report
from simulated_sweep import simulate_sweep
from training_examples import dataset_options, experiment, write_split

DOCS = (ROOT / "docs" / "metrics.md").read_text()

SWAPPED = """
    import nussl

    class Swapped(nussl.separation.base.SeparationBase):
        '''A share of the mixture for each source, the larger one first.'''
        def run(self):
            return None
        def make_audio_signals(self):
            audio = self.audio_signal.audio_data
            return [self.audio_signal.make_copy_with_audio_data(share * audio) for share in (0.75, 0.25)]
"""
METRIC = """
    import numpy as np

    class Level:
        "Level of the estimate."
        unit = "dB"
        direction = "lower is better"

        def __call__(self, references, estimates, mixture, sample_rate):
            return RETURNED
"""


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("data") / "val", count=2, seed=2)


@pytest.fixture
def extras(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "algorithm.py").write_text(textwrap.dedent(SWAPPED))
    return folder


def block(language, containing):
    """A code block of docs/metrics.md."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS, flags=re.DOTALL)
    return next(text for text in blocks if containing in text)


def evaluate(extras, split, tmp_path, testers):
    config = experiment(num_epochs=1)
    config["info"]["extras"] = str(extras)
    config["algorithm_config"] = {"class": "Swapped", "args": {}}
    config["test_config"] = {"testers": testers}
    scores = tmp_path / "scores.parquet"
    checkpoint = tmp_path / "none.pth"  # the algorithm has no network
    evaluate_point(
        PointOptions.read(config), point="p", evaluation="e", checkpoint=checkpoint, test=split, scores=scores
    )
    return scores


def test_the_example_in_the_docs_scores_points_and_baselines(extras, split, tmp_path):
    (extras / "lsd.py").write_text(block("python", "# extras/lsd.py"))
    testers = parse_yaml(block("yaml", "LogSpectralDistance"), file="docs").value["test_config"]["testers"]
    path = evaluate(extras, split, tmp_path, testers)
    table = pd.read_parquet(path)
    assert {"SI-SDR", "LSD"} <= set(table.columns)
    assert table["LSD"].between(1, 120).all()
    described = read_user_metrics(path)["LSD"]
    assert (described["unit"], described["direction"]) == ("dB", "lower is better")
    assert described["definition"].startswith("Root mean square difference")

    baselines = tmp_path / "baselines.parquet"
    arguments = dict(train=split, test=split, scores=baselines, evaluation="b", extras=str(extras))
    evaluate_baselines(dataset_options(), testers, **arguments)
    means = pd.read_parquet(baselines).groupby("point")["LSD"].mean()
    assert means["ideal_ratio_mask"] < means["mixture"]
    assert read_user_metrics(baselines) == read_user_metrics(path)


def test_a_metric_gets_the_estimates_in_the_order_of_the_sources(extras, split, tmp_path):
    (extras / "mine.py").write_text(
        textwrap.dedent(METRIC.replace("RETURNED", "10 * np.log10((estimates**2).mean(axis=(1, 2)))"))
    )
    mixture = Items(split, dataset_options())[0].mixture.audio_data
    levels = {share: 10 * np.log10(np.mean((share * mixture) ** 2)) for share in (0.75, 0.25)}

    def scores(testers):
        table = pd.read_parquet(evaluate(extras, split, tmp_path, testers))
        return table[table["item"] == "000000"].set_index("source")

    given = scores([{"Level": {}}])
    assert given["LEVEL"].tolist() == pytest.approx([levels[0.75], levels[0.25]])
    found = scores([{"Level": {}}, {"BSSEvalScale": {"compute_permutation": True, "best_permutation_key": "SNR"}}])
    assert sorted(found["LEVEL"]) == pytest.approx(sorted(levels.values()))
    # of two scaled mixtures, the louder one is nearer to the louder source
    sources = Items(split, dataset_options())[0].sources
    loudest = max(sources, key=lambda name: np.mean(sources[name].audio_data ** 2))
    assert found["LEVEL"].idxmax() == loudest


def test_an_estimate_that_is_not_finite_has_no_score(extras):
    (extras / "mine.py").write_text(textwrap.dedent(METRIC.replace("RETURNED", "abs(estimates).max(axis=(1, 2))")))
    testers = all_testers([{"Level": {}}], str(extras))
    sources = {"a": np.ones((1, 8)), "b": np.ones((1, 8))}
    estimates = [np.full((1, 8), np.nan), np.full((1, 8), 2.0)]
    result = score_user_metrics("0", sources, estimates, np.ones((1, 8)), None, testers=testers, sample_rate=8000)
    assert np.isnan(result.scores["a"]["LEVEL"])
    assert result.scores["b"]["LEVEL"] == 2.0


def test_one_number_counts_for_all_sources(extras, split, tmp_path):
    (extras / "mine.py").write_text(textwrap.dedent(METRIC.replace("RETURNED", "sample_rate")))
    table = pd.read_parquet(evaluate(extras, split, tmp_path, [{"Level": {}}]))
    assert table["LEVEL"].tolist() == [8000.0] * 4


def test_with_compute_permutation_the_best_order_counts(extras, split, tmp_path):
    (extras / "mine.py").write_text(
        "def error(references, estimates, mixture, sample_rate, power=1):\n"
        "    return (abs(estimates - references) ** power).mean(axis=(1, 2))\n\n"
        'error.unit, error.direction = "-", "lower is better"\n'
        'error.definition = "Mean absolute error."\n'
    )
    given = pd.read_parquet(evaluate(extras, split, tmp_path, [{"error": {"power": 2}}]))
    best = pd.read_parquet(evaluate(extras, split, tmp_path, [{"error": {"power": 2, "compute_permutation": True}}]))
    means = [table.groupby("item")["ERROR"].mean() for table in (best, given)]
    assert (means[0] <= means[1]).all()
    item = Items(split, dataset_options())[0]
    estimates = [share * item.mixture.audio_data for share in (0.75, 0.25)]
    sources = [source.audio_data for source in item.sources.values()]
    orders = [sum(np.mean((e - s) ** 2) for e, s in zip(order, sources, strict=True)) / 2
              for order in (estimates, estimates[::-1])]  # fmt: skip
    assert means[0]["000000"] == pytest.approx(min(orders))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("np.zeros(3)", r"mine\.py: expected Level to return one number, or one for each of the 2 sources, "
                        r"found the shape \(3,\) on item 000000"),
        ("None or 'loud'", r"of the 2 sources, found str on item 000000"),
        ("[0.0, np.inf]", r"expected Level to return finite numbers, or NaN for no score, found \[0.0, inf\]"),
        ("[0.0, 1 / 0]", r"mine\.py: Level failed on item 000000: ZeroDivisionError: division by zero \(line 10\)"),
        ("np.nan", r"mine\.py: Level returned NaN, which means no score, for all 4 sources"),
    ],
)  # fmt: skip
def test_what_a_metric_must_not_do_is_one_line(extras, split, tmp_path, returned, message):
    (extras / "mine.py").write_text(textwrap.dedent(METRIC.replace("RETURNED", returned)))
    with pytest.raises(UserError, match=message) as error:
        evaluate(extras, split, tmp_path, [{"Level": {}}])
    assert "\n" not in str(error.value)


def test_missing_scores_are_counted_in_the_log(extras, split, tmp_path, caplog):
    (extras / "mine.py").write_text(textwrap.dedent(METRIC.replace("RETURNED", "[1.0, np.nan]")))
    evaluate(extras, split, tmp_path, [{"Level": {}}])
    assert re.search(r"Level: no score \(NaN\) for 2 of 4 sources, such as \w+ of item 000000", caplog.text)


WELL = textwrap.dedent(METRIC.replace("RETURNED", "0.0"))


@pytest.mark.parametrize(
    ("code", "testers", "message"),
    [
        (WELL.replace('    unit = "dB"\n', ""), [{"Level": {}}],
         r'mine\.py:4: the metric Level has no unit; add `unit = "dB"` in the class'),
        (WELL.replace("    direction =", "    directions ="), [{"Level": {}}], r"the metric Level has no direction"),
        (WELL.replace('    "Level of the estimate."\n', ""), [{"Level": {}}], r"the metric Level has no definition"),
        (WELL.replace("lower is better", "down"), [{"Level": {}}],
         r"mine\.py:7: Level\.direction: expected 'higher is better' or 'lower is better', found 'down'"),
        (WELL.replace('"dB"', "10"), [{"Level": {}}], r"mine\.py:6: Level\.unit: expected a text in quotes"),
        (WELL.replace("unit =", 'column = "Level"\n    unit ='), [{"Level": {}}],
         r'expected a name in capitals .*found \'Level\'; set `column = "LSD"` beside its unit'),
        (WELL.replace("__call__", "call"), [{"Level": {}}], r"the metric Level cannot be called; add `def __call__"),
        (WELL, [{"Levels": {}}], r"test_config\.testers: .*found Levels: .*did you mean 'Level'"),
        (WELL, [{"Level": {"n_fft": 3}}], r"testers\.Level: expected one of compute_permutation, found 'n_fft'"),
        ("def level(references, estimates, mixture, sample_rate):\n    return 0\n", [{"level": {}}],
         r'mine\.py:1: the metric level has no unit; add `level\.unit = "dB"` below it'),
        (WELL.replace('unit = "dB"', 'unit, column = "dB", "SDR"'), [{"Level": {}}],
         r"the column SDR is that of a built-in metric"),
    ],
)  # fmt: skip
def test_a_wrong_description_is_found_before_anything_runs(extras, tmp_path, code, testers, message):
    (extras / "mine.py").write_text(code)
    with pytest.raises(UserError, match=message) as error:
        experiments.plan(experiments.experiment(info__extras=str(extras), test_config__testers=testers), tmp_path)
    assert "\n" not in str(error.value)


def test_the_code_is_part_of_the_ids_of_evaluation_and_baselines(extras, tmp_path):
    def ids():
        testers = [{"BSSEvalScale": {}}, {"Level": {}}]
        content = experiments.experiment(info__extras=str(extras), test_config__testers=testers)
        workflow = experiments.plan(content, tmp_path)
        ((point, evaluation),) = workflow.evaluations
        return point, evaluation, *workflow.baselines

    (extras / "mine.py").write_text(WELL)
    before = ids()
    (extras / "unused.py").write_text("def level():\n    return 3\n")
    assert ids() == before
    (extras / "mine.py").write_text(WELL.replace("return 0.0", "return 1.0"))
    after = ids()
    assert after[0] == before[0], "no point is trained again"
    assert after[1] != before[1]
    assert after[2] != before[2]


def test_unit_and_direction_reach_tables_and_report(tmp_path):
    sweep = simulate_sweep(tmp_path, num_items=24, num_songs=12)
    described = {"unit": "phon", "definition": "Loudness of what is left.", "source": "mine.py", "filter_length": "-",
                 "permutation": "-", "aggregation": "-", "direction": "lower is better"}  # fmt: skip
    kept = ["point", "evaluation", "dataset", "split", "item", "source"]
    for path in sweep.score_files:
        table = pd.read_parquet(path)
        table = table[[*kept, "songs"]].assign(LEFT=40 - table["SI-SDRi"])
        write_score_table(table[[*kept, "LEFT", "songs"]], path, {"LEFT": described})
    collect_scores(sweep.points, sweep.score_files, sweep.files)
    summarize_sweep(sweep.files, sweep.artifacts)
    plot_sweep(sweep.files, sweep.artifacts)
    render_report("left", sweep.files, sweep.artifacts, {})
    metrics = pd.read_csv(sweep.files.metrics).set_index("metric")
    assert metrics.loc["LEFT", ["unit", "direction"]].tolist() == ["phon", "lower is better"]
    found = pd.read_csv(sweep.files.comparisons)
    mixture = found[(found["kind"] == "baseline") & (found["against"] == "mixture")].iloc[0]
    assert mixture["difference"] < 0, "the best point leaves less than the mixture does"
    assert mixture["verdict"] == "better"
    assert mixture["share_better"] > 0.9
    page = sweep.files.report.read_text()
    assert "LEFT ↓" in page
    assert "Loudness of what is left. Unit: phon; lower is better." in page
    assert "phon LEFT on test" in page
    assert "LEFT (phon, lower is better)" in page
