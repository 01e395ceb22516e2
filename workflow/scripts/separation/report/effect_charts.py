"""Charts of a whole sweep: all settings of all points, main effects, score against time, mixing conditions."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from separation.analysis.costs import rate_unit
from separation.analysis.sweep_tables import value_order, varying_keys
from separation.experiment.key_paths import short_names
from separation.files.score_table import BASELINES
from separation.report.charts import (
    BASELINE,
    BEST,
    COLOURS,
    PALETTE,
    POINT,
    SweepData,
    finish,
    interval_tooltip,
    kind_colour,
    reference_rules,
    score_title,
)

# Labels on a parallel axis; with more values, only every n-th is labelled
MOST_TICKS = 9
# Points drawn for each mixing condition: the first ones by validation loss
MOST_LINES = 4
MOST_CONDITIONS = 12
NOT_SET = "(not set)"


def parallel_coordinates(data: SweepData) -> alt.LayerChart | None:
    """One line per point through its value of every swept key to its score; for two or more keys."""
    keys = [key for key in varying_keys(data.points) if data.trained[key].nunique() > 1]
    if len(keys) < 2 or len(data.trained) < 3:
        return None
    names, title = short_names(keys), score_title(data.metric)
    frames, ticks = [], []
    for key in keys:
        values = data.trained[key]
        order = value_order(values)
        position = {value: index / (len(order) - 1) for index, value in enumerate(order)}
        frames.append(
            pd.DataFrame({"axis": names[key], "position": values.map(position), "value": values.replace("", NOT_SET)})
        )
        shown = order[:: math.ceil(len(order) / MOST_TICKS)]
        ticks += [{"axis": names[key], "position": position[value], "text": value or NOT_SET} for value in shown]
    scores = data.trained["score"]
    low, high = scores.min(), scores.max()
    width = (high - low) or 1.0
    frames.append(
        pd.DataFrame(
            {"axis": title, "position": (scores - low) / width, "value": scores.map(lambda score: f"{score:.2f}")}
        )
    )
    ticks += [
        {"axis": title, "position": (score - low) / width, "text": f"{score:.2f}"}
        for score in np.linspace(low, high, 5)
    ]
    label, kind = data.trained["label"], data.trained["kind"]
    frame = pd.concat([part.assign(label=label, kind=kind, score=scores) for part in frames], ignore_index=True)
    frame = frame.round(4)
    axes = [*(names[key] for key in keys), title]
    x = alt.X(
        "axis:N",
        sort=axes,
        title=None,
        scale=alt.Scale(padding=0.35),
        axis=alt.Axis(orient="top", labelAngle=0, labelLimit=150, grid=True, domain=False, ticks=False, labelPadding=8),
    )
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[-0.04, 1.04], nice=False))
    tooltip = [alt.Tooltip("label:N", title="Point"), alt.Tooltip("score:Q", title=title, format=".2f")]
    base = alt.Chart(frame).encode(x=x, y=y, detail="label:N", tooltip=tooltip)
    # The last axis is the legend of the colours
    colour = alt.Color("score:Q", scale=alt.Scale(range=["#8d7f9e", "#3f7fc4", "#2bb58a"]), legend=None)
    others = base.transform_filter(f"datum.kind != '{BEST}'").mark_line(
        strokeWidth=1.6 if len(label) <= 60 else 1, opacity=0.75 if len(label) <= 60 else 0.45
    )
    best = base.transform_filter(f"datum.kind == '{BEST}'").mark_line(strokeWidth=4, color=COLOURS[BEST])
    text = alt.Chart(pd.DataFrame(ticks).round(4)).encode(x=x, y=y, text="text:N")
    # A halo keeps text readable over lines
    words = [text.mark_text(align="left", dx=6, fontSize=11.5, **style) for style in ({"style": "halo"}, {})]
    chart = alt.layer(others.encode(color=colour), best, *words)
    return finish(chart, 340, f"Values of {', '.join(axes[:-1])} and the {title} of {len(label)} points as lines.")


def main_effects(data: SweepData) -> alt.LayerChart | None:
    """The main effect of each value of each swept key, with its interval."""
    if data.comparisons.empty:
        return None
    found = data.comparisons[data.comparisons["kind"] == "effect"].dropna(subset="difference")
    if found.empty:
        return None
    names = short_names(list(dict.fromkeys(found["key"])))
    words = [
        f"{names[row.key]}: {row.label or NOT_SET} vs. {row.against_label or NOT_SET}" for row in found.itertuples()
    ]
    frame = pd.DataFrame({"label": words, "effect": found["difference"], "pairs": found["matched_pairs"]})
    frame["low"], frame["high"] = found["difference_low"], found["difference_high"]
    frame["shown"] = np.select([frame["low"] > 0, frame["high"] < 0], ["better", "worse"], "no difference shown")
    frame = frame.round(4)
    title = f"Effect on {data.metric} (dB)"
    order = frame["label"].tolist()
    colour = alt.Color(
        "shown:N",
        scale=alt.Scale(
            domain=["better", "worse", "no difference shown"], range=[PALETTE[2], PALETTE[1], COLOURS[BASELINE]]
        ),
        legend=alt.Legend(title=None, orient="bottom", columns=3),
    )
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, domain=False, ticks=False, grid=True))
    tooltip = [
        alt.Tooltip("label:N", title="Setting"),
        alt.Tooltip("effect:Q", title=title, format="+.2f"),
        alt.Tooltip("low:Q", title="95 % from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("pairs:Q", title="pairs of points"),
    ]
    base = alt.Chart(frame).encode(y=y, color=colour, tooltip=tooltip)
    zero = alt.Chart(pd.DataFrame({"effect": [0.0]})).mark_rule(strokeDash=[5, 4], color=COLOURS[BASELINE])
    chart = alt.layer(
        zero.encode(x=alt.X("effect:Q", title=title)),
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("effect:Q", title=title)),
    )
    return finish(chart, 26 * len(order) + 20, f"Main effects on {data.metric} of {len(order)} values of swept keys.")


def score_against_time(data: SweepData) -> alt.LayerChart | None:
    """The score against the wall time of training, with the Pareto front."""
    if data.costs.empty or data.costs["train_seconds"].notna().sum() < 2:
        return None
    title = score_title(data.metric)
    unit, seconds = rate_unit(data.costs)
    frame = data.trained.merge(
        data.costs[["point", "evaluation", "train_seconds", "device"]], on=["point", "evaluation"]
    )
    frame = frame.dropna(subset="train_seconds")
    frame = frame.assign(time=frame["train_seconds"] / seconds)
    frame = frame[frame["time"] > 0][["label", "score", "low", "high", "kind", "time", "device"]].round(4)
    if len(frame) < 2:
        return None
    cheapest_first = frame.sort_values(["time", "score"], ascending=[True, False])
    front = cheapest_first[cheapest_first["score"] > cheapest_first["score"].cummax().shift(fill_value=-np.inf)]
    span = frame["time"].max() / frame["time"].min()
    scale = alt.Scale(type="log", nice=True) if span > 10 else alt.Scale(zero=False, nice=True, padding=10)
    x = alt.X("time:Q", title=f"Training time ({unit})", scale=scale, axis=alt.Axis(tickCount=6))
    y = alt.Y("score:Q", title=title)
    tooltip = [
        *interval_tooltip(title),
        alt.Tooltip("time:Q", title=f"Training ({unit})", format=".2f"),
        alt.Tooltip("device:N", title="Device"),
    ]
    base = alt.Chart(frame).encode(x=x, color=kind_colour(), tooltip=tooltip)
    line = alt.Chart(front[["time", "score"]]).mark_line(interpolate="step-after", color=COLOURS[POINT], opacity=0.6)
    chart = alt.layer(
        *reference_rules(data, "y"),
        line.encode(x=x, y=y),
        base.mark_rule(opacity=0.4).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_circle(size=70 if len(frame) <= 60 else 36, opacity=0.9).encode(y=y),
    )
    return finish(chart, 300, f"{title} against the training time of {len(frame)} points.")


def conditions(data: SweepData) -> list[tuple[str, alt.LayerChart]]:
    """A chart for each mixing condition: means of the best points and of baselines by range or value."""
    if data.conditions.empty:
        return []
    table = data.conditions.dropna(subset="mean")
    lines = condition_rows(data)
    found = []
    for condition, rows in list(table.groupby("condition", sort=False))[:MOST_CONDITIONS]:
        frame = rows.merge(lines, on=["point", "evaluation"])
        order = [label for label in lines["label"] if label in set(frame["label"])]
        if frame["value"].nunique() > 1:
            found.append((str(condition), _condition(data, str(condition), frame, order)))
    return found


def condition_rows(data: SweepData) -> pd.DataFrame:
    """The rows drawn for each condition: the first points by validation loss, the fixed mask, the ideal ratio mask."""
    best = data.trained.drop_duplicates("point").head(MOST_LINES)
    oracle = data.baselines[data.baselines["point"].isin(["fixed_mask", "ideal_ratio_mask"])].drop_duplicates("point")
    return pd.concat([best, oracle])[["point", "evaluation", "label", "kind"]]


def _condition(data: SweepData, condition: str, frame: pd.DataFrame, labels: list[str]) -> alt.LayerChart:
    title = score_title(data.metric)
    bins = list(dict.fromkeys(frame["value"]))
    kinds = dict(zip(frame["label"], frame["kind"], strict=True))
    others = iter(PALETTE * 2)
    greys = {BASELINES["fixed_mask"]: "#b0a48f", BASELINES["ideal_ratio_mask"]: "#7d8590"}
    colours = [
        COLOURS[BEST]
        if kinds[label] == BEST
        else next((grey for name, grey in greys.items() if label.startswith(name)), COLOURS[BASELINE])
        if kinds[label] == BASELINE
        else next(others)
        for label in labels
    ]
    frame = frame[["value", "label", "mean", "low", "high", "items"]].round(3)
    x = alt.X(
        "value:N", sort=bins, title=condition, axis=alt.Axis(labelAngle=0, labelLimit=110), scale=alt.Scale(padding=0.5)
    )
    colour = alt.Color(
        "label:N",
        sort=labels,
        scale=alt.Scale(domain=labels, range=colours),
        legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=330),
    )
    tooltip = [
        alt.Tooltip("label:N", title="Point"),
        alt.Tooltip("value:N", title=condition),
        alt.Tooltip("mean:Q", title=title, format=".2f"),
        alt.Tooltip("low:Q", title="95 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
        alt.Tooltip("items:Q", title="mixtures"),
    ]
    base = alt.Chart(frame).encode(x=x, color=colour, xOffset=alt.XOffset("label:N", sort=labels), tooltip=tooltip)
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(y=alt.Y("mean:Q", title=title)),
    )
    return finish(chart, 260, f"Mean {title} by {condition} for {', '.join(labels)}.")
