"""Charts of scores: by mixture, by source, and against the input."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from separation.analysis.clustered import interval_of_mean
from separation.analysis.sweep_tables import clusters_of, score_matrix, unit_of
from separation.report.charts import (
    BASELINE,
    BEST,
    COLOURS,
    MAX_ROWS,
    SweepData,
    finish,
    interval_tooltip,
    kind_colour,
    reference_rules,
    score_title,
    source_colour,
    source_shape,
)

# More dots make the page slow and hide each other
MAX_DOTS = 2000


def score_distributions(data: SweepData) -> alt.LayerChart:
    """The scores of single mixtures, per point: boxes, and dots if there are few."""
    title = score_title(data)
    rows = data.rows[data.rows["score"].notna()]
    labels = dict(zip(zip(rows["point"], rows["evaluation"], strict=True), rows["label"], strict=True))
    kinds = dict(zip(rows["label"], rows["kind"], strict=True))
    per_item = data.scores.groupby(["point", "evaluation", "dataset", "split", "item"], sort=False)[data.metric].mean()
    frame = per_item.reset_index(name="score")
    frame["label"] = [labels.get(row) for row in zip(frame["point"], frame["evaluation"], strict=True)]
    frame = frame[frame["label"].notna() & np.isfinite(frame["score"])][["label", "item", "score"]]
    frame["kind"] = frame["label"].map(kinds)
    frame["score"] = frame["score"].round(3)
    if len(data.trained) > MAX_ROWS:
        return ranked_distributions(data, frame)
    # Spread by the golden ratio: even and reproducible
    frame["spread"] = ((frame.groupby("label").cumcount() * 0.618034) % 1).round(3)
    order = rows["label"].tolist()
    y = alt.Y(
        "label:N", sort=order, title=None, axis=alt.Axis(labelLimit=290, domain=False, ticks=False, labelPadding=10)
    )
    x = alt.X("score:Q", title=title, scale=alt.Scale(nice=True))
    spread = quantiles(frame).merge(rows[["label", "kind"]], on="label")
    boxes = alt.Chart(spread).encode(y=y, tooltip=quantile_tooltip(title))
    grey = COLOURS[BASELINE]
    layers = [
        boxes.mark_rule(color=grey).encode(x=alt.X("q05:Q", title=title), x2="q95:Q"),
        boxes.mark_bar(size=14, color=grey, fillOpacity=0.2, stroke=grey, strokeWidth=1).encode(
            x=alt.X("q25:Q", title=title), x2="q75:Q"
        ),
        boxes.mark_tick(size=14, thickness=2, color=grey).encode(x=alt.X("q50:Q", title=title)),
    ]
    if len(frame) <= MAX_DOTS:
        strip = alt.Chart(frame).mark_circle(size=22, opacity=0.45)
        layers.append(
            strip.encode(
                y=y,
                x=x,
                color=kind_colour(),
                yOffset=alt.YOffset("spread:Q", scale=alt.Scale(domain=[-0.6, 1.6])),
                tooltip=[
                    alt.Tooltip("label:N", title="Point"),
                    alt.Tooltip("item:N", title="Mixture"),
                    alt.Tooltip("score:Q", title=title, format=".2f"),
                ],
            )
        )
    means = rows[["label", "score", "low", "high", "kind"]].round(3)
    mean = (
        alt.Chart(means)
        .mark_point(shape="diamond", size=90, filled=True, opacity=1, stroke="white", strokeWidth=1.2)
        .encode(y=y, x=x, color=kind_colour(), tooltip=interval_tooltip(title))
    )
    chart = alt.layer(*reference_rules(data, "x"), *layers, mean)
    description = f"Distribution of the {title} of single mixtures for {len(rows)} points and baselines."
    return finish(chart, len(rows) * (38 if len(rows) <= 14 else 30), description)


def quantiles(frame: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of `score` by `label`, one row each, so that charts do not grow with the number of scores."""
    of_labels = frame.groupby("label", sort=False)["score"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    of_labels.columns = ["q05", "q25", "q50", "q75", "q95"]
    return of_labels.round(3).reset_index()


def quantile_tooltip(title: str) -> list[alt.Tooltip]:
    """Tooltip with five numbers of a distribution."""
    names = {
        "q05": "5th percentile",
        "q25": "25th percentile",
        "q50": "median",
        "q75": "75th percentile",
        "q95": "95th percentile",
    }
    numbers = [alt.Tooltip(f"{name}:Q", title=name_shown, format=".2f") for name, name_shown in names.items()]
    return [alt.Tooltip("label:N", title=title), *numbers]


def ranked_distributions(data: SweepData, per_item: pd.DataFrame) -> alt.LayerChart:
    """The distributions of many points side by side, ordered by validation loss."""
    title = score_title(data)
    frame = data.trained[["label", "score", "low", "high", "kind"]].round(3)
    frame = frame.merge(quantiles(per_item), on="label")
    frame = frame.assign(rank=np.arange(1, len(frame) + 1))
    x = alt.X(
        "rank:Q", title=f"Points by {data.criterion}, {data.extreme} first", scale=alt.Scale(nice=False, padding=6)
    )
    base = alt.Chart(frame).encode(x=x, color=kind_colour(), tooltip=interval_tooltip(title))
    width = max(1.0, min(6.0, 400 / len(frame)))
    chart = alt.layer(
        *reference_rules(data, "y"),
        base.mark_rule(opacity=0.25).encode(y=alt.Y("q05:Q", title=title), y2="q95:Q"),
        base.mark_rule(opacity=0.5, strokeWidth=width).encode(y=alt.Y("q25:Q", title=title), y2="q75:Q"),
        base.mark_circle(size=20, opacity=1).encode(y=alt.Y("score:Q", title=title)),
    )
    return finish(chart, 340, f"Mean {title} of {len(frame)} points, ordered by {data.criterion}.")


def source_scores(data: SweepData) -> alt.LayerChart:
    """The mean score of each source with its interval, per point."""
    title = score_title(data)
    rows = pd.concat([data.trained.head(MAX_ROWS), data.baselines[data.baselines["score"].notna()]])
    matrix = score_matrix(data.scores, data.metric)
    clusters = clusters_of(data.scores, matrix.index)
    columns = list(zip(rows["point"], rows["evaluation"], strict=True))
    sources = sorted(matrix.index.get_level_values("source").unique())
    frames = []
    for source in sources:
        of_source = matrix.index.get_level_values("source") == source
        found = interval_of_mean(matrix.loc[of_source, columns].to_numpy(), clusters[of_source])
        frames.append(
            pd.DataFrame(
                {"label": rows["label"], "source": source, "score": found.mean, "low": found.low, "high": found.high}
            )
        )
    frame = pd.concat(frames, ignore_index=True).round(3).dropna(subset="score")
    order = rows["label"].tolist()
    base = alt.Chart(frame).encode(
        y=alt.Y(
            "label:N",
            sort=order,
            title=None,
            axis=alt.Axis(labelLimit=290, domain=False, ticks=False, labelPadding=10, grid=True),
        ),
        yOffset=alt.YOffset("source:N", sort=sources),
        color=source_colour(sources),
        tooltip=[*interval_tooltip(title), alt.Tooltip("source:N", title="Source")],
    )
    chart = alt.layer(
        *reference_rules(data, "x"),
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=alt.X("score:Q", title=title),
            shape=source_shape(sources),
        ),
    )
    height = len(rows) * max(24, 9 * len(sources) + 6)
    return finish(chart, height, f"Mean {title} of {' and '.join(sources)}, per point.")


def improvement_against_input(data: SweepData) -> alt.Chart | None:
    """The best network's improvement against the level of the source in the mixture: a mark per source and mixture."""
    best = data.rows[data.rows["kind"] == BEST].head(1)
    if best.empty or not {"SI-SDR", "SI-SDRi"} <= set(data.scores.columns):
        return None
    row = best.iloc[0]
    scores = data.scores[(data.scores["point"] == row["point"]) & (data.scores["evaluation"] == row["evaluation"])]
    frame = scores[["item", "source", "SI-SDRi"]].rename(columns={"SI-SDRi": "improvement"})
    frame["members"] = scores["cluster"].map(lambda names: " + ".join(name.split("/", 1)[1] for name in names))
    frame["input"] = scores["SI-SDR"] - scores["SI-SDRi"]
    frame = frame[np.isfinite(frame["input"]) & np.isfinite(frame["improvement"])].round(3)
    # Evenly thinned by input, so that the cloud keeps its shape
    frame = frame.sort_values("input", kind="stable").iloc[:: -(-len(frame) // MAX_DOTS) or 1]
    if frame.empty:
        return None
    sources = sorted(frame["source"].unique())
    chart = (
        alt.Chart(frame)
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(
            x=alt.X(
                "input:Q", title="SI-SDR of the source in the mixture (dB)", scale=alt.Scale(zero=False, nice=True)
            ),
            y=alt.Y("improvement:Q", title="SI-SDR improvement (dB)"),
            color=source_colour(sources),
            shape=source_shape(sources),
            tooltip=[
                alt.Tooltip("item:N", title="Mixture"),
                alt.Tooltip("members:N", title=f"{unit_of(scores)}s".capitalize()),
                alt.Tooltip("source:N", title="Source"),
                alt.Tooltip("input:Q", title="Input SI-SDR", format=".2f"),
                alt.Tooltip("improvement:Q", title="Improvement", format=".2f"),
            ],
        )
    )
    return finish(chart, 280, f"Improvement of the best network against the input SI-SDR, {len(frame)} estimates.")
