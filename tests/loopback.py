"""A small HTTP server on the loopback device for fake services, with faults on request."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Refusal(Exception):
    """A response other than 200."""

    def __init__(self, status, content=None):
        super().__init__(status)
        self.status, self.content = status, content or {"msg": f"fault {status}"}


class Loopback:
    """Responds with `content(path, body)` until closed.

    Attributes:
        calls: Requested paths, in order.
        bodies: Paths and request bodies, as text.
        faults: (part of a path, fault) for the next matching request: a status, "drop" (close without a response),
            "drop after" (execute the request, then close), "hang" (respond when the server closes). A part that ends
            in * applies to all matching requests.
    """

    def __init__(self):
        self.calls, self.bodies, self.faults = [], [], []
        self._lock, self._closing = threading.Lock(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def any(self):
                server._answer(self)

            do_GET = do_POST = do_PUT = any

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._closing.set()
        self.http.shutdown()
        self.http.server_close()

    def count(self, part):
        return sum(part in path for path in self.calls)

    def content(self, path, body):
        raise NotImplementedError

    def _answer(self, handler):
        body = self._body(handler)
        with self._lock:
            self.calls.append(handler.path)
            self.bodies.append(f"{handler.path} {body.decode(errors='replace')}")
            matching = (index for index, (part, _) in enumerate(self.faults) if part.rstrip("*") in handler.path)
            index, fault = next(matching, None), None
            if index is not None:
                part, fault = self.faults[index]
                if not part.endswith("*"):
                    self.faults.pop(index)
        if fault == "hang":
            self._closing.wait()
            fault = "drop"
        if fault == "drop":
            return self._drop(handler)
        try:
            if isinstance(fault, int):
                raise Refusal(fault)
            with self._lock:
                status, content = 200, self.content(handler.path, body)
        except Refusal as refusal:
            status, content = refusal.status, refusal.content
        if fault == "drop after":
            return self._drop(handler)
        text = json.dumps(content).encode()
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(text)))
            if status == 429:
                handler.send_header("Retry-After-Custom", "1")
            handler.end_headers()
            handler.wfile.write(text)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was killed

    @staticmethod
    def _body(handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        encoding = handler.headers.get("Content-Encoding")
        return gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body) if encoding == "deflate" else body

    @staticmethod
    def _drop(handler):
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)
