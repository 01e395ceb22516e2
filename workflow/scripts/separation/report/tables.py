"""Tables of a report, in the form that its template takes: points, comparisons, effects, seeds, conditions, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from separation.analysis.comparisons import MAX_POINTS_FOR_ALL_PAIRS
from separation.analysis.costs import exact_duration, rate_unit
from separation.analysis.statistics import BETTER, WORSE
from separation.analysis.sweep_tables import as_number, value_order, varying_keys
from separation.experiment.key_paths import short_names
from separation.files.score_table import NON_FINITE
from separation.report import charts, condition_charts
from separation.report.verdict import decibels, loss_keys, several_trainings

# Metrics shown at first; the others are shown on request
SHOWN_METRICS = ("SI-SDRi", "SI-SDR", "SI-SIR", "SI-SAR", "SDR", "SIR", "SAR")
# Keys with more values are filtered by search only, not by a list
MAX_CHOICES = 12


def table_of_points(data: charts.SweepData, metrics: list[str]) -> dict:
    """The table of points: cells as numbers, with the values that the page sorts and filters by."""
    more = _more_columns(data)
    keys = varying_keys(data.points)
    names = short_names(keys)
    shown = [name for name in metrics if name in SHOWN_METRICS] or metrics[:4]
    ordered = [data.metric, *(name for name in shown if name != data.metric)]
    ordered += [name for name in metrics if name not in ordered]
    finite = data.rows[["score", "low", "high"]].to_numpy(dtype=float)
    finite = finite[pd.notna(finite)]
    floor, ceiling = (min(0.0, finite.min()), max(finite.max(), 1e-9)) if len(finite) else (0.0, 1.0)

    def percent(value: float) -> float:
        return round(100 * (value - floor) / ((ceiling - floor) or 1.0), 2)

    rows = []
    columns = {"score": data.metric, "low": f"{data.metric}_low", "high": f"{data.metric}_high"}
    for index, (_, row) in enumerate(data.rows.rename(columns=columns).iterrows(), start=1):
        means = {m: {"mean": row[m], "low": row[f"{m}_low"], "high": row[f"{m}_high"]} for m in ordered}
        main = means[data.metric]
        bar = None
        if math.isfinite(main["mean"]):
            low, high = (main[end] if math.isfinite(main[end]) else main["mean"] for end in ("low", "high"))
            bar = {"left": percent(low), "width": round(percent(high) - percent(low), 2), "at": percent(main["mean"])}
        rows.append(
            {
                "rank": index,
                "baseline": bool(row["baseline"]),
                "best": bool(row["best"]),
                "system": row["kind"] == charts.SYSTEM,
                "label": row["label"],
                "point": row["point"],
                "evaluation": row["evaluation"],
                "values": {key: row[key] for key in keys},
                "sort": {key: _sortable(row[key]) for key in keys},
                "loss": row["criterion"],
                "means": means,
                "bar": bar,
                "share": row["oracle_share"],
                "more": [column["cells"][index - 1] for column in more],
                "items": int(row["items"]),
            }
        )
    choices = {key: value_order(data.points[key]) for key in keys if data.points[key].nunique() <= MAX_CHOICES}
    # Evaluations of the same training are identified by their ids
    evaluations = data.points.groupby("point")["evaluation"].nunique().max() > 1
    return {
        "keys": keys,
        "names": names,
        "metrics": ordered,
        "shown": shown,
        "choices": choices,
        "evaluations": bool(evaluations),
        "more": more,
        "points": [row for row in rows if not row["baseline"]],
        "baselines": [row for row in rows if row["baseline"]],
    }


def published(data: charts.SweepData) -> dict:
    """Numbers from papers: the metrics they state, and a row for each."""
    metrics = list(dict.fromkeys(metric for entry in data.published for metric in entry["metrics"]))
    return {"metrics": metrics, "rows": list(data.published)}


def _more_columns(data: charts.SweepData) -> list[dict]:
    """Columns after the means, where known: estimates without a score, scores by source, median, training time."""
    metric, rows, found = data.metric, data.rows, []
    if NON_FINITE in rows and rows[NON_FINITE].sum() > 0:
        cells = [{"text": f"{count:.0f}" if count else "", "sort": count} for count in rows[NON_FINITE]]
        title = "estimates with NaN or infinite samples; the means leave them out"
        found.append({"name": "no score", "title": title, "extra": False, "cells": cells})
    for name in (metric, "cSDR"):
        for column in [column for column in rows if column.startswith(f"{name}:")]:
            source, extra = column.partition(":")[2], name != metric
            cells = [{"text": decibels(value), "sort": value} for value in rows[column]]
            title = f"{name} of {source}, {'median over songs' if name == 'cSDR' else 'mean over items'}"
            label = f"{name} {source}" if extra else source
            found.append({"name": label, "title": title, "extra": extra, "cells": cells})
    median = f"{metric}_median"
    if median in rows:
        cells = [{"text": decibels(value), "sort": value} for value in rows[median]]
        found.append(
            {"name": "median", "title": f"median of {metric} over items and sources", "extra": True, "cells": cells}
        )
    if len(data.costs) and data.costs["train_seconds"].notna().any():
        known = data.costs.set_index(["point", "evaluation"])["train_seconds"]
        times = [known.get(row, math.nan) for row in zip(rows["point"], rows["evaluation"], strict=True)]
        baseline = rows["baseline"].tolist()
        cells = [
            {"text": "" if base else exact_duration(time), "sort": time}
            for time, base in zip(times, baseline, strict=True)
        ]
        found.append({"name": "training time", "title": "wall time of all epochs", "extra": False, "cells": cells})
    return found


def costs(data: charts.SweepData) -> dict | None:
    """The costs and scores of the points; None if no training time is known."""
    if data.costs.empty or data.costs["train_seconds"].isna().all():
        return None
    unit, seconds = rate_unit(data.costs)
    ranks = {(row.point, row.evaluation): rank for rank, row in enumerate(data.rows.itertuples(), start=1)}
    labels = {(row.point, row.evaluation): (row.label, row.score) for row in data.rows.itertuples()}
    rows = []
    for row in data.costs.to_dict("records"):
        key = (row["point"], row["evaluation"])
        label, score = labels.get(key, (row["point"], math.nan))
        rate = score / (row["train_seconds"] / seconds) if row["train_seconds"] > 0 else math.nan
        rows.append(row | {"rank": ranks.get(key, 0), "label": label, "score": score, "rate": rate})
    rows.sort(key=lambda row: row["rank"])
    trained = data.costs.drop_duplicates("point")
    total = {
        "points": len(trained),
        "train": exact_duration(trained["train_seconds"].sum()),
        "unknown": int(trained["train_seconds"].isna().sum()),
        "evaluate": exact_duration(data.costs["evaluate_seconds"].sum(min_count=1)),
        "devices": sorted(set(trained["device"]) - {""}),
    }
    return {"unit": unit, "rows": rows, "total": total}


def condition_tables(data: charts.SweepData) -> list[dict]:
    """The means by condition, as the charts show them, in tables."""
    if data.conditions.empty:
        return []
    shown, found = condition_charts.condition_rows(data), []
    for condition, rows in list(data.conditions.groupby("condition", sort=False))[: condition_charts.MAX_CONDITIONS]:
        values = list(dict.fromkeys(rows["value"]))
        lines = []
        for label, cells in shown.merge(rows, on=["point", "evaluation"]).groupby("label", sort=False):
            of_value = {row["value"]: row for row in cells.to_dict("records")}
            lines.append({"label": label, "cells": [of_value.get(value) for value in values]})
        if lines and len(values) > 1:
            found.append({"name": condition, "values": values, "rows": lines})
    return found


def best_of_each_loss(data: charts.SweepData) -> list[dict]:
    """The best point of each loss, if points with different losses are chosen by loss, and of each data set."""
    keys = [] if data.chosen_by else loss_keys(data.points)
    if not keys and not data.across:
        return []
    trained = data.rows[~data.rows["baseline"] & data.rows["criterion"].notna()]
    names = {**short_names(keys), "data": "data"}
    keys = [*(["data"] if data.across else []), *keys]
    found = []
    for values, rows in trained.groupby(keys, sort=False):
        # rows are ordered by what points are chosen by
        first = rows.iloc[0]
        loss = ", ".join(f"{names[key]} = {value or charts.NOT_SET}" for key, value in zip(keys, values, strict=True))
        found.append(
            {"loss": loss, "points": len(rows), "label": first["label"], "validation_loss": first["criterion"]}
            | {"score": first["score"], "low": first["low"], "high": first["high"]}
        )
    return found


def _sortable(value: str) -> str:
    number = as_number(value)
    return value if number is None else repr(number)


def comparisons(data: charts.SweepData) -> dict:
    """The comparisons with the best in a list, and all pairs in a square for up to 20 rows.

    Settings are compared if any was trained several times, else networks; `noun` says which.
    """
    settings = several_trainings(data)
    kinds = ("group", ["group", "group_pair"]) if settings else ("best", ["pair"])
    if settings:
        ranked = data.groups.sort_values("chosen", kind="stable", na_position="last")
        labels = dict(zip(ranked["group"], ranked["label"], strict=True))
        order = {(name, ""): rank for rank, name in enumerate(ranked["group"], start=1)}
    else:
        order = {(row.point, row.evaluation): rank for rank, row in enumerate(data.trained.itertuples(), start=1)}
        labels = {(row.point, row.evaluation): row.label for row in data.trained.itertuples()}

    def key(row: Mapping, end: str) -> tuple[str, str]:
        return (row[end], "" if settings else row["evaluation" if end == "point" else f"{end}_evaluation"])

    with_best = []
    for row in data.comparisons[data.comparisons["kind"] == kinds[0]].to_dict("records"):
        one = key(row, "point")
        label = labels.get(one[0] if settings else one, row["label"])
        with_best.append(difference(row) | {"label": label, "rank": order.get(one, 0)})
    with_best.sort(key=lambda row: row["rank"])
    square = []
    if 2 < len(order) <= MAX_POINTS_FOR_ALL_PAIRS:
        cells = {}
        for row in data.comparisons[data.comparisons["kind"].isin(kinds[1])].to_dict("records"):
            one, other = key(row, "point"), key(row, "against")
            cells[one, other] = difference(row)
            cells[other, one] = difference(row, reverse=True)
        square = [
            {
                "rank": order[one],
                "label": labels[one[0] if settings else one],
                "cells": [cells.get((one, other)) for other in order],
            }
            for one in order
        ]
    noun = "setting" if settings else "network"
    return {"best": with_best, "square": square, "ranks": list(order.values()), "noun": noun}


def difference(row: Mapping, reverse: bool = False) -> dict:
    """A row of comparisons.csv for the template; `reverse` exchanges its two points."""
    sign = -1 if reverse else 1
    ends = sorted([sign * row["difference_low"], sign * row["difference_high"]])
    opposite = {BETTER: WORSE, WORSE: BETTER}
    verdict = opposite.get(row["verdict"], row["verdict"]) if reverse else row["verdict"]
    return {
        "difference": sign * row["difference"],
        "low": ends[0],
        "high": ends[1],
        "verdict": verdict,
        "look": {BETTER: "better", WORSE: "worse"}.get(verdict, "none"),
        "effect_size": row["effect_size"],
        "share_better": row["share_better"],
        "p": row["p_adjusted"],
        "items": row["items"],
    }


def effects(data: charts.SweepData) -> list[dict]:
    """The effects of the swept keys, a list of values for each key."""
    names = short_names(varying_keys(data.points))
    found = []
    for key, rows in data.comparisons[data.comparisons["kind"] == "effect"].groupby("key", sort=False):
        values = [
            difference(row)
            | {"value": row["label"] or charts.NOT_SET, "pairs": _pairs(row)}
            | {"verdict": charts.effect_words(row["verdict"], row["question"])}
            for row in rows.to_dict("records")
        ]
        found.append(
            {
                "key": key,
                "name": names[key],
                "reference": rows["against_label"].iloc[0] or charts.NOT_SET,
                "values": values,
            }
        )
    return found


def _pairs(row: Mapping) -> str:
    return f"{row['pairs_better']:.0f} of {row['matched_pairs']:.0f}" if row["matched_pairs"] > 0 else "–"


def settings(data: charts.SweepData) -> list[dict]:
    """Settings over their trainings, by mean validation loss, the best one marked; none if all were trained once."""
    if not several_trainings(data):
        return []
    metric = data.metric
    ordered = data.groups.sort_values("chosen", kind="stable", na_position="last")
    labels = {row.point: row.label for row in data.rows.itertuples()}
    return [
        {
            "rank": rank,
            "best": row["best"],
            "label": row["label"],
            "seeds": int(row["seeds"]),
            "loss": row["criterion"],
            "mean": row[metric],
            "low": row[f"{metric}_low"] if row["seeds"] > 1 else math.nan,
            "high": row[f"{metric}_high"] if row["seeds"] > 1 else math.nan,
            "spread": row[f"{metric}_seed_spread"],
            "share": row["oracle_share"],
            "network": labels.get(row["network"], row["network"]),
        }
        for rank, row in enumerate(ordered.to_dict("records"), start=1)
    ]
