"""Upload of a sweep's table to Google Sheets, in a number of calls that does not depend on the table's size.

An existing worksheet takes 4 calls (find the spreadsheet, list its worksheets, read, write), a new one takes 5. The
search is skipped when the spreadsheet is known. A full worksheet grows in the call that writes. A table without changes
is not written.
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
from separation.publishing.google_client import RetryingClient, connect, explain
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
    """Writes a table to a worksheet: updates the rows of known points and adds the others below.

    Calling it again with the same table writes nothing. Other columns of the worksheet stay unchanged.

    Args:
        table: Table to write.
        credentials: JSON key file of a service account that may edit the spreadsheet.
        spreadsheet: Name, key or address of the spreadsheet.
        worksheet: Name of the worksheet, which is created if missing.
        template: Name of a worksheet to copy new ones from, if it exists.
        known: Receipt of an earlier call, which saves the search by name.
        patience: Longest total time of failed attempts and the waits after them, in seconds.

    Returns:
        Receipt with `spreadsheet` (name), `id`, `worksheet`, `url`, `rows`, `added`, `changed`, `calls`.

    Raises:
        UserError: Cause and remedy, in one line.
    """
    client, account = connect(credentials, patience)
    try:
        upload = _Upload(client, spreadsheet, worksheet, account)
        return upload.run(table, template, known or {})
    except (APIError, requests.RequestException, GoogleAuthError) as error:
        raise explain(error, spreadsheet=spreadsheet, account=account) from None


class _Upload:
    def __init__(self, client: gspread.Client, spreadsheet: str, worksheet: str, account: str):
        self.client, self.http = client, client.http_client
        assert isinstance(self.http, RetryingClient)
        self.spreadsheet, self.worksheet, self.account = spreadsheet, worksheet, account

    def run(self, table: SheetTable, template: str | None, known: Mapping[str, Any]) -> dict[str, Any]:
        key, sheets = self._open(known)
        sheet = sheets.get(self.worksheet)
        new, copied = sheet is None, False
        if sheet is None:
            sheet, copied = self._create(key, sheets, template, table)
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
        """The spreadsheet's key and the properties of its worksheets by name."""
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
                f"no spreadsheet of this name is shared with {self.account}; create one, and share it with that "
                "address as an editor (Share, in the spreadsheet's window)",
                file=f"spreadsheet {self.spreadsheet}",
            )
        if len(found) > 1:
            raise UserError(
                f"{len(found)} spreadsheets have this name; use the address of the one you mean",
                file=f"spreadsheet {self.spreadsheet}",
            )
        return found[0], self._sheets(found[0])

    def _sheets(self, key: str) -> dict[str, dict[str, Any]]:
        metadata = self.http.fetch_sheet_metadata(key)
        return {sheet["properties"]["title"]: sheet["properties"] for sheet in metadata["sheets"]}

    def _create(
        self, key: str, sheets: Mapping[str, dict[str, Any]], template: str | None, table: SheetTable
    ) -> tuple[dict[str, Any], bool]:
        """Creates the worksheet; returns its properties, and whether it is a copy of the template."""
        source = sheets.get(template) if template else None
        if source is not None:
            request = {"duplicateSheet": {"sourceSheetId": source["sheetId"], "newSheetName": self.worksheet}}
        else:
            grid = {"rowCount": NEW_ROWS, "columnCount": len(table.columns) + SPARE_COLUMNS}
            request = {"addSheet": {"properties": {"title": self.worksheet, "gridProperties": grid}}}
        try:
            reply = self.http.batch_update(key, {"requests": [request]})["replies"][0]
            return next(iter(reply.values()))["properties"], source is not None
        except APIError as error:
            # it exists if an attempt whose response was lost, or another person, has just created it
            existing = self._sheets(key).get(self.worksheet) if error.response.status_code == 400 else None
            if existing is None:
                raise
            return existing, True

    def _read(self, key: str) -> list[list[Any]]:
        options = {"valueRenderOption": "FORMULA", "majorDimension": "ROWS"}
        return self.http.values_get(key, absolute_range_name(self.worksheet), params=options).get("values", [])

    def _write(self, key: str, sheet: Mapping[str, Any], changes: Changes) -> None:
        growth = _growth(sheet, changes)
        if growth:
            try:
                # one call makes room in a full worksheet and writes its cells
                self.http.batch_update(key, {"requests": growth + _cells(sheet["sheetId"], changes)})
                return
            except APIError as error:
                if error.response.status_code != 400:
                    raise
            self.http.batch_update(key, {"requests": growth})
        data = [
            {"range": absolute_range_name(self.worksheet, _range(corner, block)), "values": block}
            for corner, block in changes.blocks.items()
        ]
        self.http.values_batch_update(key, {"valueInputOption": "USER_ENTERED", "data": data})

    def _format(self, key: str, sheet: Mapping[str, Any], table: SheetTable) -> None:
        """Sets bold, frozen titles, merged group titles, and two decimals."""
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
    """Requests that enlarge the grid, with some spare room; empty if it is large enough."""
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
    """The blocks as requests of a batch update, which never reinterprets text."""
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
    """A value of `sheet_merge.as_typed` with its type; an empty cell has none."""
    if not isinstance(value, str):
        return {"numberValue": value}
    if value.startswith("="):
        return {"formulaValue": value}
    return {"stringValue": value.removeprefix("'")} if value else {}


def _range(corner: tuple[int, int], block: list[list[Any]]) -> str:
    row, column = corner
    return f"{rowcol_to_a1(row, column)}:{rowcol_to_a1(row + len(block) - 1, column + len(block[0]) - 1)}"
