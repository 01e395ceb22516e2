"""A fake Google server on the loopback device: tokens, Drive's search, worksheets and cells of Sheets.

It treats cells as Google does: a leading apostrophe marks text, a leading = a formula, and a range beyond the grid is
an error. It records every request, and tests can make it answer the next ones with faults.
"""

from __future__ import annotations

import functools
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ADDRESS = "robot@results.iam.gserviceaccount.com"
KEY = "1" * 44


@dataclass
class Sheet:
    id: int
    title: str
    rows: int = 1000
    columns: int = 26
    cells: dict[tuple[int, int], object] = field(default_factory=dict)

    @property
    def properties(self):
        grid = {"rowCount": self.rows, "columnCount": self.columns}
        return {"sheetId": self.id, "title": self.title, "index": 0, "sheetType": "GRID", "gridProperties": grid}

    def put(self, row, column, value):
        if row > self.rows or column > self.columns:
            raise Refusal(400, f"Range exceeds grid limits. Max rows: {self.rows}, max columns: {self.columns}")
        if isinstance(value, str):
            if len(value) > 50001:
                raise Refusal(400, "Your input contains more than the maximum of 50000 characters in a single cell.")
            if value.startswith("="):
                if not value.startswith("=HYPERLINK("):
                    value = "#NAME?"
            elif value.startswith("'"):
                value = value[1:]
            elif re.fullmatch(r"[+-]?[\d.]+(e-?\d+)?", value):
                value = float(value)
            elif re.match(r"[+-]", value):
                value = "#ERROR!"
            elif re.fullmatch(r"\d+[-/]\d+|(january|march|may) \d+", value, re.IGNORECASE):
                value = 45000
        if value == "":
            self.cells.pop((row, column), None)
        else:
            self.cells[row, column] = value

    def table(self):
        """The rows without trailing empty cells."""
        last = max((row for row, _ in self.cells), default=0)
        rows = []
        for row in range(1, last + 1):
            width = max((column for r, column in self.cells if r == row), default=0)
            rows.append([self.cells.get((row, column), "") for column in range(1, width + 1)])
        return rows


class Refusal(Exception):
    def __init__(self, status, message, reason=""):
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


class GoogleServer:
    """Runs until closed; `calls` lists (kind, path) of all requests except those for tokens, which `tokens` counts."""

    def __init__(self, name="Results"):
        self.updates_cells = True  # whether batch updates may contain cells, as Google's may
        self.name, self.sheets, self.calls, self.tokens = name, {}, [], 0
        self.faults: list[tuple[str, object]] = []
        self.bodies: list[str] = []
        self._lock = threading.Lock()
        self._next_id = 7
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                server.answer(self)

            do_GET = do_POST = do_PUT = handle_any

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def add(self, title, table=(), **size):
        sheet = self.sheets[title] = Sheet(self._next_id, title, **size)
        self._next_id += 1
        for number, row in enumerate(table, 1):
            for position, value in enumerate(row, 1):
                if value != "":
                    sheet.cells[number, position] = value
        return sheet

    def count(self, kind=None):
        return sum(kind is None or call == kind for call, _ in self.calls)

    def credentials(self, folder: Path) -> Path:
        """Writes a key file of a service account that this server issues tokens for."""
        content = {
            "type": "service_account",
            "client_email": ADDRESS,
            "private_key_id": "abc",
            "private_key": private_key(),
            "token_uri": f"{self.url}/token",
        }
        path = folder / "google_credentials.json"
        path.write_text(json.dumps(content))
        return path

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        with self._lock:
            self.bodies.append(f"{handler.path} {body.decode(errors='replace')}")
            kind = self._kind(path)
            if kind == "token":
                self.tokens += 1
            else:
                self.calls.append((kind, path))
            index = next((index for index, (name, _) in enumerate(self.faults) if name in (kind, "any")), None)
            fault = self.faults.pop(index)[1] if index is not None else None
            if fault == "drop":
                return self._drop(handler)
            try:
                if isinstance(fault, tuple):
                    raise Refusal(*fault)
                if isinstance(fault, int):
                    raise Refusal(fault, f"fault {fault}")
                content = self._content(kind, path, query, json.loads(body) if body[:1] == b"{" else {})
                status = 200
            except Refusal as refusal:
                status = refusal.status
                content = {"error": {"code": status, "message": refusal.message, "status": refusal.reason or "X"}}
            if fault == "drop after":
                return self._drop(handler)
        text = json.dumps(content).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        if status == 429:
            handler.send_header("Retry-After", "0")
        handler.end_headers()
        handler.wfile.write(text)

    def _drop(self, handler):
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    def _kind(self, path):
        if path == "/token":
            return "token"
        if path == "/drive/v3/files":
            return "search"
        if path.endswith("values:batchUpdate"):
            return "write"
        if path.endswith(":batchUpdate"):
            return "update"
        return "read" if "/values/" in path else "metadata"

    def _content(self, kind, path, query, body):
        if kind == "token":
            return {"access_token": "loopback", "expires_in": 3600, "token_type": "Bearer"}
        if kind == "search":
            title = re.search(r'name = "((?:[^"\\]|\\.)*)"', query["q"][0]).group(1)
            title = re.sub(r"\\(.)", r"\1", title)
            return {"files": [{"id": KEY, "name": self.name}] if title == self.name else []}
        if KEY not in path:
            raise Refusal(404, "Requested entity was not found.")
        if kind == "metadata":
            sheets = [{"properties": sheet.properties} for sheet in self.sheets.values()]
            return {"spreadsheetId": KEY, "properties": {"title": self.name}, "sheets": sheets}
        if kind == "read":
            sheet, _ = self._range(path.split("/values/")[1])
            return {"range": sheet.title, "majorDimension": "ROWS", "values": sheet.table()}
        if kind == "write":
            assert body["valueInputOption"] == "USER_ENTERED"
            for part in body["data"]:
                sheet, (row, column) = self._range(part["range"])
                for down, values in enumerate(part["values"]):
                    for right, value in enumerate(values):
                        sheet.put(row + down, column + right, value)
            return {"spreadsheetId": KEY, "totalUpdatedCells": 1}
        return {"replies": [self._update(request) for request in body["requests"]]}

    def _range(self, text):
        title, _, cell = text.rpartition("!") if "!" in text else (text, "", "A1")
        title = title.strip("'").replace("''", "'")
        if title not in self.sheets:
            raise Refusal(400, f"Unable to parse range: {text}")
        letters, number = re.match(r"([A-Z]+)(\d+)", cell).groups()
        column = 0
        for letter in letters:
            column = column * 26 + ord(letter) - 64
        return self.sheets[title], (int(number), column)

    def _update(self, request):
        (kind, content), *_ = request.items()
        if kind in ("addSheet", "duplicateSheet"):
            title = content["newSheetName"] if kind == "duplicateSheet" else content["properties"]["title"]
            if title in self.sheets:
                raise Refusal(400, f"A sheet with the name {title} already exists. Please enter another name.")
            if kind == "duplicateSheet":
                (source,) = [sheet for sheet in self.sheets.values() if sheet.id == content["sourceSheetId"]]
                sheet = self.add(title, source.table(), rows=source.rows, columns=source.columns)
            else:
                grid = content["properties"]["gridProperties"]
                sheet = self.add(title)
                sheet.rows, sheet.columns = grid["rowCount"], grid["columnCount"]
            return {kind: {"properties": sheet.properties}}
        (sheet,) = [s for s in self.sheets.values() if s.id == _sheet_id(content)]
        if kind == "appendDimension":
            if content["dimension"] == "ROWS":
                sheet.rows += content["length"]
            else:
                sheet.columns += content["length"]
        elif kind == "updateCells":
            if not self.updates_cells:
                raise Refusal(400, "Invalid requests[1]: No request set.")
            row, column = content["start"]["rowIndex"] + 1, content["start"]["columnIndex"] + 1
            for down, line in enumerate(content["rows"]):
                for right, cell in enumerate(line["values"]):
                    ((kind_of_value, value),) = cell["userEnteredValue"].items() or {"stringValue": ""}.items()
                    assert isinstance(value, str) == (kind_of_value != "numberValue")
                    text = kind_of_value == "stringValue" and value
                    sheet.put(row + down, column + right, f"'{value}" if text else value)
        else:
            assert kind in ("repeatCell", "updateSheetProperties", "mergeCells"), kind
        return {}


@functools.cache
def private_key():
    """An RSA key for this test run, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def _sheet_id(content):
    for part in (content, content.get("range", {}), content.get("properties", {}), content.get("start", {})):
        if "sheetId" in part:
            return part["sheetId"]
    raise AssertionError(content)
