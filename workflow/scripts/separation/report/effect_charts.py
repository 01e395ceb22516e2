"""Charts of swept keys: all settings of all points, effects, and test score against validation loss or time."""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from separation.analysis import statistics
from separation.analysis.costs import rate_unit
from separation.analysis.sweep_tables import as_number, value_order, varying_keys
from separation.experiment.key_paths import short_names
from separation.report.charts import (
    BASELINE,
    BEST,
    COLOURS,
    NOT_SET,
    PALETTE,
    POINT,
    SweepData,
    effect_words,
    finish,
    interval_tooltip,
    kind_colour,
    reference_rules,
    score_title,
)

# Labels on a parallel axis; with more values, only every n-th is labelled
MAX_TICKS = 9


def parallel_coordinates(data: SweepData) -> alt.LayerChart | None:
    """One line per point through its value of every swept key to its score; for two or more keys."""
    keys = [key for key in varying_keys(data.points) if data.trained[key].nunique() > 1]
    if len(keys) < 2 or len(data.trained) < 3:
        return None
    names, title = short_names(keys), score_title(data)
    frames, ticks = [], []
    for key in keys:
        values = data.trained[key]
        order = value_order(values)
        position = {value: index / (len(order) - 1) for index, value in enumerate(order)}
        frames.append(
            pd.DataFrame({"axis": names[key], "position": values.map(position), "value": values.replace("", NOT_SET)})
        )
        shown = order[:: math.ceil(len(order) / MAX_TICKS)]
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
    shown, question = found["verdict"].isin([statistics.BETTER, statistics.WORSE]), found["question"].iloc[0]
    verdicts = found["verdict"].map(lambda verdict: effect_words(verdict, question))
    frame["shown"] = verdicts.where(shown, "no difference shown, or no verdict")
    better, worse = (effect_words(verdict, question) for verdict in (statistics.BETTER, statistics.WORSE))
    frame = frame.round(4)
    title = f"Effect on {data.metric} (dB)"
    order = frame["label"].tolist()
    colour = alt.Color(
        "shown:N",
        scale=alt.Scale(
            domain=[better, worse, "no difference shown, or no verdict"],
            range=[PALETTE[2], PALETTE[1], COLOURS[BASELINE]],
        ),
        legend=alt.Legend(title=None, orient="bottom", columns=3),
    )
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=260, domain=False, ticks=False, grid=True))
    tooltip = [
        alt.Tooltip("label:N", title="Setting"),
        alt.Tooltip("effect:Q", title=title, format="+.2f"),
        alt.Tooltip("low:Q", title="95 % from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("pairs:Q", title="pairs of trainings"),
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
    title = score_title(data)
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


def effect(data: SweepData, key: str) -> alt.LayerChart:
    """The score against one swept key; thin lines join points with all other keys equal."""
    title, name = score_title(data), short_names(varying_keys(data.points))[key]
    frame, values = _settings(data, key), data.trained[key]
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
        frame["value"] = frame["value"].replace("", NOT_SET)
        order = [*order, NOT_SET] if (values == "").any() else order
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


def _settings(data: SweepData, key: str) -> pd.DataFrame:
    """Scores with the `value` of a key and the `setting`: the values of all other keys, and the seed."""
    frame = data.trained[["label", "score", "low", "high", "kind", "point", "evaluation"]].round(3)
    frame["value"] = data.trained[key]
    others = [other for other in varying_keys(data.points) if other != key]
    seeds = data.points.drop_duplicates(["point", "evaluation"]).set_index(["point", "evaluation"])
    seed = [
        str(seeds["seed"].get(row, "")) if "seed" in seeds else ""
        for row in zip(frame["point"], frame["evaluation"], strict=True)
    ]
    settings = data.trained[others].agg(" / ".join, axis=1) if others else pd.Series("", index=frame.index)
    frame["setting"] = settings + " / " + pd.Series(seed, index=frame.index)
    return frame.drop(columns=["point", "evaluation"])


def validation_against_test(data: SweepData) -> alt.LayerChart | None:
    """Test score against what points are chosen by."""
    title = score_title(data)
    frame = data.trained[["label", "criterion", "score", "low", "high", "kind"]].dropna(subset="criterion").round(4)
    if len(frame) < 2:
        return None
    low, high = frame["criterion"].min(), frame["criterion"].max()
    scale = (
        alt.Scale(type="log", nice=True) if low > 0 and high / low > 20 else alt.Scale(zero=False, nice=True, padding=8)
    )
    base = alt.Chart(frame).encode(
        x=alt.X(
            "criterion:Q",
            title=f"{data.extreme.capitalize()} {data.criterion}",
            scale=scale,
            axis=alt.Axis(tickCount=6),
        ),
        color=kind_colour(),
        tooltip=[
            *interval_tooltip(title),
            alt.Tooltip(
                "criterion:Q", title=data.criterion.capitalize() if not data.chosen_by else data.criterion, format=".4f"
            ),
        ],
    )
    chart = alt.layer(
        *reference_rules(data, "y"),
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_circle(size=70, opacity=0.95).encode(y=alt.Y("score:Q", title=title)),
    )
    return finish(chart, 280, f"{title} on test against the {data.extreme} {data.criterion} of {len(frame)} points.")
