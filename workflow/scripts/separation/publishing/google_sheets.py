"""Writes the table of a sweep to a worksheet of Google Sheets, in a number of calls that does not depend on its size.

An existing worksheet takes 4 (find the spreadsheet, ask for its worksheets, read, write), a new one 5. A spreadsheet
that was found before is not searched again. A full worksheet grows in the call that writes. Nothing is written where
nothing has changed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gspread
import requests
from google.auth.exceptions import GoogleAuthError
from gspread.exceptions import APIError
from gspread.utils import absolute_range_name, rowcol_to_a1

from separation.errors import UserError
from separation.publishing.google_client import BoundedClient, connect, explained
from separation.publishing.sheet_merge import Changes, changes_of
from separation.publishing.sheet_table import DECIMALS, SETTINGS, SheetTable, runs_of_groups

logger = logging.getLogger(__name__)

NEW_ROWS, SPARE_COLUMNS = 2000, 12
_KEY = re.compile(r"(?:https://docs\.google\.com/spreadsheets/d/)?([\w-]{30,})(?:[/?#].*)?")


def upload_sheet(
    table: SheetTable,
    *,
    credentials: Path,
    spreadsheet: str,
    worksheet: str,
    template: str | None = None,
    known: Mapping[str, Any] | None = None,
    patience: float = 90.0,
) -> dict[str, Any]:
    """Writes a table to a worksheet: rows of points that stand there are brought up to date, new ones are added below.

    The same call again writes nothing. Columns that are not the table's, wherever they stand, are left as they are.

    Args:
        table: what to write.
        credentials: the JSON key file of a service account that may edit the spreadsheet.
        spreadsheet: its name, key or address.
        worksheet: its name; it is made where it is missing.
        template: the worksheet that new ones are copied from, where there is one of that name.
        known: what an earlier call gave, to spare the search by name.
        patience: seconds to wait in all where Google says that it is busy.

    Returns:
        the receipt: `spreadsheet` (name), `id`, `worksheet`, `url`, `rows`, `added`, `changed`, `calls`.

    Raises:
        UserError: what is wrong and what to do, in one line.
    """
    client, account = connect(credentials, patience)
    try:
        upload = _Upload(client, spreadsheet, worksheet, account)
        return upload.run(table, template, known or {})
    except (APIError, requests.RequestException, GoogleAuthError) as problem:
        raise explained(problem, spreadsheet=spreadsheet, account=account) from None


class _Upload:
    def __init__(self, client: gspread.Client, spreadsheet: str, worksheet: str, account: str):
        self.client, self.http = client, client.http_client
        assert isinstance(self.http, BoundedClient)
        self.spreadsheet, self.worksheet, self.account = spreadsheet, worksheet, account

    def run(self, table: SheetTable, template: str | None, known: Mapping[str, Any]) -> dict[str, Any]:
        key, sheets = self._open(known)
        sheet = sheets.get(self.worksheet)
        new, copied = sheet is None, False
        if sheet is None:
            sheet, copied = self._make(key, sheets, template, table)
        values = [] if new and not copied else self._read(key)
        changes = changes_of(values, table, self.worksheet)
        if changes.blocks:
            self._write(key, sheet, changes)
        if new and not copied:
            self._format(key, sheet, table)
        logger.info(
            "%s, %s: %d rows added, %d changed, %d calls",
            *(self.spreadsheet, self.worksheet, changes.added, changes.changed, self.http.calls),
        )
        return {
            "spreadsheet": self.spreadsheet,
            "id": key,
            "worksheet": self.worksheet,
            "url": f"https://docs.google.com/spreadsheets/d/{key}/edit#gid={sheet['sheetId']}",
            "rows": len(table.rows),
            "added": changes.added,
            "changed": changes.changed,
            "calls": self.http.calls,
        }

    def _open(self, known: Mapping[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
        """The spreadsheet's key and its worksheets' properties by name."""
        given = _KEY.fullmatch(self.spreadsheet)
        if given:
            return given.group(1), self._sheets(given.group(1))
        if known.get("spreadsheet") == self.spreadsheet and known.get("id"):
            try:
                return known["id"], self._sheets(known["id"])
            except APIError as gone:
                if gone.response.status_code not in (403, 404):
                    raise
        title = self.spreadsheet.replace("\\", "\\\\").replace('"', '\\"')
        found = [file["id"] for file in self.client.list_spreadsheet_files(title) if file["name"] == self.spreadsheet]
        if not found:
            raise UserError(
                f"{self.account} finds no spreadsheet of this name; make one, and share it with that address as an "
                "editor (Share, in the spreadsheet's window)",
                file=f"spreadsheet {self.spreadsheet}",
            )
        if len(found) > 1:
            raise UserError(
                f"{len(found)} spreadsheets have this name; give the address of the one you mean",
                file=f"spreadsheet {self.spreadsheet}",
            )
        return found[0], self._sheets(found[0])

    def _sheets(self, key: str) -> dict[str, dict[str, Any]]:
        metadata = self.http.fetch_sheet_metadata(key)
        return {sheet["properties"]["title"]: sheet["properties"] for sheet in metadata["sheets"]}

    def _make(
        self, key: str, sheets: Mapping[str, dict[str, Any]], template: str | None, table: SheetTable
    ) -> tuple[dict[str, Any], bool]:
        """Makes the worksheet: its properties, and whether it is a copy of the template."""
        source = sheets.get(template) if template else None
        if source is not None:
            request = {"duplicateSheet": {"sourceSheetId": source["sheetId"], "newSheetName": self.worksheet}}
        else:
            grid = {"rowCount": NEW_ROWS, "columnCount": len(table.columns) + SPARE_COLUMNS}
            request = {"addSheet": {"properties": {"title": self.worksheet, "gridProperties": grid}}}
        try:
            reply = self.http.batch_update(key, {"requests": [request]})["replies"][0]
            return next(iter(reply.values()))["properties"], source is not None
        except APIError as refusal:
            # made by an attempt whose answer was lost, or by someone else in this moment
            there = self._sheets(key).get(self.worksheet) if refusal.response.status_code == 400 else None
            if there is None:
                raise
            return there, True

    def _read(self, key: str) -> list[list[Any]]:
        options = {"valueRenderOption": "FORMULA", "majorDimension": "ROWS"}
        return self.http.values_get(key, absolute_range_name(self.worksheet), params=options).get("values", [])

    def _write(self, key: str, sheet: Mapping[str, Any], changes: Changes) -> None:
        growth = _growth(sheet, changes)
        if growth:
            try:
                # a worksheet that is full takes its cells in the call that makes room for them
                self.http.batch_update(key, {"requests": growth + _cells(sheet["sheetId"], changes)})
                return
            except APIError as refusal:
                if refusal.response.status_code != 400:
                    raise
            self.http.batch_update(key, {"requests": growth})
        data = [
            {"range": absolute_range_name(self.worksheet, _range(place, block)), "values": block}
            for place, block in changes.blocks.items()
        ]
        self.http.values_batch_update(key, {"valueInputOption": "USER_ENTERED", "data": data})

    def _format(self, key: str, sheet: Mapping[str, Any], table: SheetTable) -> None:
        """Titles in bold and held while scrolling, groups merged, two decimals."""
        sheet_id = sheet["sheetId"]

        def part(first_row: int, last_row: int | None, first: int, last: int) -> dict[str, int]:
            rows = {"startRowIndex": first_row} | ({} if last_row is None else {"endRowIndex": last_row})
            return {"sheetId": sheet_id, **rows, "startColumnIndex": first, "endColumnIndex": last}

        bold = {"textFormat": {"bold": True}, "horizontalAlignment": "CENTER", "wrapStrategy": "WRAP"}
        decimals = {"numberFormat": {"type": "NUMBER", "pattern": "0." + "0" * DECIMALS}}
        formats: list[dict[str, Any]] = [
            {
                "repeatCell": {
                    "range": part(0, 2, 0, len(table.columns)),
                    "cell": {"userEnteredFormat": bold},
                    "fields": "userEnteredFormat(textFormat,horizontalAlignment,wrapStrategy)",
                }
            },
            {
                "updateSheetProperties": {
                    "properties": {"sheetId": sheet_id, "gridProperties": {"frozenRowCount": 2}},
                    "fields": "gridProperties.frozenRowCount",
                }
            },
        ]
        for group, first, last in runs_of_groups(table.columns):
            if last > first:
                formats.append({"mergeCells": {"range": part(0, 1, first, last + 1), "mergeType": "MERGE_ALL"}})
            if group != SETTINGS and any(isinstance(row.get(table.columns[first]), float) for row in table.rows):
                formats.append(
                    {
                        "repeatCell": {
                            "range": part(2, None, first, last + 1),
                            "cell": {"userEnteredFormat": decimals},
                            "fields": "userEnteredFormat.numberFormat",
                        }
                    }
                )
        self.http.batch_update(key, {"requests": formats})


def _growth(sheet: Mapping[str, Any], changes: Changes) -> list[dict[str, Any]]:
    """What makes the grid as large as it has to be, with room to spare; nothing where it is."""
    grid = sheet.get("gridProperties", {})
    return [
        {"appendDimension": {"sheetId": sheet["sheetId"], "dimension": name, "length": wanted - grid[count] + spare}}
        for name, count, wanted, spare in (
            ("ROWS", "rowCount", changes.rows, NEW_ROWS),
            ("COLUMNS", "columnCount", changes.columns, SPARE_COLUMNS),
        )
        if count in grid and wanted > grid[count]
    ]


def _cells(sheet_id: int, changes: Changes) -> list[dict[str, Any]]:
    """The blocks as requests of a batch update, which takes no text for something else."""
    return [
        {
            "updateCells": {
                "start": {"sheetId": sheet_id, "rowIndex": row - 1, "columnIndex": column - 1},
                "rows": [{"values": [{"userEnteredValue": _typed(value)} for value in values]} for values in block],
                "fields": "userEnteredValue",
            }
        }
        for (row, column), block in changes.blocks.items()
    ]


def _typed(value: Any) -> dict[str, Any]:
    """What `sheet_merge.entered` gave, by its kind; an empty cell is none."""
    if not isinstance(value, str):
        return {"numberValue": value}
    if value.startswith("="):
        return {"formulaValue": value}
    return {"stringValue": value.removeprefix("'")} if value else {}


def _range(place: tuple[int, int], block: list[list[Any]]) -> str:
    row, column = place
    return f"{rowcol_to_a1(row, column)}:{rowcol_to_a1(row + len(block) - 1, column + len(block[0]) - 1)}"
