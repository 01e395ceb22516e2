"""Comparison of several sweeps: one table and one report over all their points. `make compare sweeps=a,b`."""

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
    to_csv_text,
)
from separation.errors import UserError
from separation.files.atomic import atomic_path, read_json, write_json
from separation.files.layout import COMPARISONS, SweepFiles
from separation.files.score_table import SCORE_KEYS, is_reference, read_user_metrics, write_score_table
from separation.report.figures import plot_sweep
from separation.report.render import render_report

# points of different sweeps may differ in very many settings; only these get a column
MAX_SETTINGS = 16
SEPARATOR = " + "


@dataclass(frozen=True)
class Comparison:
    """Result of `compare_sweeps`.

    Attributes:
        files: Tables, figures and report.
        points: Number of points.
        shared: Number of points that several sweeps share.
        notices: Notices about settings, metrics and test sets.
    """

    files: SweepFiles
    points: int
    shared: int
    notices: list[str]


def compare_sweeps(names: Sequence[str], artifacts: Path, output: Path = COMPARISONS) -> Comparison:
    """Writes points.csv, scores.parquet, summary.csv, comparisons.csv, figures/ and report.html over several sweeps.

    A point that several sweeps share is one row, with all its labels. Besides the swept keys of all sweeps, points.csv
    has the other settings in which the points differ, and `sweep`.

    Args:
        names: Names of at least two sweeps with results, or their experiment files.
        artifacts: ARTIFACTS.
        output: Folder of all comparisons; the new one is named after its sweeps, joined by +.

    Raises:
        UserError: Fewer than two sweeps, a sweep that is unknown or not evaluated, or no metric that all sweeps have.
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
    published = [entry for sweep in sweeps if sweep.published.exists() for entry in read_json(sweep.published)]
    if published:
        write_json(files.published, published)
    user_metrics = {name: of for sweep in sweeps for name, of in read_user_metrics(sweep.scores).items()}
    write_score_table(scores, files.scores, {name: of for name, of in user_metrics.items() if name in scores})
    # `sweep` is no setting: it must not keep points apart that agree in everything else
    _write(points.drop(columns="sweep"), files.points)
    summarize_sweep(files, artifacts)
    _write(points, files.points)
    summary = pd.read_csv(files.summary, dtype=str, keep_default_na=False)
    sweep_of = points.set_index(["point", "evaluation"])["sweep"]
    keys = zip(summary["point"], summary["evaluation"], strict=True)
    summary.insert(3, "sweep", [sweep_of.get(key, "") for key in keys])
    _write(summary, files.summary)
    plot_sweep(files, artifacts)
    render_report(
        SEPARATOR.join(sweep.name for sweep in sweeps),
        files,
        artifacts,
        _provenance(sweeps),
        kind="Comparison of sweeps",
        notices=notices,
    )
    shared = int(points["sweep"].str.contains(SEPARATOR, regex=False).sum())
    return Comparison(files, len(points), shared, notices)


def _points(sweeps: Sequence[SweepFiles], artifacts: Path) -> pd.DataFrame:
    """points.csv over all sweeps; `sweep` is its first setting, `attrs["dropped"]` lists settings without a column."""
    tables = {sweep.name: read_points(sweep.points) for sweep in sweeps}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, table in tables.items():
        for row in table.to_dict("records"):
            label = f"{name}: {row['label']}"
            merged = rows.setdefault((row["point"], row["evaluation"]), row | {"sweep": "", "label": ""})
            merged["sweep"] = SEPARATOR.join(filter(None, [merged["sweep"], name]))
            merged["label"] = " | ".join(filter(None, [merged["label"], label]))
    configs = {key: dataframes.config_of(artifacts, *key) for key in rows}
    texts = {
        key: {name: to_csv_text(value) for name, value in config.items() if value is not None}
        for key, config in configs.items()
    }
    swept = list(dict.fromkeys(key for table in tables.values() for key in swept_keys(table)))
    names = dict.fromkeys(name for config in texts.values() for name in config)
    varying = [name for name in names if len({config.get(name, "") for config in texts.values()}) > 1]
    # a key that a sweep names by its last part has a dotted name in the configs
    ends = {key.rsplit(".", 1)[-1] for key in swept}
    others = [name for name in varying if name not in swept and name.rsplit(".", 1)[-1] not in ends]
    room = max(0, MAX_SETTINGS - len(swept))
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
    """The value of a key that a sweep names only by its last part."""
    return next((value for name, value in config.items() if "." not in key and name.endswith(f".{key}")), "")


def _scores(sweeps: Sequence[SweepFiles], points: pd.DataFrame, artifacts: Path) -> tuple[pd.DataFrame, list[str]]:
    """The scores of all sweeps without duplicates, and notices about their test sets and metrics."""
    tables = {sweep.name: pd.read_parquet(sweep.scores) for sweep in sweeps}
    metrics = {name: metric_columns(table) for name, table in tables.items()}
    common = [metric for metric in next(iter(metrics.values())) if all(metric in names for names in metrics.values())]
    if not common:
        found = "; ".join(f"{name} has {', '.join(names)}" for name, names in metrics.items())
        raise UserError(f"expected a metric that all sweeps have, found none: {found}", key="sweeps")
    notices = []
    if any(primary_metric(names) != primary_metric(common) for names in metrics.values()):
        notices.append(f"Points are compared by {primary_metric(common)}, the first metric that all sweeps have.")
    _name_test_sets(tables, points, artifacts)
    tested = {}
    for name, table in tables.items():
        point_rows = table[~table["point"].map(is_reference)]
        tested[name] = set(point_rows[["dataset", "split", "item"]].astype(str).itertuples(index=False, name=None))
    notices += test_set_notices(tested)
    gathered = pd.concat(tables.values(), ignore_index=True)
    keys = [key for key in SCORE_KEYS if key in gathered]
    rest = [name for name in gathered if name not in keys and not any(name in names for names in metrics.values())]
    return gathered.drop_duplicates(keys)[[*keys, *common, *rest]].reset_index(drop=True), notices


def _name_test_sets(tables: dict[str, pd.DataFrame], points: pd.DataFrame, artifacts: Path) -> None:
    """Replaces the names of test sets with their ids if one name has several: recipes that changed between sweeps."""
    ids: dict[str, str] = {}
    for row in points.itertuples():
        known = dataframes.test_data_of(artifacts, row.point, row.evaluation)
        for evaluation in (row.evaluation, getattr(row, "baselines", "")):
            ids.setdefault(evaluation, known)
    ids_of_name: dict[str, set[str]] = {}
    for table in tables.values():
        for name, evaluation in table[["dataset", "evaluation"]].drop_duplicates().itertuples(index=False):
            ids_of_name.setdefault(name, set()).add(ids.get(evaluation, ""))
    ambiguous = {name for name, known in ids_of_name.items() if len(known - {""}) > 1}
    for table in tables.values():
        known = table["evaluation"].map(ids).fillna("")
        table["dataset"] = known.where(table["dataset"].isin(ambiguous) & (known != ""), table["dataset"])


def test_set_notices(tested: dict[str, set[tuple[str, ...]]]) -> list[str]:
    """Notices about sweeps that were tested on different mixtures.

    Args:
        tested: Items of the test set, as (dataset's id or name, split, item), by sweep.
    """
    if len({frozenset(items) for items in tested.values()}) == 1:
        return []
    test_sets = []
    for name, items in tested.items():
        sets = sorted({f"{dataset}/{split}" for dataset, split, _ in items})
        test_sets.append(f"{name} on {len(items)} mixtures of {' and '.join(sets)}")
    disjoint = [f"{one} and {other}" for one, other in combinations(tested, 2) if not tested[one] & tested[other]]
    if disjoint:
        effect = f"{', '.join(disjoint)} have no mixture in common, so no differences between their points are shown"
    else:
        effect = "differences between points are computed on the mixtures that both were tested on"
    return [
        f"The sweeps were tested on different mixtures ({'; '.join(test_sets)}): {effect}. Means of different test "
        "sets are not comparable, and neither are shares of the oracle's gap."
    ]


def _provenance(sweeps: Sequence[SweepFiles]) -> dict[str, object]:
    from separation.experiment.config import default_config
    from separation.planning.expansion import load_workflow
    from separation.report.provenance import provenance_of

    provenance: dict[str, object] = {}
    for sweep in sweeps:
        file = read_json(sweep.record)["file"] if sweep.record.exists() else ""
        if not file or not Path(file).exists():
            provenance[sweep.name] = {"config_file": f"{file} (no longer exists)" if file else "not recorded"}
            continue
        try:
            workflow = load_workflow(default_config() | {"sweep": file}, os.environ)
        except UserError as error:
            provenance[sweep.name] = {"config_file": f"{file} (no longer valid: {error})"}
            continue
        of_sweep = provenance_of(**workflow.run_options.provenance_inputs(workflow.job_table))
        provenance |= {key: of_sweep.pop(key) for key in ("git_commit", "versions")}
        provenance[sweep.name] = {key: value for key, value in of_sweep.items() if value}
    return provenance


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line of `make compare`."""
    parser = argparse.ArgumentParser(prog="compare", description="Write one table and one report over several sweeps.")
    parser.add_argument("sweeps", help="names of finished sweeps, or their files, separated by commas")
    options = parser.parse_args(arguments)
    try:
        names = [name.strip() for name in options.sweeps.split(",") if name.strip()]
        comparison = compare_sweeps(names, dataframes.artifacts_folder())
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for notice in comparison.notices:
        print(f"Note: {notice}")
    shared = f", {comparison.shared} of them in more than one sweep" if comparison.shared else ""
    print(f"{comparison.points} points{shared}: {comparison.files.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
