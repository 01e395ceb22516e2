"""Learning curves of a sweep."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from separation.report.charts import BEST, COLOURS, MAX_COLOURS, PALETTE, SweepData, finish, kind_colour

# Points of all learning curves in one chart; more would make the page slow
MAX_CURVE_ROWS = 6000


def loss_curves(data: SweepData, column: str, title: str, legend: bool) -> alt.Chart | None:
    """One curve per trained point over epochs; `column` is train_loss or validation_loss."""
    trained = data.rows[~data.rows["baseline"]].drop_duplicates("point")
    frame = _curves(data, trained, column)
    if frame.empty:
        return None
    low, high = frame[column].min(), frame[column].max()
    scale = alt.Scale(type="log", nice=True) if low > 0 and high / low > 20 else alt.Scale(zero=False, nice=True)
    labels = frame["label"].unique().tolist()
    few = len(labels) <= MAX_COLOURS
    colour = _point_colour(trained, labels, legend) if few else kind_colour()
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


def _curves(data: SweepData, trained: pd.DataFrame, column: str) -> pd.DataFrame:
    """The finite losses of all points, thinned, with the label and kind of each point."""
    frames = []
    for row in trained.itertuples():
        if row.point in data.histories:
            history = thinned(data.histories[row.point][["epoch", column]].dropna(), column, len(trained))
            frames.append(history.assign(label=row.label, kind=row.kind))
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[np.isfinite(frame[column])]
    return frame.assign(**{column: frame[column].map(lambda value: float(f"{value:.5g}"))})


def _point_colour(trained: pd.DataFrame, labels: list[str], legend: bool) -> alt.Color:
    """A colour for each point: the best keeps its own, the others take the palette in order of validation loss."""
    kinds = dict(zip(trained["label"], trained["kind"], strict=True))
    others = iter(PALETTE)
    colours = [COLOURS[BEST] if kinds[label] == BEST else next(others) for label in labels]
    style = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=330, symbolType="stroke") if legend else None
    return alt.Color("label:N", scale=alt.Scale(domain=labels, range=colours), legend=style, sort=labels)


def thinned(history: pd.DataFrame, column: str, num_curves: int) -> pd.DataFrame:
    """A curve thinned to its share of MAX_CURVE_ROWS: evenly spread epochs, with the lowest and the last."""
    most = max(20, MAX_CURVE_ROWS // max(1, num_curves))
    if len(history) <= most:
        return history
    kept = set(np.linspace(0, len(history) - 1, most).round().astype(int).tolist())
    lowest = history[column].to_numpy()
    kept.add(int(np.nanargmin(np.where(np.isfinite(lowest), lowest, np.inf))))
    return history.iloc[sorted(kept)]
