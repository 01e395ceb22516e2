"""The report of a sweep: one HTML file that opens from disk, with charts, tables and sounds inside."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from separation import charts, verdict
from separation.comparisons import MOST_POINTS_FOR_ALL_PAIRS
from separation.figures import INDEX, SECTIONS, vega_lite_version
from separation.files import read_json, write_text
from separation.key_paths import short_names
from separation.players import read_items
from separation.sweep_tables import (
    as_number,
    metric_columns,
    primary_metric,
    read_histories,
    read_points,
    read_scores,
    read_summary,
    value_order,
    varying_keys,
)

TEMPLATES = Path(__file__).resolve().parents[2] / "report"
# Metrics in the table from the start; the others are a click away
SHOWN_METRICS = ("SI-SDRi", "SI-SDR", "SI-SIR", "SI-SAR", "SDR", "SIR", "SAR")
# A key with more values than that is filtered by typing, not from a list
MOST_CHOICES = 12
METRICS = {
    "SI-SDR": "Scale-invariant signal-to-distortion ratio: the energy of the part of the estimate that is a scaled "
    "copy of the source, against all the rest. Higher is better; 0 dB means as much error as signal.",
    "SI-SDRi": "SI-SDR improvement: SI-SDR of the estimate minus SI-SDR of the mixture taken as the estimate. 0 dB is "
    "what doing nothing reaches.",
    "SI-SIR": "Scale-invariant signal-to-interference ratio: of the error, only what comes from the other sources.",
    "SI-SAR": "Scale-invariant signal-to-artifacts ratio: of the error, only what comes from no source. An untouched "
    "mixture has none, so that this is high where little was done.",
    "SD-SDR": "Scale-dependent SDR: as SI-SDR, but a wrong level counts as an error.",
    "SNR": "Signal-to-noise ratio: the energy of the source against that of estimate minus source, as they are.",
    "SRR": "Source-to-rescaled-source ratio: how far the level of the estimate is off.",
    "SDR": "Signal-to-distortion ratio of BSSEval v4: filters of 512 taps on the source are forgiven.",
    "ISR": "Image-to-spatial-distortion ratio of BSSEval v4.",
    "SIR": "Signal-to-interference ratio of BSSEval v4: only what comes from the other sources.",
    "SAR": "Signal-to-artifacts ratio of BSSEval v4: only what comes from no source.",
}


def render_report(
    sweep: str,
    points_csv: Path,
    scores: Path,
    summary: Path,
    comparisons: Path,
    figures: Path,
    histories: Mapping[str, Path],
    estimates: Mapping[str, Sequence[Path]],
    provenance: Mapping,
    output: Path,
) -> None:
    """Writes the report of a sweep as one HTML file that needs no network and no other file.

    Args:
        sweep: its name.
        points_csv, scores, summary, comparisons: as written by `separation.analysis`.
        figures: the folder that `separation.figures.plot_sweep` filled.
        histories: point -> history.csv.
        estimates: point -> its `estimates` folders (see `separation.listening`); those of the best point are played.
        provenance: what the report says of its making, for example `date`, `git commit`, `versions`, `datasets`,
            `licences`, `config` (text); values are strings, lists or mappings and are shown in their order. `notes` go
            to the top.
        output: where the HTML goes. Same arguments, same bytes.
    """
    points, table = read_points(points_csv), read_scores(scores)
    metrics = metric_columns(table)
    metric = primary_metric(metrics)
    read = read_histories(histories)
    data = charts.gather(points, table, read_summary(summary, points), read, metric)
    compared = pd.read_csv(comparisons, dtype={name: str for name in ("point", "evaluation", "label", "against")})
    compared["label"] = compared["label"].fillna("")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"db": verdict.decibels, "interval": _interval, "short": _short}
    page = environment.get_template("report.html.j2").render(
        sweep=sweep,
        verdict=verdict.describe(points, data.rows, compared, table, read, metric),
        metric=metric,
        table=_table(data, metrics),
        figures=_figures(Path(figures)),
        compared=_compared(compared, data),
        effects=_effects(compared, points),
        seeds=_seeds(points, data),
        items=read_items(_kept(estimates, data)),
        notes=provenance.get("notes"),
        provenance={name: value for name, value in provenance.items() if name != "notes" and (value or value == 0)},
        metrics={name: text for name, text in METRICS.items() if name in metrics},
        improvements=[name for name in metrics if name.endswith("i") and name != "SI-SDRi"],
        downloads=[(path.name, data_uri(path)) for path in map(Path, (summary, comparisons, points_csv))],
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        vega=Markup(vega_bundle()),
    )
    write_text(output, page)


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that can stand inside a page."""
    # What would end the script element early; inside strings and patterns the backslash changes nothing
    return vl_convert.javascript_bundle(vl_version=vega_lite_version()).replace("</script", "<\\/script")


def json_script(value: object) -> Markup:
    """JSON that can stand inside a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def data_uri(path: Path) -> str:
    """A CSV as a data URI."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(path.read_bytes()).decode()


def _interval(row: Mapping, sign: bool = False) -> str:
    return verdict.interval(row["low"], row["high"], sign)


def _kept(estimates: Mapping[str, Sequence[Path]], data: charts.SweepData) -> list[Path]:
    """The folders of the best point; of several evaluations, those of the one that the verdict speaks of."""
    for row in data.rows[data.rows["best"]].head(1).itertuples():
        folders = [Path(folder) for folder in estimates.get(row.point, [])]
        return [folder for folder in folders if folder.parent.name == row.evaluation] or folders
    return []


def _short(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _figures(folder: Path) -> dict[str, list[dict]]:
    """The figures by section, each with its specification as JSON."""
    sections: dict[str, list[dict]] = {name: [] for name in SECTIONS}
    for figure in read_json(folder / INDEX):
        specification = read_json(folder / f"{figure['name']}.vl.json")
        # The page brings its own look, light or dark, and no address that anything might load
        specification = {name: value for name, value in specification.items() if name not in ("$schema", "config")}
        entry = figure | {"json": json_script(specification), "description": specification.get("description", "")}
        sections[figure["section"]].append(entry)
    return sections


def _table(data: charts.SweepData, metrics: list[str]) -> dict:
    """The rows of the table of points: cells as numbers, with what the page sorts and filters by."""
    keys = varying_keys(data.points)
    names = short_names(keys)
    shown = [name for name in metrics if name in SHOWN_METRICS] or metrics[:4]
    ordered = [data.metric, *(name for name in shown if name != data.metric)]
    ordered += [name for name in metrics if name not in ordered]
    finite = data.rows[["score", "low", "high"]].to_numpy(dtype=float)
    finite = finite[pd.notna(finite)]
    floor, ceiling = (min(0.0, finite.min()), max(finite.max(), 1e-9)) if len(finite) else (0.0, 1.0)

    def place(value: float) -> float:
        return round(100 * (value - floor) / ((ceiling - floor) or 1.0), 2)

    rows = []
    columns = {"score": data.metric, "low": f"{data.metric}_low", "high": f"{data.metric}_high"}
    for index, (_, row) in enumerate(data.rows.rename(columns=columns).iterrows(), start=1):
        means = {m: {"mean": row[m], "low": row[f"{m}_low"], "high": row[f"{m}_high"]} for m in ordered}
        main = means[data.metric]
        bar = None
        if math.isfinite(main["mean"]):
            low, high = (main[end] if math.isfinite(main[end]) else main["mean"] for end in ("low", "high"))
            bar = {"left": place(low), "width": round(place(high) - place(low), 2), "at": place(main["mean"])}
        rows.append(
            {
                "rank": index,
                "baseline": bool(row["baseline"]),
                "best": bool(row["best"]),
                "label": row["label"],
                "point": row["point"],
                "evaluation": row["evaluation"],
                "values": {key: row[key] for key in keys},
                "sort": {key: _sortable(row[key]) for key in keys},
                "loss": row["validation_loss"],
                "means": means,
                "bar": bar,
                "share": row["oracle_share"],
                "items": int(row["items"]),
            }
        )
    choices = {key: value_order(data.points[key]) for key in keys if data.points[key].nunique() <= MOST_CHOICES}
    # A second evaluation of the same training is told apart by its id
    evaluations = data.points.groupby("point")["evaluation"].nunique().max() > 1
    return {
        "keys": keys,
        "names": names,
        "metrics": ordered,
        "shown": shown,
        "choices": choices,
        "evaluations": bool(evaluations),
        "points": [row for row in rows if not row["baseline"]],
        "baselines": [row for row in rows if row["baseline"]],
    }


def _sortable(value: str) -> str:
    number = as_number(value)
    return value if number is None else repr(number)


def _compared(compared: pd.DataFrame, data: charts.SweepData) -> dict:
    """The comparisons with the best in a list, and all pairs in a square for up to 20 points."""
    labels = {(row.point, row.evaluation): row.label for row in data.rows.itertuples()}
    order = {(row.point, row.evaluation): rank for rank, row in enumerate(data.rows.itertuples(), start=1)}
    with_best = []
    for row in compared[compared["kind"] == "best"].to_dict("records"):
        key = (row["point"], row["evaluation"])
        with_best.append(_difference(row) | {"label": labels.get(key, row["label"]), "rank": order.get(key, 0)})
    with_best.sort(key=lambda row: row["rank"])
    ranked = [(row.point, row.evaluation) for row in data.trained.itertuples()]
    square = []
    if 2 < len(ranked) <= MOST_POINTS_FOR_ALL_PAIRS:
        cells = {}
        for row in compared[compared["kind"].isin(["best", "pair"])].to_dict("records"):
            one, other = (row["point"], row["evaluation"]), (row["against"], row["against_evaluation"])
            cells[one, other] = _difference(row)
            cells[other, one] = _difference(row, reverse=True)
        square = [
            {"rank": order[one], "label": labels[one], "cells": [cells.get((one, other)) for other in ranked]}
            for one in ranked
        ]
    return {"best": with_best, "square": square, "ranks": [order[one] for one in ranked]}


def _difference(row: Mapping, reverse: bool = False) -> dict:
    sign = -1 if reverse else 1
    ends = sorted([sign * row["difference_low"], sign * row["difference_high"]])
    words = {"better": "worse", "worse": "better"}.get(row["verdict"], row["verdict"]) if reverse else row["verdict"]
    look = words if words in ("better", "worse") else "none"
    return {
        "difference": sign * row["difference"],
        "low": ends[0],
        "high": ends[1],
        "verdict": words,
        "look": look,
        "effect_size": row["effect_size"],
        "share_better": row["share_better"],
        "items": row["items"],
    }


def _effects(compared: pd.DataFrame, points: pd.DataFrame) -> list[dict]:
    """The effects of the swept keys, a list of values for each key."""
    names = short_names(varying_keys(points))
    effects = []
    for key, rows in compared[compared["kind"] == "effect"].groupby("key", sort=False):
        values = [
            _difference(row) | {"value": row["label"] or "(not set)", "pairs": _pairs(row)}
            for row in rows.to_dict("records")
        ]
        effects.append({"key": key, "name": names[key], "reference": rows["against_label"].iloc[0], "values": values})
    return effects


def _pairs(row: Mapping) -> str:
    return f"{row['pairs_better']:.0f} of {row['matched_pairs']:.0f}" if row["matched_pairs"] > 0 else "–"


def _seeds(points: pd.DataFrame, data: charts.SweepData) -> list[dict]:
    """How far equal settings with different seeds lie apart, for groups of several seeds."""
    if not {"group", "seed"} <= set(points.columns):
        return []
    rows = data.trained.merge(points[["point", "evaluation", "group", "seed"]], on=["point", "evaluation"])
    found = []
    for _, members in rows.groupby(["group", "evaluation"], sort=False):
        if members["seed"].nunique() > 1 and members.iloc[0]["group"] != "":
            scores = members["score"]
            found.append(
                {
                    "label": members.iloc[0]["label"],
                    "seeds": ", ".join(members["seed"]),
                    "mean": scores.mean(),
                    "deviation": scores.std(ddof=1),
                    "lowest": scores.min(),
                    "highest": scores.max(),
                }
            )
    return found
