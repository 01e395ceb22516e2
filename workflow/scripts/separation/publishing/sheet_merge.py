"""What has to be written so that a worksheet holds a table: nothing is known here of how it is sent.

A worksheet belongs to the people who look at it. They add columns, move them, sort rows and write beside the results.
So columns are found by their titles, rows by point and evaluation, and only cells of the table whose value is another
one are written; what is new goes to the right of and below what is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from separation.errors import UserError
from separation.publishing.sheet_table import EVALUATION, POINT, Cell, Column, Link, SheetTable

TITLE_ROWS = 10  # rows from the top in which the titles are looked for
LONGEST_TEXT = 50_000  # characters that Google Sheets takes in a cell
# the words that a sheet of cookiecutter-nussl has for what is measured here under its exact name
_OLDER_NAMES = {"SI-SDR": "SDR", "SI-SIR": "SIR", "SI-SAR": "SAR"}
_HYPERLINK = re.compile(r'=HYPERLINK\(\s*"((?:[^"]|"")*)"\s*[;,]\s*"((?:[^"]|"")*)"\s*\)', re.IGNORECASE)
# what Google Sheets leaves a text when it is entered: words and ids, no dates, numbers, truth values or formulas
_PLAIN_TEXT = re.compile(r"(?!(?:true|false)$)[a-z](?:[^\W\d]|[ .,:;()#-])*|[a-z][\w.-]*_[\w.-]*", re.IGNORECASE)

Scalar = str | int | float


@dataclass
class Changes:
    """What to write into a worksheet.

    Attributes:
        blocks: cells by (row, column) of their upper left corner, counted from 1; each a list of rows.
        rows, columns: how large the worksheet has to be.
        added, changed: how many rows are new, and how many of the old ones have other values now.
    """

    blocks: dict[tuple[int, int], list[list[Scalar]]] = field(default_factory=dict)
    rows: int = 0
    columns: int = 0
    added: int = 0
    changed: int = 0


def changes_of(values: Sequence[Sequence[Scalar]], table: SheetTable, worksheet: str) -> Changes:
    """What has to be written into a worksheet so that it holds the table.

    Args:
        values: the worksheet's cells as they were entered (formulas as formulas), rows from the top; empty ones at the
            ends may be missing.
        table: what it has to hold.
        worksheet: its name, for errors.

    Raises:
        UserError: the worksheet holds something else, without the titles of such a table.
    """
    cells: dict[tuple[int, int], Scalar] = {}
    title_row, places = _places(values, table, worksheet, cells)
    known = _known_rows(values, title_row, places)
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
        for column, place in places.items():
            there = _at(values, number, place)
            cell = row.get(column)
            if not _same(there, cell):
                cells[number, place] = entered(cell)
        if before is not None and len(cells) > before:
            changes.changed += 1
    changes.blocks = _blocks(cells)
    changes.rows = max([changes.rows, *(row for row, _ in cells)])
    changes.columns = max([changes.columns, *(column for _, column in cells)])
    return changes


def entered(cell: Cell) -> Scalar:
    """A cell as one types it, so that a text stays that text whatever it begins with."""
    if cell is None:
        return ""
    if isinstance(cell, Link):
        return '=HYPERLINK("{}","{}")'.format(*(text.replace('"', '""') for text in (cell.url, cell.label)))
    if isinstance(cell, str) or cell in (float("inf"), float("-inf")):
        text = str(cell)
        if len(text) > LONGEST_TEXT:
            text = text[: LONGEST_TEXT - 1] + "…"
        if text and not _PLAIN_TEXT.fullmatch(text):
            # the apostrophe says that a text follows, and is not part of it
            text = f"'{text[: LONGEST_TEXT - 1]}"
        return text
    return cell


def _places(
    values: Sequence[Sequence[Scalar]], table: SheetTable, worksheet: str, cells: dict[tuple[int, int], Scalar]
) -> tuple[int, dict[Column, int]]:
    """The row of titles and the place of every column; titles that are missing are added to `cells`."""
    title_row = next((n for n, row in enumerate(values[:TITLE_ROWS], 1) if POINT.name in map(str, row)), None)
    if title_row is None:
        if any(str(cell).strip() for row in values for cell in row):
            raise UserError(
                f"expected a column '{POINT.name}' in the first {TITLE_ROWS} rows, found none; name an empty worksheet "
                f"or a new one",
                file=f"worksheet {worksheet}",
            )
        title_row = 2
    there = _titles(values, title_row)
    width = max((len(row) for row in values), default=0)
    places: dict[Column, int] = {}
    group_before = None
    for column in table.columns:
        place = _find(there, column, table.columns)
        if place is None:
            width += 1
            place = width
            cells[title_row, place] = entered(column.name)
            if title_row > 1 and column.group != group_before:
                cells[title_row - 1, place] = entered(column.group)
            group_before = column.group
        else:
            group_before = None
        places[column] = place
    return title_row, places


def _titles(values: Sequence[Sequence[Scalar]], title_row: int) -> dict[tuple[str, str], int]:
    """Where each title stands, by group and name in lower case; a group's cells are merged, so its name stands once."""
    names = values[title_row - 1] if title_row <= len(values) else []
    groups = values[title_row - 2] if 1 < title_row <= len(values) else []
    found: dict[tuple[str, str], int] = {}
    group = ""
    for index, name in enumerate(names):
        if index < len(groups) and str(groups[index]).strip():
            group = str(groups[index]).strip().lower()
        found.setdefault((group, str(name).strip().lstrip("'").lower()), index + 1)
    return found


def _find(there: Mapping[tuple[str, str], int], column: Column, columns: Sequence[Column]) -> int | None:
    group, name = column.group.lower(), column.name.lower()
    if column.group == POINT.group or column == EVALUATION:
        # whatever the first group is called in a sheet of one's own
        return next((place for (_, title), place in there.items() if title == name), None)
    older = _OLDER_NAMES.get(column.name, "")
    names = [name] if not older or Column(column.group, older) in columns else [name, older.lower()]
    return next((there[group, title] for title in names if (group, title) in there), None)


def _known_rows(
    values: Sequence[Sequence[Scalar]], title_row: int, places: Mapping[Column, int]
) -> dict[tuple[str, str], int]:
    known: dict[tuple[str, str], int] = {}
    for number in range(title_row + 1, len(values) + 1):
        point = _shown(_at(values, number, places[POINT]))
        if point:
            known.setdefault((point, _shown(_at(values, number, places[EVALUATION]))), number)
    return known


def _at(values: Sequence[Sequence[Scalar]], row: int, column: int) -> Scalar:
    if row > len(values) or column > len(values[row - 1]):
        return ""
    return values[row - 1][column - 1]


def _shown(entry: Scalar) -> str:
    """What a cell shows: the label of a link, a text without the apostrophe that told it from a formula."""
    link = _HYPERLINK.fullmatch(str(entry))
    text = link.group(2).replace('""', '"') if link else str(entry)
    return text[1:] if text.startswith("'") else text


def _text(cell: Cell) -> str:
    return cell.label if isinstance(cell, Link) else "" if cell is None else str(cell)


def _same(there: Scalar, cell: Cell) -> bool:
    if isinstance(cell, Link):
        link = _HYPERLINK.fullmatch(str(there))
        return link is not None and tuple(part.replace('""', '"') for part in link.groups()) == (cell.url, cell.label)
    if isinstance(cell, (int, float)) and cell not in (float("inf"), float("-inf")):
        try:
            return there != "" and float(there) == float(cell)
        except ValueError:
            return False
    wanted = entered(cell)
    return str(there) == wanted or (isinstance(wanted, str) and wanted[:1] == "'" and str(there) == wanted[1:])


def _blocks(cells: Mapping[tuple[int, int], Scalar]) -> dict[tuple[int, int], list[list[Scalar]]]:
    """Single cells as rectangles: neighbours in a row first, then rows of the same columns below one another."""
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
