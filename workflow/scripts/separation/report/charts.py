"""Charts of a sweep as altair specifications.

Colours have the same meaning in all charts: orange is the best point, blue the other points, grey the baselines. All
charts are single views, so that the report can fit their width to the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import altair as alt
import numpy as np
import pandas as pd

from separation.analysis.sweep_tables import as_number, value_order, varying_keys
from separation.experiment.key_paths import short_names
from separation.experiment.metric_definitions import METRIC_DEFINITIONS
from separation.files.score_table import BASELINES, ORACLE

BEST, POINT, BASELINE = "best point", "other points", "baselines"
COLOURS = {BEST: "#e8710a", POINT: "#3f7fc4", BASELINE: "#7d8590"}
# Distinguishable on white and on near-black, also for most colour-blind readers
PALETTE = ["#3f7fc4", "#d1495b", "#2a9d77", "#b07aa1", "#5b8c3e", "#6f6fd6", "#1f9fb5", "#8a6d52"]
WIDTH = 680
# With more points, charts are ordered by rank and points do not get a colour each
MOST_ROWS = 30
MOST_COLOURS = 8
# Points of all learning curves in one chart; more would make the page slow
MOST_CURVE_ROWS = 6000
REFERENCE_LINES = ("mixture", "fixed_mask", ORACLE)


@dataclass(frozen=True)
class SweepData:
    """Data of the charts.

    `rows` has one row per point and evaluation and per baseline: `point`, `evaluation`, `label` (unique), `kind`,
    `validation_loss`, `score`, `low`, `high`, `oracle_share`, swept keys; ordered by validation loss, baselines last.
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

    @property
    def trained(self) -> pd.DataFrame:
        """The rows that are points, not baselines, and have a score."""
        return self.rows[(self.rows["kind"] != BASELINE) & self.rows["score"].notna()]

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
    **tables: pd.DataFrame,
) -> SweepData:
    """Collects the data of the charts from tables read by `separation.analysis.sweep_tables`."""
    rows = summary.rename(columns={metric: "score", f"{metric}_low": "low", f"{metric}_high": "high"})
    rows["kind"] = np.where(rows["baseline"], BASELINE, np.where(rows["best"], BEST, POINT))
    rows["label"] = unique_labels(rows)
    rows = rows.sort_values(["baseline", "validation_loss"], kind="stable", na_position="last").reset_index(drop=True)
    return SweepData(points, rows, scores, histories, metric, **tables)


def numbered(data: SweepData) -> SweepData:
    """Puts ranks before labels, so that a truncated label can still be found in the table."""
    rows = data.rows.copy()
    if rows["kind"].ne(BASELINE).sum() > 1:
        rank = pd.Series(np.arange(1, len(rows) + 1), index=rows.index).astype(str)
        rows["label"] = rows["label"].where(rows["kind"] == BASELINE, rank + " · " + rows["label"])
    return replace(data, rows=rows)


def unique_labels(rows: pd.DataFrame) -> pd.Series:
    """Unique labels: equal labels get the end of the evaluation's or the point's id."""
    labels = rows["label"].where(rows["label"] != "", rows["point"])
    for column in ("evaluation", "point"):
        twice = labels.duplicated(keep=False)
        labels = labels.where(~twice, labels + " (" + rows[column].str[-6:] + ")")
    return labels


def score_title(metric: str) -> str:
    """The axis title of a metric."""
    unit = METRIC_DEFINITIONS[metric].unit if metric in METRIC_DEFINITIONS else "dB"
    return "SI-SDR improvement (dB)" if metric == "SI-SDRi" else f"{metric} ({unit})"


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
    if means.empty:
        return []
    frame = pd.DataFrame(
        {"score": means.round(4).to_numpy(), "name": [BASELINES[name].split(" (")[0] for name in means.index]}
    )
    base = alt.Chart(frame)
    rule = base.mark_rule(strokeDash=[5, 4], color=COLOURS[BASELINE], strokeWidth=1.2)
    text = base.mark_text(color=COLOURS[BASELINE], fontSize=11)
    if axis == "x":
        # Charts with scores on the x axis have a labelled row for each baseline
        return [rule.encode(x=alt.X("score:Q"))]
    position = alt.Y("score:Q")
    return [
        rule.encode(y=position),
        text.mark_text(align="right", baseline="bottom", dy=-3, dx=-2, color=COLOURS[BASELINE]).encode(
            y=position, x=alt.value("width"), text="name:N"
        ),
    ]


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


def loss_curves(data: SweepData, column: str, title: str, legend: bool) -> alt.Chart | None:
    """One curve per trained point over epochs; `column` is train_loss or validation_loss."""
    trained = data.rows[data.rows["kind"] != BASELINE].drop_duplicates("point")
    frames = []
    for row in trained.itertuples():
        if row.point in data.histories:
            history = thinned(data.histories[row.point][["epoch", column]].dropna(), column, len(trained))
            frames.append(history.assign(label=row.label, kind=row.kind))
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    frame = frame[np.isfinite(frame[column])] if len(frame) else frame
    if frame.empty:
        return None
    frame[column] = frame[column].map(lambda value: float(f"{value:.5g}"))
    low, high = frame[column].min(), frame[column].max()
    scale = alt.Scale(type="log", nice=True) if low > 0 and high / low > 20 else alt.Scale(zero=False, nice=True)
    labels = frame["label"].unique().tolist()
    few = len(labels) <= MOST_COLOURS
    if few:
        # The best point keeps its colour; the others take palette colours in order of validation loss
        kinds = dict(zip(trained["label"], trained["kind"], strict=True))
        others = iter(PALETTE)
        colours = [COLOURS[BEST] if kinds[label] == BEST else next(others) for label in labels]
        style = (
            alt.Legend(title=None, orient="bottom", columns=2, labelLimit=330, symbolType="stroke") if legend else None
        )
        colour = alt.Color("label:N", scale=alt.Scale(domain=labels, range=colours), legend=style, sort=labels)
    else:
        colour = kind_colour()
    width = alt.condition(f"datum.kind == '{BEST}'", alt.value(3), alt.value(1.6 if few else 1))
    opacity = alt.value(1.0) if few else alt.condition(f"datum.kind == '{BEST}'", alt.value(1), alt.value(0.4))
    base = alt.Chart(frame).encode(
        x=alt.X(
            "epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False), scale=alt.Scale(nice=False)
        ),
        y=alt.Y(f"{column}:Q", title=title, scale=scale),
        tooltip=[
            alt.Tooltip("label:N", title="Point"),
            alt.Tooltip("epoch:Q"),
            alt.Tooltip(f"{column}:Q", title=title, format=".4f"),
        ],
    )
    lines = base.mark_line().encode(color=colour, detail="label:N", strokeWidth=width, opacity=opacity)
    # A single epoch draws no line, and tooltips need a mark
    dots = base.mark_circle(size=28).encode(color=colour, opacity=opacity)
    crowded = len(frame) > 1000
    chart = lines if crowded else alt.layer(lines, dots)
    description = f"{title} over epochs, one line for each of {len(labels)} points."
    return finish(chart, 280, description)


def thinned(history: pd.DataFrame, column: str, num_curves: int) -> pd.DataFrame:
    """A curve thinned to its share of MOST_CURVE_ROWS: evenly spread epochs, with the lowest and the last."""
    most = max(20, MOST_CURVE_ROWS // max(1, num_curves))
    if len(history) <= most:
        return history
    kept = set(np.linspace(0, len(history) - 1, most).round().astype(int).tolist())
    lowest = history[column].to_numpy()
    kept.add(int(np.nanargmin(np.where(np.isfinite(lowest), lowest, np.inf))))
    return history.iloc[sorted(kept)]


def effect(data: SweepData, key: str) -> alt.LayerChart:
    """The score against one swept key; thin lines join points with all other keys equal."""
    title, name = score_title(data.metric), short_names(varying_keys(data.points))[key]
    others = [other for other in varying_keys(data.points) if other != key]
    frame = data.trained[["label", "score", "low", "high", "kind", "point", "evaluation"]].round(3)
    values = data.trained[key]
    frame["value"] = values
    seeds = data.points.drop_duplicates(["point", "evaluation"]).set_index(["point", "evaluation"])
    seed = [
        str(seeds["seed"].get(row, "")) if "seed" in seeds else ""
        for row in zip(frame["point"], frame["evaluation"], strict=True)
    ]
    settings = data.trained[others].agg(" / ".join, axis=1) if others else pd.Series("", index=frame.index)
    frame["setting"] = settings + " / " + pd.Series(seed, index=frame.index)
    frame = frame.drop(columns=["point", "evaluation"])
    order = value_order(values[values != ""])
    numbers = [as_number(value) for value in order]
    crowded = len(order) > 12 and all(number is not None for number in numbers)
    y = alt.Y("score:Q", title=title)
    if crowded:
        frame["value"] = pd.to_numeric(frame["value"], errors="coerce")
        wide = min(numbers) > 0 and max(numbers) / min(numbers) >= 50
        scale = alt.Scale(type="log", nice=True) if wide else alt.Scale(zero=False, nice=False, padding=8)
        x = alt.X("value:Q", title=name, scale=scale)
    else:
        frame["value"] = frame["value"].replace("", "(not set)")
        order = [*order, "(not set)"] if (values == "").any() else order
        x = alt.X(
            "value:N", title=name, sort=order, axis=alt.Axis(labelAngle=0, labelLimit=120), scale=alt.Scale(padding=0.6)
        )
    tooltip = [*interval_tooltip(title), alt.Tooltip("value:N", title=name)]
    base = alt.Chart(frame).encode(x=x)
    layers = reference_rules(data, "y")
    if not crowded:
        lines = base.mark_line(strokeWidth=1, opacity=0.5, color=COLOURS[POINT]).encode(y=y, detail="setting:N")
        average = base.mark_tick(thickness=3, width=34, color=COLOURS[POINT], opacity=0.9).encode(
            y=alt.Y("mean(score):Q", title=title)
        )
        layers += [*([lines] if len(frame) <= 60 else []), average]
    many = len(frame) > 60
    dots = base.mark_circle(size=30 if many else 60, opacity=0.7 if many else 0.9)
    dots = dots.encode(y=y, color=kind_colour(), tooltip=tooltip)
    if many and not crowded:
        # Spread by the golden ratio: even and reproducible
        frame["spread"] = ((frame.groupby("value").cumcount() * 0.618034) % 1).round(3)
        dots = dots.encode(xOffset=alt.XOffset("spread:Q", scale=alt.Scale(domain=[-0.5, 1.5])))
    layers.append(dots)
    return finish(alt.layer(*layers), 280, f"{title} for each value of {name}.")


def validation_against_test(data: SweepData) -> alt.LayerChart | None:
    """Test score against validation loss."""
    title = score_title(data.metric)
    frame = (
        data.trained[["label", "validation_loss", "score", "low", "high", "kind"]]
        .dropna(subset="validation_loss")
        .round(4)
    )
    if len(frame) < 2:
        return None
    low, high = frame["validation_loss"].min(), frame["validation_loss"].max()
    scale = (
        alt.Scale(type="log", nice=True) if low > 0 and high / low > 20 else alt.Scale(zero=False, nice=True, padding=8)
    )
    base = alt.Chart(frame).encode(
        x=alt.X("validation_loss:Q", title="Lowest validation loss", scale=scale, axis=alt.Axis(tickCount=6)),
        color=kind_colour(),
        tooltip=[*interval_tooltip(title), alt.Tooltip("validation_loss:Q", title="Validation loss", format=".4f")],
    )
    chart = alt.layer(
        *reference_rules(data, "y"),
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_circle(size=70, opacity=0.95).encode(y=alt.Y("score:Q", title=title)),
    )
    return finish(chart, 280, f"{title} on test against the lowest validation loss of {len(frame)} points.")
