"""Charts of scores by mixing condition."""

from __future__ import annotations

import altair as alt
import pandas as pd

from separation.files.score_table import BASELINES
from separation.report.charts import BASELINE, BEST, COLOURS, PALETTE, SweepData, finish, score_title

# Points drawn for each mixing condition: the first ones by validation loss
MAX_LINES = 4
MAX_CONDITIONS = 12


def conditions(data: SweepData) -> list[tuple[str, alt.LayerChart]]:
    """A chart for each mixing condition: means of the best points and of baselines by range or value."""
    if data.conditions.empty:
        return []
    table = data.conditions.dropna(subset="mean")
    lines = condition_rows(data)
    found = []
    for condition, rows in list(table.groupby("condition", sort=False))[:MAX_CONDITIONS]:
        frame = rows.merge(lines, on=["point", "evaluation"])
        order = [label for label in lines["label"] if label in set(frame["label"])]
        if frame["value"].nunique() > 1:
            found.append((str(condition), _condition(data, str(condition), frame, order)))
    return found


def condition_rows(data: SweepData) -> pd.DataFrame:
    """The rows drawn for each condition: the first points by validation loss, the fixed mask, the ideal ratio mask."""
    best = data.trained.drop_duplicates("point").head(MAX_LINES)
    oracle = data.baselines[data.baselines["point"].isin(["fixed_mask", "ideal_ratio_mask"])].drop_duplicates("point")
    return pd.concat([best, oracle])[["point", "evaluation", "label", "kind"]]


def _condition(data: SweepData, condition: str, frame: pd.DataFrame, labels: list[str]) -> alt.LayerChart:
    title = score_title(data)
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
