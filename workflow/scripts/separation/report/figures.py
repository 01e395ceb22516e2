"""Figures of a sweep, each as a specification for the report and as an SVG for papers and slides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import altair as alt
import vl_convert

from separation.analysis.costs import read_costs
from separation.analysis.sweep_tables import (
    metric_columns,
    primary_metric,
    read_analysis,
    read_histories,
    read_points,
    read_scores,
    read_summary,
    varying_keys,
)
from separation.experiment.key_paths import short_names
from separation.experiment.metric_definitions import all_definitions
from separation.files.atomic import read_json, write_json, write_text
from separation.files.layout import BENCHMARKS, SweepFiles
from separation.files.score_table import read_user_metrics
from separation.report import charts, condition_charts, effect_charts, learning_charts, score_charts

Figure = tuple[dict[str, str], alt.LayerChart | alt.Chart | None]
SECTIONS = ("learning_curves", "distributions", "conditions", "effects", "cost")
LIGHT = {
    "background": "white",
    "font": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
    "padding": 10,
    "view": {"stroke": None},
    "axis": {"gridColor": "#e6e8eb", "domainColor": "#9aa1ab", "tickColor": "#9aa1ab", "labelFontSize": 11.5},
    "legend": {"labelFontSize": 11.5},
    "style": {"halo": {"stroke": "white", "strokeWidth": 5, "strokeOpacity": 0.85}},
}


def gather_sweep(files: SweepFiles, artifacts: Path, benchmarks: Path = BENCHMARKS) -> charts.SweepData:
    """Reads the data of figures and report; see `plot_sweep`."""
    points, scores = read_points(files.points), read_scores(files.scores)
    return charts.gather(
        points,
        scores,
        read_summary(files.summary, points),
        read_histories(points, artifacts),
        primary_metric(metric_columns(scores)),
        costs=read_costs(points, artifacts, benchmarks),
        comparisons=read_analysis(files.comparisons),
        groups=read_analysis(files.groups),
        conditions=read_analysis(files.conditions),
        published=read_json(files.published) if files.published.exists() else (),
        definitions=all_definitions(read_user_metrics(files.scores)),
    )


def plot_sweep(files: SweepFiles, artifacts: Path, benchmarks: Path = BENCHMARKS) -> None:
    """Draws the figures of a sweep as `<name>.svg` and `<name>.vl.json` (Vega-Lite), and removes older figures.

    The figure index is written last: a list of `name`, `section`, `title` and `caption` in reading order.

    Args:
        files: Sweep with the tables that `separation.analysis.summarize` wrote.
        artifacts: Folder of the points, with their histories.
        benchmarks: Folder of job costs; see `separation.analysis.costs.read_costs`.
    """
    data = charts.with_ranks(gather_sweep(files, artifacts, benchmarks))
    folder = files.figures
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [(figure, chart) for figure, chart in _all(data) if chart is not None]
    kept = {f"{figure['name']}{suffix}" for figure, _ in drawn for suffix in (".svg", ".vl.json")}
    for old in [*folder.glob("*.svg"), *folder.glob("*.vl.json")]:
        if old.name not in kept:
            old.unlink()
    for figure, chart in drawn:
        # altair refuses large tables by default
        with alt.data_transformers.enable("default", max_rows=None):
            specification = chart.to_dict()
        specification["config"] = LIGHT
        svg = vl_convert.vegalite_to_svg(specification, vl_version=vega_lite_version())
        write_text(folder / f"{figure['name']}.svg", svg)
        write_text(folder / f"{figure['name']}.vl.json", json.dumps(specification, ensure_ascii=False) + "\n")
    write_json(files.figure_index, [figure for figure, _ in drawn])


def vega_lite_version() -> str:
    """The Vega-Lite version that altair writes, in the form that vl_convert expects."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _all(data: charts.SweepData) -> Iterator[Figure]:
    """Every figure as (its entry in the figure index, chart or None), in reading order."""
    yield from _learning_curves(data)
    if data.rows["score"].notna().any():
        yield from _distributions(data)
    if len(data.trained):
        yield from _conditions(data)
        yield from _effects(data)
        yield from _costs(data)


def _learning_curves(data: charts.SweepData) -> Iterator[Figure]:
    few = len(data.trained) <= charts.MAX_COLOURS
    colours = "The thick orange line is the best network." if few else "Orange is the best network, blue all others."
    yield (
        _about(
            "validation_loss",
            "learning_curves",
            "Validation loss",
            f"Loss on the validation mixtures after each epoch. {colours}",
        ),
        learning_charts.loss_curves(data, "validation_loss", "Validation loss", legend=True),
    )
    yield (
        _about(
            "training_loss",
            "learning_curves",
            "Training loss",
            "Loss on the training excerpts, in the same colours. Where it keeps falling while the validation loss "
            "rises, the network overfits.",
        ),
        learning_charts.loss_curves(data, "train_loss", "Training loss", legend=False),
    )


def _distributions(data: charts.SweepData) -> Iterator[Figure]:
    many = len(data.trained) > charts.MAX_ROWS
    yield (
        _about(
            "score_distributions",
            "distributions",
            "Scores of the test mixtures",
            f"One bar per point, ordered by {data.criterion}. The wide part covers the middle 50 % of the mixtures, "
            "the narrow part 90 %, the dot is the mean. Orange is the best network; dashed lines are the baselines' "
            "means."
            if many
            else "The box covers the middle 50 % of the mixtures, the line 90 %, the diamond is the mean. If there are "
            f"few mixtures, each has a dot, the mean over its sources. Points are ordered by {data.criterion}, "
            "baselines below; dashed lines are the baselines' means.",
        ),
        score_charts.score_distributions(data),
    )
    yield (
        _about(
            "source_scores",
            "distributions",
            "Scores by source",
            "Means with 95 % intervals"
            + (f", of the {charts.MAX_ROWS} points with the {data.extreme} {data.criterion}." if many else "."),
        ),
        score_charts.source_scores(data),
    )
    yield (
        _about(
            "improvement_against_input",
            "distributions",
            "Where the best network succeeds and fails",
            "One mark per source and mixture. On the left the source is quiet in the mixture, on the right it is loud. "
            "Below 0 dB the estimate is worse than the mixture itself.",
        ),
        score_charts.improvement_against_input(data),
    )


def _conditions(data: charts.SweepData) -> Iterator[Figure]:
    for index, (condition, chart) in enumerate(condition_charts.conditions(data)):
        caption = f"Means over the estimates in each range of {condition}, with 95 % intervals."
        name = f"condition_{index:02d}_{_file_name(condition)}"
        yield _about(name, "conditions", f"By {condition}", caption), chart


def _effects(data: charts.SweepData) -> Iterator[Figure]:
    yield (
        _about(
            "parallel_coordinates",
            "effects",
            "All settings and the score",
            "One line per point, through its value of each swept key to its score on the right; greener lines have "
            "higher scores, the thick orange line is the best network.",
        ),
        effect_charts.parallel_coordinates(data),
    )
    yield (
        _about(
            "main_effects",
            "effects",
            "Main effects",
            "Effect of each value of a swept key on the score, compared with the best's value of that key: the mean "
            "over pairs of trainings with all other keys equal. The intervals hold together with 95 %; there is none "
            "for fewer than three pairs.",
        ),
        effect_charts.main_effects(data),
    )
    keys = [key for key in varying_keys(data.points) if not key.endswith("seed")]
    for index, (key, name) in enumerate(short_names(keys).items()):
        yield (
            _about(
                f"effect_{index:02d}_{_file_name(name)}",
                "effects",
                f"Effect of {name}",
                "One dot per point, the best in orange. A bar is the mean over all points with that value; thin lines "
                "join points with all other keys equal.",
            ),
            effect_charts.effect(data, key),
        )
    if data.across:
        return
    yield (
        _about(
            "validation_against_test",
            "effects",
            f"Does {data.criterion} predict test score?",
            "The best network is chosen by the horizontal axis alone.",
        ),
        effect_charts.validation_against_test(data),
    )


def _costs(data: charts.SweepData) -> Iterator[Figure]:
    if data.across:
        return
    yield (
        _about(
            "score_against_time",
            "cost",
            "Score and training time",
            f"One dot per point with its 95 % interval, the best by {data.criterion} in orange. No point that took as "
            "long or less scores higher than one on the stepped line.",
        ),
        effect_charts.score_against_time(data),
    )


def _about(name: str, section: str, title: str, caption: str) -> dict[str, str]:
    return {"name": name, "section": section, "title": title, "caption": caption}


def _file_name(key: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in key)[:60]
