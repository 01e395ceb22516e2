"""Writes the tables of a sweep; `summarize_sweep` lists the columns of summary.csv."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from separation.analysis import statistics
from separation.analysis.clustered import interval_of_mean, interval_of_median
from separation.analysis.comparisons import (
    COMPARISON_COLUMNS,
    MAX_POINTS_FOR_ALL_PAIRS,
    Comparisons,
    Row,
    baselines_for,
    lower_is_better,
)
from separation.analysis.conditions import analyze_conditions
from separation.analysis.costs import NETWORK_COSTS, network_costs
from separation.analysis.data_sets import data_sets
from separation.analysis.families import judge
from separation.analysis.seed_groups import SeedGroups
from separation.analysis.sweep_tables import (
    VALIDATION_COLUMNS,
    as_number,
    clusters_of,
    lowest_validation_loss,
    metric_columns,
    primary_metric,
    read_histories,
    read_points,
    read_scores,
    score_matrix,
    selection,
    swept_keys,
    to_csv_text,
    unit_of,
    validation_metric,
)
from separation.errors import UserError
from separation.experiment.metric_definitions import MetricDefinition, all_definitions
from separation.files.atomic import atomic_path
from separation.files.layout import SweepFiles
from separation.files.score_table import (
    BASELINES,
    NON_FINITE,
    ORACLE,
    SCORE_KEYS,
    is_reference,
    is_system,
    read_user_metrics,
    reference_label,
    with_user_metrics,
)

CHUNK_SDR = "cSDR"
# More sources than this, or others in each item, are speakers rather than stems
MAX_SOURCES = 8

log = logging.getLogger(__name__)


def collect_scores(
    points: Sequence[Mapping], scores: Sequence[Path], files: SweepFiles, validations: Sequence[Path] = ()
) -> None:
    """Writes points.csv and the one score table of a sweep.

    Args:
        points: One mapping per point and evaluation with `point`, `label`, `swept` (dotted key -> value), `block`,
            `seed`, `group` and `evaluation`; if there are several sets of baselines (points with different STFTs), also
            `baselines`, the `evaluation` in the rows of the baselines to use.
        scores: Score files of all points and baselines; duplicates count once.
        validations: Score files on the validation split, where `points` name one (`validation`) and its
            `validation_metric`; the mean is `validation_score` in points.csv.
        files: Sweep whose `points` (`point`, `label`, the swept keys, `block`, `seed`, `group`, `evaluation` and, if
            given, `baselines`) and `scores` are written. In points.csv strings are written as they are and other values
            as JSON; '' means that the point does not have the key. In scores.parquet, columns that a file lacks are
            null.

    Raises:
        UserError: Two files have rows for the same estimate, or a column has two types.
    """
    with atomic_path(files.points) as temporary:
        _points_table(_with_validation_scores(points, validations)).to_csv(temporary, index=False, lineterminator="\n")
    paths = list(dict.fromkeys(map(Path, scores)))
    joined = _joined_scores(paths)
    scored = set(joined["point"].unique().to_pylist())
    for point in dict.fromkeys(point["point"] for point in points):
        if point not in scored:
            log.warning("%s has no scores", point)
    user_metrics = {name: fields for path in paths for name, fields in read_user_metrics(path).items()}
    metrics = metric_columns(joined.slice(0, 1).to_pandas())
    conditions = [name for name in joined.column_names if name not in SCORE_KEYS and name not in metrics]
    with atomic_path(files.scores) as temporary:
        table = joined.select([*SCORE_KEYS, *metrics, *conditions])
        pq.write_table(with_user_metrics(table, user_metrics) if user_metrics else table, temporary)


def _with_validation_scores(points: Sequence[Mapping], validations: Sequence[Path]) -> list[Mapping]:
    """The points with their mean scores on the validation split, where they name one."""
    tables = {(path.parent.parent.parent.name, path.parent.name): path for path in validations}
    found = []
    for point in points:
        path = tables.get((point["point"], point.get("validation", "")))
        if path is not None:
            column = pq.read_table(path, columns=[point["validation_metric"]])[0]
            score = float(statistics.mean_of_scores(column.to_numpy()))
            point = {**point, "validation_score": f"{score:.6g}" if np.isfinite(score) else ""}
        found.append(point)
    return found


def _points_table(points: Sequence[Mapping]) -> pd.DataFrame:
    keys = list(dict.fromkeys(key for point in points for key in point["swept"]))
    rows = []
    for point in points:
        row = {"point": point["point"], "label": point["label"]}
        row |= {key: to_csv_text(point["swept"][key]) if key in point["swept"] else "" for key in keys}
        for name in ("block", "seed", "group", "evaluation", "baselines", *VALIDATION_COLUMNS):
            value = point.get(name, "")
            if isinstance(value, (list, tuple)):
                value = "+".join(map(str, value))
            row[name] = "" if value is None else value
        rows.append(row)
    optional = ("baselines", *VALIDATION_COLUMNS)
    table = pd.DataFrame(rows, columns=["point", "label", *keys, "block", "seed", "group", "evaluation", *optional])
    table = table.drop_duplicates(["point", "evaluation"])
    return table.drop(columns=[name for name in optional if (table[name] == "").all()])


def _joined_scores(files: Sequence[Path]) -> pa.Table:
    try:
        # the pandas metadata of single files describe their own index
        tables = [pq.read_table(path).replace_schema_metadata(None) for path in files]
        joined = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"the score files of the sweep have different column types: {error}") from error
    keys = joined.select(list(SCORE_KEYS)).to_pandas()
    duplicated = keys.duplicated()
    if duplicated.any():
        duplicate = keys[duplicated].iloc[0].to_dict()
        raise UserError(f"several score files contain {duplicate}; expected each estimate to be scored once")
    return joined


def summarize_sweep(files: SweepFiles, artifacts: Path) -> None:
    """Writes summary.csv, comparisons.csv, groups.csv and conditions.csv from points.csv and scores.parquet.

    - summary.csv has one row per point and evaluation and per baseline: `point`, `evaluation`, `label`, swept keys,
      `validation_loss`, `validation_metric` and `validation_score` if points are chosen by one, `<metric>`,
      `<metric>_low`, `<metric>_high`, `<metric>_median`, `<metric>_median_low`, `<metric>_median_high`, `oracle_share`,
      `items`, `<metric>:<source>` (see `_add_sources`), costs of the network (`costs.NETWORK_COSTS`), `non_finite`
      (estimates without scores because of NaN or infinite samples, which the means leave out), `best`, and `data` if
      points have different data, between which there is no best point; see `data_sets`.
    - comparisons.csv has paired differences: `difference` is `point` minus `against`, positive where `point` is better.
      `kind` is `best` (each network against the best), `pair` (all pairs of up to 20 networks), `baseline` (the best
      network against each baseline), `effect` (a swept key's value `label` against the best's value `against_label`,
      over pairs of points alike in everything else; `pairs_better` counts the pairs in favour of `label`), `group`,
      `group_pair`, `group_baseline`: see `SeedGroups.compare`. Where settings were trained several times, they are
      compared instead of networks. `family`, `p_value`, `p_adjusted`, `verdict`: see `families.judge`. `question` is
      `network` (is this trained network better?) or `setting` (is this setting better when trained again?), `unit` what
      the p-value allows for.
    - groups.csv is `SeedGroups.table`.
    - metrics.csv has the unit, the direction and the definition of every metric.
    - conditions.csv is `conditions.analyze_conditions`: of all points of small sweeps, else of the best point and the
      baselines.

    Means are unweighted over items and sources. Intervals of summary.csv and conditions.csv are 95 % intervals over
    songs, or over speakers if they are known, each for itself; those of comparisons.csv hold together for a family. The
    best point is the one with the lowest validation loss; test scores play no part in the choice.

    Args:
        files: Sweep with the tables that `collect_scores` wrote.
        artifacts: Folder of the points, with their histories.
    """
    points, table = read_points(files.points), read_scores(files.scores)
    losses = {point: lowest_validation_loss(history) for point, history in read_histories(points, artifacts).items()}
    matrices = {metric: score_matrix(table, metric) for metric in metric_columns(table)}
    primary = primary_metric(list(matrices))
    clusters, unit = clusters_of(table, matrices[primary].index), unit_of(table)
    # Baselines last, in any order of the files
    rows: list[Row] = sorted(matrices[primary].columns, key=lambda row: _rank(row[0]))
    points = _with_evaluations(points, rows)
    definitions = all_definitions(read_user_metrics(files.scores))
    criterion, data = selection(points, losses, definitions), data_sets(table, artifacts)
    chosen = {} if data else criterion
    best = best_point(points, chosen)

    summary = pd.DataFrame(_summary_rows(points, rows, losses))
    for metric, matrix in matrices.items():
        _add_intervals(summary, metric, matrix[rows], clusters)
    oracle_metric = next((metric for metric in ("SI-SDR", "SDR") if metric in matrices), primary)
    summary["oracle_share"] = _oracle_shares(points, summary, matrices[oracle_metric])
    present = np.isfinite(matrices[primary]).groupby(level=["dataset", "split", "item"]).any().sum()
    summary["items"] = [int(present.get((row.point, row.evaluation), 0)) for row in summary.itertuples()]
    _add_sources(summary, table, list(matrices))
    costs = [network_costs(artifacts, row.point, row.evaluation) for row in summary.itertuples()]
    summary = summary.assign(**{name: [of_row[name] for of_row in costs] for name in NETWORK_COSTS})
    summary[NON_FINITE] = _non_finite(summary, table)
    summary["best"] = summary["point"] == best
    if data:
        summary["data"] = [data.get((row.point, row.evaluation), "") for row in summary.itertuples()]
    _write_csv(summary, files.summary)

    shares = dict(zip(zip(summary["point"], summary["evaluation"], strict=True), summary["oracle_share"], strict=True))
    # the mean that groups have is no cSDR
    of_items = {metric: matrix for metric, matrix in matrices.items() if metric != CHUNK_SDR}
    groups = SeedGroups(points, of_items, clusters, unit, chosen, shares)
    compared = Comparisons(points, matrices[primary], primary, clusters, unit)
    # Seeds of one setting do not compete: with several trainings of a setting, settings are compared
    found = [] if groups.several else compared.of_networks(best)
    reference = groups.members[groups.best][0] if groups.best else compared.row_of(best)
    found += compared.with_baselines(best) + compared.of_effects(reference, several=groups.several)
    of_settings, sizes = groups.compare(compared)
    judged = judge(found + of_settings, unit, sizes)
    if primary in definitions and definitions[primary].direction == "lower is better":
        judged = [lower_is_better(row) for row in judged]
    _write_csv(_metrics_table(list(matrices), definitions), files.metrics)
    _write_csv(pd.DataFrame(judged, columns=COMPARISON_COLUMNS), files.comparisons)
    _write_csv(_with_losses(groups, points, losses, criterion, definitions), files.groups)
    few = len(compared.rows) <= MAX_POINTS_FOR_ALL_PAIRS
    shown = [row for row in rows if few or row[0] == best or is_reference(row[0])]
    _write_csv(analyze_conditions(table, shown, primary), files.conditions)


def _rank(point: str) -> int:
    """The place of a row: points, then systems of other programs, then baselines in their order."""
    return list(BASELINES).index(point) + 2 if point in BASELINES else int(is_system(point))


def _with_losses(
    groups: SeedGroups,
    points: pd.DataFrame,
    losses: Mapping[str, float],
    chosen: Mapping[str, float],
    definitions: Mapping[str, MetricDefinition],
) -> pd.DataFrame:
    """groups.csv with the means of what settings are chosen by: the validation loss, or the validation score."""
    table, metric = groups.table(), validation_metric(points)
    if table.empty:
        return pd.DataFrame(columns=["group", "label", "evaluation", "seeds", "validation_loss"])
    columns = [("validation_loss", losses, 1.0)]
    if metric:
        sign = 1.0 if definitions[metric].direction == "lower is better" else -1.0
        columns.append(("validation_score", chosen, sign))
    for name, values, factor in columns:
        members = [[point for point, _ in groups.members[group]] for group in table["group"]]
        table[name] = [factor * np.mean([values.get(point, np.nan) for point in of_group]) for of_group in members]
    return table


def _metrics_table(names: Sequence[str], definitions: Mapping[str, MetricDefinition]) -> pd.DataFrame:
    """One row per metric: `metric`, `unit`, `direction`, `definition`, `source`."""
    fields = ("unit", "direction", "definition", "source")
    known = [{key: getattr(definitions[name], key) for key in fields} if name in definitions else {} for name in names]
    rows = [{"metric": name, **row} for name, row in zip(names, known, strict=True)]
    return pd.DataFrame(rows, columns=["metric", *fields])


def _add_intervals(summary: pd.DataFrame, metric: str, matrix: pd.DataFrame, clusters: np.ndarray) -> None:
    """Adds the columns of one metric: mean and median, each with its interval."""
    mean = interval_of_mean(matrix.to_numpy(), clusters)
    median = interval_of_median(matrix.to_numpy(), clusters)
    rows = pd.MultiIndex.from_frame(summary[["point", "evaluation"]])
    for name, interval in ((metric, mean), (f"{metric}_median", median)):
        for suffix, values in (("", interval.mean), ("_low", interval.low), ("_high", interval.high)):
            of_row = pd.Series(values, index=pd.MultiIndex.from_tuples(list(matrix.columns)))
            summary[f"{name}{suffix}"] = of_row.reindex(rows).to_numpy()


def _add_sources(summary: pd.DataFrame, table: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Adds the mean of each metric by source, `<metric>:<source>`, where all items have the same sources.

    cSDR is the median over songs instead, as papers state it, and its overall value the mean of the sources: the
    columns `cSDR`, `cSDR:<source>`. A song of several items counts once, with their median. It has no interval.
    """
    sources = table.groupby(["dataset", "split", "item"])["source"].agg(frozenset)
    same = sources.nunique() == 1 and len(sources.iloc[0]) <= MAX_SOURCES
    rows = pd.MultiIndex.from_frame(summary[["point", "evaluation"]])
    keys = ["point", "evaluation", "source"]
    for metric in metrics:
        if metric == CHUNK_SDR:
            songs = table.groupby([*keys, "dataset", "split", "cluster"])[metric].median()
            values = songs.groupby(keys).median().unstack("source")
            summary[metric] = values.mean(axis=1).reindex(rows).to_numpy()
            summary[[f"{metric}_low", f"{metric}_high"]] = np.nan
        else:
            values = table.groupby(keys)[metric].mean().unstack("source")
        if same:
            for source in sorted(values.columns):
                summary[f"{metric}:{source}"] = values[source].reindex(rows).to_numpy()


def _non_finite(summary: pd.DataFrame, table: pd.DataFrame) -> list[int]:
    """The number of estimates with NaN or infinite samples of each row; 0 for tables from before they were counted."""
    if NON_FINITE not in table:
        return [0] * len(summary)
    broken = table[table[NON_FINITE].fillna(False).astype(bool)].groupby(["point", "evaluation"]).size()
    return [int(broken.get(row, 0)) for row in zip(summary["point"], summary["evaluation"], strict=True)]


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def best_point(points: pd.DataFrame, chosen: Mapping[str, float]) -> str | None:
    """The point with the lowest finite number of `selection`, the first of equal ones; None if none is known."""
    known = {point: chosen[point] for point in points["point"] if np.isfinite(chosen.get(point, np.nan))}
    return min(known, key=known.get) if known else None


def _with_evaluations(points: pd.DataFrame, rows: list[Row]) -> pd.DataFrame:
    """Fills in the evaluation of points without one, if their scores have only one."""
    points = points.copy()
    for index, row in points.iterrows():
        if row["evaluation"] == "":
            known = [evaluation for point, evaluation in rows if point == row["point"]]
            points.loc[index, "evaluation"] = known[0] if known else ""
    return points


def _summary_rows(points: pd.DataFrame, rows: list[Row], losses: Mapping[str, float]) -> list[dict]:
    keys, scored = swept_keys(points), bool(validation_metric(points))
    summary = []
    for _, point in points.iterrows():
        row = {"point": point["point"], "evaluation": point["evaluation"], "label": point["label"]}
        summary.append(
            row | {key: point[key] for key in keys} | {"validation_loss": losses.get(point["point"], np.nan)}
        )
        if scored:
            score = as_number(point["validation_score"])
            summary[-1] |= {"validation_metric": point["validation_metric"], "validation_score": score}
    for name, evaluation in rows:
        if is_reference(name):
            row = {"point": name, "evaluation": evaluation, "label": reference_label(name)}
            summary.append(row | dict.fromkeys(keys, "") | {"validation_loss": np.nan})
    return summary


def _oracle_shares(points: pd.DataFrame, summary: pd.DataFrame, matrix: pd.DataFrame) -> list[float]:
    shares = []
    for row in zip(summary["point"], summary["evaluation"], strict=True):
        if row not in matrix.columns:
            shares.append(float("nan"))
            continue
        baselines = baselines_for(points, row, matrix)
        if "mixture" in baselines and ORACLE in baselines:
            floor, ceiling = matrix[baselines["mixture"]], matrix[baselines[ORACLE]]
            shares.append(statistics.oracle_share(matrix[row].to_numpy(), floor.to_numpy(), ceiling.to_numpy()))
        else:
            shares.append(float("nan"))
    return shares
