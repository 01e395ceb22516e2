"""Charts of a sweep as altair specifications.

Colours have the same meaning in all charts: orange is the best point, blue the other points, green the systems of other
programs, grey the baselines. All charts are single views, so that the report can fit their width to the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from separation.analysis.statistics import BETTER, SETTING, WORSE
from separation.analysis.sweep_tables import validation_metric
from separation.experiment.metric_definitions import METRIC_DEFINITIONS, MetricDefinition
from separation.files.score_table import BASELINES, ORACLE, is_system

BEST, POINT, SYSTEM, BASELINE = "best point", "other points", "other systems", "baselines"
COLOURS = {BEST: "#e8710a", POINT: "#3f7fc4", SYSTEM: "#2a9d77", BASELINE: "#7d8590"}
# numbers from papers
PUBLISHED = "#b07aa1"
# Distinguishable on white and on near-black, also for most colour-blind readers
PALETTE = ["#3f7fc4", "#d1495b", "#2a9d77", "#b07aa1", "#5b8c3e", "#6f6fd6", "#1f9fb5", "#8a6d52"]
WIDTH = 680
# With more points, charts are ordered by rank and points do not get a colour each
MAX_ROWS = 30
MAX_COLOURS = 8
REFERENCE_LINES = ("mixture", "fixed_mask", ORACLE)
# The value of a swept key that a point does not have
NOT_SET = "(not set)"


@dataclass(frozen=True)
class SweepData:
    """Data of the charts.

    `rows` has one row per point and evaluation and per baseline: `point`, `evaluation`, `label` (unique), `kind`,
    `validation_loss`, `criterion` (what points are chosen by: that loss, or a validation score), `chosen` (the
    same, with lower as better), `score`, `low`, `high`, `oracle_share`, swept keys; ordered by `chosen`, baselines
    last.
    """

    points: pd.DataFrame
    rows: pd.DataFrame
    scores: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    metric: str
    #: see `separation.analysis.costs.read_costs`
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    #: see `separation.analysis.sweep_tables.read_analysis`; empty if the file does not exist
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)
    conditions: pd.DataFrame = field(default_factory=pd.DataFrame)
    #: numbers from papers: `name`, `source`, `data`, `metrics`
    published: Sequence[Mapping[str, Any]] = ()
    #: the metric on the validation split by which points are chosen; "" if they are chosen by validation loss
    chosen_by: str = ""
    #: definitions of all metrics, built-in and the user's own
    definitions: Mapping[str, MetricDefinition] = field(default_factory=lambda: METRIC_DEFINITIONS)

    @property
    def across(self) -> bool:
        """Whether points have different data, between which nothing compares; see `analysis.data_sets`."""
        return "data" in self.rows

    @property
    def criterion(self) -> str:
        """What points are chosen by, in words."""
        return f"validation {self.chosen_by or 'loss'}"

    @property
    def extreme(self) -> str:
        """Whether the lowest or the highest value of the criterion is the best."""
        higher = self.chosen_by and self.definitions[self.chosen_by].direction == "higher is better"
        return "highest" if higher else "lowest"

    @property
    def unit(self) -> str:
        """The unit of the metric."""
        return self.definitions[self.metric].unit if self.metric in self.definitions else "dB"

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is better in the metric."""
        return self.metric not in self.definitions or self.definitions[self.metric].direction == "higher is better"

    @property
    def trained(self) -> pd.DataFrame:
        """The rows that are points, not baselines, and have a score."""
        return self.rows[~self.rows["baseline"] & self.rows["score"].notna()]

    @property
    def baselines(self) -> pd.DataFrame:
        """The rows that are baselines."""
        return self.rows[self.rows["kind"] == BASELINE]


def gather(
    points: pd.DataFrame,
    scores: pd.DataFrame,
    summary: pd.DataFrame,
    histories: dict[str, pd.DataFrame],
    metric: str,
    **others: Any,
) -> SweepData:
    """Collects the data of the charts from tables read by `separation.analysis.sweep_tables`.

    `others` are further fields of SweepData.
    """
    rows = summary.rename(columns={metric: "score", f"{metric}_low": "low", f"{metric}_high": "high"})
    systems = rows["point"].map(is_system)
    rows["kind"] = np.select([systems, rows["baseline"], rows["best"]], [SYSTEM, BASELINE, BEST], POINT)
    rows["label"] = unique_labels(rows)
    chosen_by, lower = validation_metric(points), True
    if chosen_by:
        lower = others.get("definitions", METRIC_DEFINITIONS)[chosen_by].direction == "lower is better"
    groups = others.pop("groups", pd.DataFrame()).copy()
    for table in (rows, groups):
        if len(table):
            table["criterion"] = table["validation_score" if chosen_by else "validation_loss"]
            table["chosen"] = table["criterion"] * (1.0 if lower else -1.0)
    by = ["baseline", "chosen"]
    if "data" in rows:
        # ranks hold only within the same data
        by.insert(1, "data")
        rows["label"] = rows["label"].where(~rows["baseline"], rows["label"] + " of " + rows["data"])
    rows = rows.sort_values(by, kind="stable", na_position="last").reset_index(drop=True)
    return SweepData(points, rows, scores, histories, metric, chosen_by=chosen_by, groups=groups, **others)


def effect_words(verdict: str, question: str) -> str:
    """The verdict on a main effect: of settings trained once, it is about their trainings only."""
    if question != SETTING:
        return {BETTER: "higher in these trainings", WORSE: "lower in these trainings"}.get(verdict, verdict)
    return verdict


def with_ranks(data: SweepData) -> SweepData:
    """Puts ranks before labels, so that a truncated label can still be found in the table."""
    rows = data.rows.copy()
    if (~rows["baseline"]).sum() > 1:
        rank = pd.Series(np.arange(1, len(rows) + 1), index=rows.index).astype(str)
        rows["label"] = rows["label"].where(rows["baseline"], rank + " · " + rows["label"])
    return replace(data, rows=rows)


def unique_labels(rows: pd.DataFrame) -> pd.Series:
    """Unique labels: equal labels get the end of the evaluation's or the point's id."""
    labels = rows["label"].where(rows["label"] != "", rows["point"])
    for column in ("evaluation", "point"):
        twice = labels.duplicated(keep=False)
        labels = labels.where(~twice, labels + " (" + rows[column].str[-6:] + ")")
    return labels


def score_title(data: SweepData) -> str:
    """The axis title of the metric of a sweep."""
    if data.metric == "SI-SDRi":
        return "SI-SDR improvement (dB)"
    return f"{data.metric} ({data.unit}{'' if data.higher_is_better else ', lower is better'})"


def kind_colour() -> alt.Color:
    """The colours of the best point, other points and baselines."""
    scale = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    return alt.Color("kind:N", scale=scale, legend=None)


def finish(chart: alt.LayerChart | alt.Chart, height: int, description: str) -> alt.LayerChart | alt.Chart:
    """Sets the size of a chart and its description for screen readers."""
    return chart.properties(width=WIDTH, height=height, description=description)


def reference_rules(data: SweepData, axis: str) -> list[alt.Chart]:
    """Dashed lines at the baselines' means; those across the y axis are labelled."""
    means = data.baselines[data.baselines["point"].isin(REFERENCE_LINES)].groupby("point", sort=False)["score"].mean()
    means = means.dropna()
    # each point has baselines of its own data
    if data.across:
        return []
    lines = published_rules(data, axis)
    if means.empty:
        return lines
    frame = pd.DataFrame(
        {"score": means.round(4).to_numpy(), "name": [BASELINES[name].split(" (")[0] for name in means.index]}
    )
    base = alt.Chart(frame)
    rule = base.mark_rule(strokeDash=[5, 4], color=COLOURS[BASELINE], strokeWidth=1.2)
    text = base.mark_text(color=COLOURS[BASELINE], fontSize=11)
    if axis == "x":
        # Charts with scores on the x axis have a labelled row for each baseline
        return [rule.encode(x=alt.X("score:Q")), *lines]
    position = alt.Y("score:Q")
    return [
        rule.encode(y=position),
        text.mark_text(align="right", baseline="bottom", dy=-3, dx=-2, color=COLOURS[BASELINE]).encode(
            y=position, x=alt.value("width"), text="name:N"
        ),
        *lines,
    ]


def published_rules(data: SweepData, axis: str) -> list[alt.Chart]:
    """Dotted, labelled lines at numbers from papers in the metric of the charts."""
    known = [entry for entry in data.published if data.metric in entry["metrics"]]
    if not known:
        return []
    frame = pd.DataFrame(
        {"score": [entry["metrics"][data.metric] for entry in known], "name": [entry["name"] for entry in known]}
    )
    base = alt.Chart(frame)
    rule = base.mark_rule(strokeDash=[1, 3], color=PUBLISHED, strokeWidth=1.6)
    if axis == "x":
        text = base.mark_text(align="left", baseline="top", dx=3, color=PUBLISHED, fontSize=11)
        return [rule.encode(x=alt.X("score:Q")), text.encode(x=alt.X("score:Q"), y=alt.value(2), text="name:N")]
    text = base.mark_text(align="left", baseline="bottom", dy=-3, dx=2, color=PUBLISHED, fontSize=11)
    return [rule.encode(y=alt.Y("score:Q")), text.encode(y=alt.Y("score:Q"), x=alt.value(0), text="name:N")]


def interval_tooltip(title: str) -> list[alt.Tooltip]:
    """Tooltip with the label, score and interval of a row."""
    return [
        alt.Tooltip("label:N", title="Point"),
        alt.Tooltip("score:Q", title=title, format=".2f"),
        alt.Tooltip("low:Q", title="95 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
    ]


def source_colour(sources: list[str]) -> alt.Color:
    """The colour of each source."""
    scale = alt.Scale(domain=sources, range=PALETTE[: len(sources)] if len(sources) <= len(PALETTE) else PALETTE)
    return alt.Color("source:N", scale=scale, legend=alt.Legend(title=None, orient="bottom"))


def source_shape(sources: list[str]) -> alt.Shape:
    """The shape of each source, for readers who cannot distinguish colours."""
    return alt.Shape("source:N", scale=alt.Scale(domain=sources), legend=alt.Legend(title=None, orient="bottom"))
