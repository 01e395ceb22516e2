"""Merging a table into a worksheet: the cells to write, regardless of how they are sent.

A worksheet belongs to the people who use it: they add and move columns, sort rows and write beside the results. So
columns are found by title, rows by point and evaluation, and only cells with a different value are written. New columns
go to the right, new rows to the bottom.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from separation.errors import UserError
from separation.publishing.sheet_table import EVALUATION, POINT, Cell, Column, Link, SheetTable

TITLE_ROWS = 10  # the titles must be in one of the first rows
LONGEST_TEXT = 50_000  # characters, the limit of a cell in Google Sheets
# titles in a sheet of cookiecutter-nussl for metrics that have more precise names here
_OLDER_NAMES = {"SI-SDR": "SDR", "SI-SIR": "SIR", "SI-SAR": "SAR"}
_HYPERLINK = re.compile(r'=HYPERLINK\(\s*"((?:[^"]|"")*)"\s*[;,]\s*"((?:[^"]|"")*)"\s*\)', re.IGNORECASE)
# text that Google Sheets keeps as text when entered: words and ids, no dates, numbers, booleans or formulas
_PLAIN_TEXT = re.compile(r"(?!(?:true|false)$)[a-z](?:[^\W\d]|[ .,:;()#-])*|[a-z][\w.-]*_[\w.-]*", re.IGNORECASE)

Scalar = str | int | float


@dataclass
class Changes:
    """Changes to make to a worksheet.

    Attributes:
        blocks: Rectangles of cells, as lists of rows, by (row, column) of their upper left corner, counted from 1.
        rows, columns: Size that the worksheet must have.
        added, changed: Number of new rows, and of existing rows with different values.
    """

    blocks: dict[tuple[int, int], list[list[Scalar]]] = field(default_factory=dict)
    rows: int = 0
    columns: int = 0
    added: int = 0
    changed: int = 0


def changes_of(values: Sequence[Sequence[Scalar]], table: SheetTable, worksheet: str) -> Changes:
    """The changes after which a worksheet holds the table.

    Args:
        values: Cells of the worksheet as entered (formulas as formulas), by row; trailing empty cells may be missing.
        table: Table to merge into it.
        worksheet: Name of the worksheet, for errors.

    Raises:
        UserError: The worksheet holds something else: it has no such titles.
    """
    cells: dict[tuple[int, int], Scalar] = {}
    title_row, positions = _column_positions(values, table, worksheet, cells)
    known = _known_rows(values, title_row, positions)
    changes = Changes(rows=len(values), columns=max((len(row) for row in values), default=0))
    last = max(len(values), title_row)
    for row in table.rows:
        key = (_text(row.get(POINT)), _text(row.get(EVALUATION)))
        number = known.get(key)
        before = len(cells)
        if number is None:
            last += 1
            number = known[key] = last
            changes.added += 1
            before = None
        for column, position in positions.items():
            cell = row.get(column)
            if not _same(_at(values, number, position), cell):
                cells[number, position] = as_typed(cell)
        if before is not None and len(cells) > before:
            changes.changed += 1
    changes.blocks = _blocks(cells)
    changes.rows = max([changes.rows, *(row for row, _ in cells)])
    changes.columns = max([changes.columns, *(column for _, column in cells)])
    return changes


def as_typed(cell: Cell) -> Scalar:
    """A cell as a person would type it, so that text stays text with any first character."""
    if cell is None:
        return ""
    if isinstance(cell, Link):
        return '=HYPERLINK("{}","{}")'.format(*(text.replace('"', '""') for text in (cell.url, cell.label)))
    if isinstance(cell, str) or cell in (float("inf"), float("-inf")):
        text = str(cell)
        if len(text) > LONGEST_TEXT:
            text = text[: LONGEST_TEXT - 1] + "…"
        if text and not _PLAIN_TEXT.fullmatch(text):
            # the apostrophe marks text and is not part of it
            text = f"'{text[: LONGEST_TEXT - 1]}"
        return text
    return cell


def _column_positions(
    values: Sequence[Sequence[Scalar]], table: SheetTable, worksheet: str, cells: dict[tuple[int, int], Scalar]
) -> tuple[int, dict[Column, int]]:
    """The row of titles and the position of every column; adds missing titles to `cells`."""
    title_row = next((n for n, row in enumerate(values[:TITLE_ROWS], 1) if POINT.name in map(str, row)), None)
    if title_row is None:
        if any(str(cell).strip() for row in values for cell in row):
            raise UserError(
                f"expected a column '{POINT.name}' in the first {TITLE_ROWS} rows, found none; use an empty or a new "
                "worksheet",
                file=f"worksheet {worksheet}",
            )
        title_row = 2
    titles = _titles(values, title_row)
    width = max((len(row) for row in values), default=0)
    positions: dict[Column, int] = {}
    group_before = None
    for column in table.columns:
        position = _find(titles, column, table.columns)
        if position is None:
            width += 1
            position = width
            cells[title_row, position] = as_typed(column.name)
            if title_row > 1 and column.group != group_before:
                cells[title_row - 1, position] = as_typed(column.group)
            group_before = column.group
        else:
            group_before = None
        positions[column] = position
    return title_row, positions


def _titles(values: Sequence[Sequence[Scalar]], title_row: int) -> dict[tuple[str, str], int]:
    """The position of each title, by group and name in lower case; only the first cell of a group has its name."""
    names = values[title_row - 1] if title_row <= len(values) else []
    groups = values[title_row - 2] if 1 < title_row <= len(values) else []
    found: dict[tuple[str, str], int] = {}
    group = ""
    for index, name in enumerate(names):
        if index < len(groups) and str(groups[index]).strip():
            group = str(groups[index]).strip().lower()
        found.setdefault((group, str(name).strip().lstrip("'").lower()), index + 1)
    return found


def _find(titles: Mapping[tuple[str, str], int], column: Column, columns: Sequence[Column]) -> int | None:
    group, name = column.group.lower(), column.name.lower()
    if column.group == POINT.group or column == EVALUATION:
        # users may rename the first group
        return next((position for (_, title), position in titles.items() if title == name), None)
    older = _OLDER_NAMES.get(column.name, "")
    names = [name] if not older or Column(column.group, older) in columns else [name, older.lower()]
    return next((titles[group, title] for title in names if (group, title) in titles), None)


def _known_rows(
    values: Sequence[Sequence[Scalar]], title_row: int, positions: Mapping[Column, int]
) -> dict[tuple[str, str], int]:
    known: dict[tuple[str, str], int] = {}
    for number in range(title_row + 1, len(values) + 1):
        point = _shown(_at(values, number, positions[POINT]))
        if point:
            known.setdefault((point, _shown(_at(values, number, positions[EVALUATION]))), number)
    return known


def _at(values: Sequence[Sequence[Scalar]], row: int, column: int) -> Scalar:
    if row > len(values) or column > len(values[row - 1]):
        return ""
    return values[row - 1][column - 1]


def _shown(entry: Scalar) -> str:
    """The text that a cell shows: a link's label, or text without its leading apostrophe."""
    link = _HYPERLINK.fullmatch(str(entry))
    text = link.group(2).replace('""', '"') if link else str(entry)
    return text[1:] if text.startswith("'") else text


def _text(cell: Cell) -> str:
    return cell.label if isinstance(cell, Link) else "" if cell is None else str(cell)


def _same(existing: Scalar, cell: Cell) -> bool:
    if isinstance(cell, Link):
        link = _HYPERLINK.fullmatch(str(existing))
        return link is not None and tuple(part.replace('""', '"') for part in link.groups()) == (cell.url, cell.label)
    if isinstance(cell, (int, float)) and cell not in (float("inf"), float("-inf")):
        try:
            return existing != "" and float(existing) == float(cell)
        except ValueError:
            return False
    wanted = as_typed(cell)
    return str(existing) == wanted or (isinstance(wanted, str) and wanted[:1] == "'" and str(existing) == wanted[1:])


def _blocks(cells: Mapping[tuple[int, int], Scalar]) -> dict[tuple[int, int], list[list[Scalar]]]:
    """Groups cells into rectangles: adjacent cells of a row first, then adjacent rows over the same columns."""
    runs: list[tuple[int, int, list[Scalar]]] = []
    for (row, column), value in sorted(cells.items()):
        if runs and runs[-1][0] == row and runs[-1][1] + len(runs[-1][2]) == column:
            runs[-1][2].append(value)
        else:
            runs.append((row, column, [value]))
    blocks: dict[tuple[int, int], list[list[Scalar]]] = {}
    open_blocks: dict[tuple[int, int], tuple[int, int]] = {}
    for row, column, values in runs:
        start = open_blocks.get((column, len(values)))
        if start is not None and start[0] + len(blocks[start]) == row:
            blocks[start].append(values)
        else:
            blocks[row, column] = [values]
            open_blocks[column, len(values)] = (row, column)
    return blocks
