"""The results table of a sweep: one row per point, evaluation and dataset, as CSV, workbook or Google sheet.

Columns come in groups, as in the sheet of cookiecutter-nussl: experiment details, then the mean metrics over all
sources, then those of each source. The swept settings follow, the scores of baselines and oracles on the same items,
and the evaluation's id, which together with the point's identifies the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from separation.analysis.comparisons import baselines_for
from separation.analysis.statistics import mean_of_scores
from separation.analysis.sweep_tables import (
    metric_columns,
    primary_metric,
    read_points,
    read_scores,
    score_matrix,
    swept_keys,
)
from separation.files.atomic import atomic_path
from separation.files.score_table import BASELINES, is_reference

# All metrics would make the sheet too wide; summary.csv has the others
SHEET_METRICS = ("SI-SDR", "SI-SIR", "SI-SAR", "SDR", "SIR", "SAR")
DECIMALS = 2
SETTINGS = "Swept settings"
DETAILS = "Experiment details (all metrics are reported with mean)"


class Column(NamedTuple):
    """A column: a group and a name, unique together."""

    group: str
    name: str

    @property
    def title(self) -> str:
        """The column's title in a table with a single row of titles."""
        return f"{self.group} {self.name}" if self.name in SHEET_METRICS else self.name


class Link(NamedTuple):
    """A cell that shows `label` and links to `url`."""

    label: str
    url: str


POINT = Column(DETAILS, "Experiment key")
NOTES = Column(DETAILS, "Notes")
TRAIN = Column(DETAILS, "Train dataset")
VALIDATION = Column(DETAILS, "Validation dataset")
TEST = Column(DETAILS, "Test dataset")
COUNT = Column(DETAILS, "#")
EVALUATION = Column("Identity", "Evaluation")

Cell = str | float | int | Link | None


@dataclass(frozen=True)
class SheetTable:
    """Columns in order, and rows as mappings from column to cell; a cell without a value is None."""

    columns: tuple[Column, ...]
    rows: tuple[Mapping[Column, Cell], ...]


@dataclass(frozen=True)
class PointFacts:
    """Details of a point besides its scores."""

    notes: str = ""
    train: str = ""
    validation: str = ""
    link: str | None = None


def sheet_table(points_csv: Path, scores: Path, facts: Mapping[str, PointFacts]) -> SheetTable:
    """The results table of a sweep.

    Args:
        points_csv, scores: Tables of the sweep, as collect_scores writes them.
        facts: Details of each point, by id.

    Returns:
        One row per point, evaluation and dataset, in the order of points.csv. Metrics are means over items (and over
        sources in the group Overall), in dB, rounded to two decimals; a mean that is not a number is None. Baselines
        and oracles are averaged over the same items, as SI-SDR (SDR where SI-SDR was not measured).
    """
    points, table = read_points(points_csv), read_scores(scores)
    point_rows = table[~table["point"].map(is_reference)]
    metrics = [name for name in SHEET_METRICS if name in metric_columns(table)] or [
        primary_metric(metric_columns(table))
    ]
    oracle_metric = next(name for name in ("SI-SDR", "SDR", metrics[0]) if name in metrics)
    sources = list(dict.fromkeys(point_rows["source"]))
    keys = swept_keys(points)
    oracles = f"Oracles ({oracle_metric})"
    columns = (
        *(POINT, NOTES, TRAIN, VALIDATION, TEST, COUNT),
        *(Column(group, metric) for group in ("Overall", *sources) for metric in metrics),
        *(Column(SETTINGS, key) for key in keys),
        *(Column(oracles, name) for name in BASELINES),
        EVALUATION,
    )
    matrix = score_matrix(table, oracle_metric)
    # rows in the order of points.csv, not in the order in which points finished
    settings = {(row["point"], row["evaluation"]): row for _, row in points.iterrows()}
    groups = point_rows.groupby(["point", "evaluation", "dataset", "split"], sort=False)
    rank = {key: number for number, key in enumerate(settings)}
    rows = []
    for (point, evaluation, dataset, split), scored in sorted(groups, key=lambda group: rank.get(group[0][:2], -1)):
        details = facts.get(point, PointFacts())
        row: dict[Column, Cell] = {
            POINT: Link(point, details.link) if details.link else point,
            NOTES: details.notes,
            TRAIN: details.train,
            VALIDATION: details.validation,
            TEST: dataset if split == "test" else f"{dataset}/{split}",
            COUNT: int(scored["item"].nunique()),
            EVALUATION: evaluation,
        }
        for group in ("Overall", *sources):
            part = scored if group == "Overall" else scored[scored["source"] == group]
            row |= {Column(group, metric): _mean(part[metric]) for metric in metrics}
        swept = settings.get((point, evaluation))
        row |= {Column(SETTINGS, key): _setting(swept[key]) for key in keys if swept is not None}
        for name, baseline in baselines_for(points, (point, evaluation), matrix).items():
            row[Column(oracles, name)] = _mean(matrix[baseline][matrix[point, evaluation].notna()])
        rows.append(row)
    return SheetTable(columns, tuple(rows))


def write_csv(table: SheetTable, path: Path) -> None:
    """Writes the table with a single row of titles; links are in a separate last column."""
    titles = [column.title for column in table.columns]
    rows = []
    for row in table.rows:
        cells = [row.get(column) for column in table.columns]
        links = [cell.url for cell in cells if isinstance(cell, Link)]
        rows.append([*(cell.label if isinstance(cell, Link) else cell for cell in cells), *(links or [None])])
    frame = pd.DataFrame(rows, columns=[*titles, "Experiment link"], dtype=object)
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def write_workbook(table: SheetTable, path: Path) -> None:
    """Writes the table as an .xlsx workbook with two frozen rows of titles and merged group titles."""
    import xlsxwriter

    with atomic_path(path) as temporary:
        # never interpret text as formulas, links or numbers
        workbook = xlsxwriter.Workbook(
            str(temporary), {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
        )
        sheet = workbook.add_worksheet("Results")
        title = workbook.add_format({"bold": True, "align": "center", "bottom": 1, "text_wrap": True})
        decimals = workbook.add_format({"num_format": "0." + "0" * DECIMALS})
        for group, first, last in runs_of_groups(table.columns):
            if last > first:
                sheet.merge_range(0, first, 0, last, group, title)
            else:
                sheet.write_string(0, first, group, title)
        for index, column in enumerate(table.columns):
            sheet.write_string(1, index, column.name, title)
        for number, row in enumerate(table.rows, start=2):
            for index, column in enumerate(table.columns):
                _write_cell(sheet, number, index, row.get(column), decimals)
        sheet.set_column(0, 0, 34)
        sheet.freeze_panes(2, 1)
        workbook.close()


def _write_cell(sheet: Any, row: int, column: int, cell: Cell, decimals: Any) -> None:
    if isinstance(cell, Link):
        sheet.write_url(row, column, cell.url, string=cell.label)
    elif isinstance(cell, int):
        sheet.write_number(row, column, cell)
    elif isinstance(cell, float) and math.isfinite(cell):
        sheet.write_number(row, column, cell, decimals)
    elif cell is not None:
        sheet.write_string(row, column, str(cell)[:32767])  # Excel's limit


def runs_of_groups(columns: Sequence[Column]) -> list[tuple[str, int, int]]:
    """Runs of adjacent columns of the same group, as (group, index of the first, index of the last)."""
    runs: list[tuple[str, int, int]] = []
    for index, column in enumerate(columns):
        if runs and runs[-1][0] == column.group:
            runs[-1] = (column.group, runs[-1][1], index)
        else:
            runs.append((column.group, index, index))
    return runs


def _mean(values: pd.Series) -> float | None:
    mean = float(mean_of_scores(values))
    return None if math.isnan(mean) else round(mean, DECIMALS)


def _setting(text: str) -> Cell:
    """A swept value of points.csv, as a number if it is one."""
    try:
        number = float(text)
    except ValueError:
        return text or None
    if not math.isfinite(number):
        return text
    return int(number) if number.is_integer() and "." not in text and "e" not in text.lower() else number
