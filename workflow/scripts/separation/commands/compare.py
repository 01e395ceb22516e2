"""Several sweeps as one: one table and one report over all their points. `make compare sweeps=a,b`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from separation.analysis import dataframes
from separation.analysis.summarize import summarize_sweep
from separation.analysis.sweep_tables import (
    POINT_COLUMNS,
    metric_columns,
    primary_metric,
    read_points,
    swept_keys,
    written,
)
from separation.errors import UserError
from separation.files.atomic import atomic_path, read_json
from separation.files.layout import SweepFiles
from separation.files.score_table import BASELINES, SCORE_KEYS
from separation.report.figures import plot_sweep
from separation.report.render import render_report

COMPARISONS = Path("results/comparisons")
# Settings in which points of different sweeps differ may be very many; so many have a column
MOST_SETTINGS = 16
SEVERAL = " + "


@dataclass(frozen=True)
class Comparison:
    """What `compare_sweeps` made: the folder, how many points, how many that several sweeps share, and what to mind."""

    folder: Path
    points: int
    shared: int
    notices: list[str]


def compare_sweeps(names: Sequence[str], artifacts: Path, output: Path = COMPARISONS) -> Comparison:
    """Writes points.csv, scores.parquet, summary.csv, comparisons.csv, figures/ and report.html over several sweeps.

    A point that several sweeps share is one row, with the labels of all. Beside the swept keys of all sweeps stand the
    other settings in which the points differ, and `sweep`.

    Args:
        names: of at least two sweeps with results, or their experiment files.
        artifacts: where the points lie.
        output: the folder of all comparisons; this one lies in it under the sweeps' names joined by +.

    Raises:
        UserError: fewer than two sweeps, one that is not known or not evaluated, or no metric that all have.
    """
    sweeps = list({sweep.name: sweep for sweep in map(dataframes.find_sweep, names)}.values())
    if len(sweeps) < 2:
        raise UserError(f"expected two or more sweeps, found {', '.join(names) or 'none'}", key="sweeps")
    files = SweepFiles(output / "+".join(sweep.name for sweep in sweeps))
    files.path.mkdir(parents=True, exist_ok=True)
    points = _points(sweeps, artifacts)
    scores, notices = _scores(sweeps, points, artifacts)
    dropped = points.attrs["dropped"]
    if dropped:
        notices.append(
            f"The points differ in {len(dropped)} more settings than the table has room for, such as "
            f"{', '.join(dropped[:3])}; each point's config.yml has them all."
        )
    with atomic_path(files.scores) as temporary:
        scores.to_parquet(temporary, index=False)
    # Which sweep a point comes from is no setting: it has no part in matching points that agree in everything else
    _write(points.drop(columns="sweep"), files.points)
    summarize_sweep(files, artifacts)
    _write(points, files.points)
    summary = pd.read_csv(files.summary, dtype=str, keep_default_na=False)
    of_rows = points.set_index(["point", "evaluation"])["sweep"]
    keys = zip(summary["point"], summary["evaluation"], strict=True)
    summary.insert(3, "sweep", [of_rows.get(key, "") for key in keys])
    _write(summary, files.summary)
    plot_sweep(files, artifacts)
    render_report(
        SEVERAL.join(sweep.name for sweep in sweeps),
        files,
        artifacts,
        _provenance(sweeps),
        kind="Comparison of sweeps",
        notices=notices,
    )
    shared = int(points["sweep"].str.contains(SEVERAL, regex=False).sum())
    return Comparison(files.path, len(points), shared, notices)


def _points(sweeps: Sequence[SweepFiles], artifacts: Path) -> pd.DataFrame:
    """points.csv over all sweeps, with `sweep` as its first setting; `attrs["dropped"]`: settings without a column."""
    tables = {sweep.name: read_points(sweep.points) for sweep in sweeps}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, table in tables.items():
        for row in table.to_dict("records"):
            label = f"{name}: {row['label']}"
            known = rows.setdefault((row["point"], row["evaluation"]), row | {"sweep": "", "label": ""})
            known["sweep"] = SEVERAL.join(filter(None, [known["sweep"], name]))
            known["label"] = " | ".join(filter(None, [known["label"], label]))
    configs = {key: dataframes.config_of(artifacts, *key) for key in rows}
    texts = {
        key: {name: written(value) for name, value in config.items() if value is not None}
        for key, config in configs.items()
    }
    swept = list(dict.fromkeys(key for table in tables.values() for key in swept_keys(table)))
    names = dict.fromkeys(name for config in texts.values() for name in config)
    varying = [name for name in names if len({config.get(name, "") for config in texts.values()}) > 1]
    # What is swept by a short name stands in the configs under its dotted one
    ends = {key.rsplit(".", 1)[-1] for key in swept}
    others = [name for name in varying if name not in swept and name.rsplit(".", 1)[-1] not in ends]
    room = max(0, MOST_SETTINGS - len(swept))
    for key, row in rows.items():
        for name in swept:
            if row.get(name) is None:
                row[name] = texts[key].get(name, "") or _by_end(texts[key], name)
        row |= {name: texts[key].get(name, "") for name in others[:room]}
    columns = ["point", "label", "sweep", *swept, *others[:room]]
    frame = pd.DataFrame(rows.values())
    frame = frame[[*columns, *(name for name in POINT_COLUMNS if name not in columns and name in frame)]].fillna("")
    frame.attrs["dropped"] = others[room:]
    return frame


def _by_end(config: dict[str, str], key: str) -> str:
    """The value of a key that a sweep names by its last part alone."""
    return next((value for name, value in config.items() if "." not in key and name.endswith(f".{key}")), "")


def _scores(sweeps: Sequence[SweepFiles], points: pd.DataFrame, artifacts: Path) -> tuple[pd.DataFrame, list[str]]:
    """The scores of all sweeps, each once, and what must be said of their test sets and metrics."""
    tables = {sweep.name: pd.read_parquet(sweep.scores) for sweep in sweeps}
    metrics = {name: metric_columns(table) for name, table in tables.items()}
    common = [metric for metric in next(iter(metrics.values())) if all(metric in own for own in metrics.values())]
    if not common:
        told = "; ".join(f"{name} has {', '.join(own)}" for name, own in metrics.items())
        raise UserError(f"expected a metric that all sweeps have, found none: {told}", key="sweeps")
    notices = []
    if any(primary_metric(own) != primary_metric(common) for own in metrics.values()):
        notices.append(f"Points are compared by {primary_metric(common)}, the first metric that all sweeps have.")
    _name_test_sets(tables, points, artifacts)
    tested = {}
    for name, table in tables.items():
        own = table[~table["point"].isin(list(BASELINES))]
        tested[name] = set(own[["dataset", "split", "item"]].astype(str).itertuples(index=False, name=None))
    notices += test_set_notices(tested)
    gathered = pd.concat(tables.values(), ignore_index=True)
    keys = [key for key in SCORE_KEYS if key in gathered]
    rest = [name for name in gathered if name not in keys and not any(name in own for own in metrics.values())]
    return gathered.drop_duplicates(keys)[[*keys, *common, *rest]].reset_index(drop=True), notices


def _name_test_sets(tables: dict[str, pd.DataFrame], points: pd.DataFrame, artifacts: Path) -> None:
    """Calls test sets by their ids where one name stands for several: recipes that changed between sweeps."""
    ids: dict[str, str] = {}
    for row in points.itertuples():
        known = dataframes.test_data_of(artifacts, row.point, row.evaluation)
        for evaluation in (row.evaluation, getattr(row, "baselines", "")):
            ids.setdefault(evaluation, known)
    of_name: dict[str, set[str]] = {}
    for table in tables.values():
        for name, evaluation in table[["dataset", "evaluation"]].drop_duplicates().itertuples(index=False):
            of_name.setdefault(name, set()).add(ids.get(evaluation, ""))
    several = {name for name, known in of_name.items() if len(known - {""}) > 1}
    for table in tables.values():
        known = table["evaluation"].map(ids).fillna("")
        table["dataset"] = known.where(table["dataset"].isin(several) & (known != ""), table["dataset"])


def test_set_notices(tested: dict[str, set[tuple[str, ...]]]) -> list[str]:
    """Says where sweeps were tested on different mixtures.

    Args:
        tested: sweep -> the items of its test set: (dataset's id or name, split, item).
    """
    if len({frozenset(items) for items in tested.values()}) == 1:
        return []
    told = []
    for name, items in tested.items():
        sets = sorted({f"{dataset}/{split}" for dataset, split, _ in items})
        told.append(f"{name} on {len(items)} mixtures of {' and '.join(sets)}")
    apart = [f"{one} and {other}" for one, other in combinations(tested, 2) if not tested[one] & tested[other]]
    if apart:
        taken = f"{', '.join(apart)} have no mixture in common, so that no difference between their points can be shown"
    else:
        taken = "differences between points are taken on the mixtures that both were tested on"
    return [
        f"The sweeps were tested on different mixtures ({'; '.join(told)}): {taken}. Means of different test "
        "sets are not comparable, and neither is the share of the oracle's gap."
    ]


def _provenance(sweeps: Sequence[SweepFiles]) -> dict[str, object]:
    from separation.experiment.config import default_config
    from separation.planning.expansion import load_workflow
    from separation.planning.run_options import provenance_inputs
    from separation.report.provenance import provenance_of

    told: dict[str, object] = {}
    for sweep in sweeps:
        file = read_json(sweep.record)["file"] if sweep.record.exists() else ""
        if not file or not Path(file).exists():
            told[sweep.name] = {"config_file": f"{file or 'not recorded'}, which is gone"}
            continue
        try:
            workflow = load_workflow(default_config() | {"sweep": file}, os.environ)
        except UserError as problem:
            told[sweep.name] = {"config_file": f"{file}, which is not valid any more: {problem}"}
            continue
        own = provenance_of(**provenance_inputs(workflow.run_options, workflow.job_table))
        told |= {key: own.pop(key) for key in ("git_commit", "versions")}
        told[sweep.name] = {key: value for key, value in own.items() if value}
    return told


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make compare`."""
    parser = argparse.ArgumentParser(prog="compare", description="One table and one report over several sweeps.")
    parser.add_argument("sweeps", help="names of finished sweeps, or their files, with commas between")
    asked = parser.parse_args(arguments)
    try:
        names = [name.strip() for name in asked.sweeps.split(",") if name.strip()]
        made = compare_sweeps(names, dataframes.artifacts_folder())
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    for notice in made.notices:
        print(f"Note: {notice}")
    shared = f", {made.shared} of them in more than one sweep" if made.shared else ""
    print(f"{made.points} points{shared}: {SweepFiles(made.folder).report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
