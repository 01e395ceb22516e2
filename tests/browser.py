"""A real browser for tests: headless Chromium, controlled through its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-gpu "
    "--disable-audio-output --autoplay-policy=no-user-gesture-required"
)
#: longest wait for the browser's response, in seconds
PATIENCE = 60
KEYS = {"Tab": 9, "Enter": 13, " ": 32}


class Browser:
    """One Chromium with one page.

    Attributes:
        complaints: Errors and warnings of the page since it was loaded.
        requests: Addresses that the page has requested.
    """

    def __init__(self, profile: Path):
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()
        command = [CHROMIUM, "--headless", "--no-sandbox", *QUIET.split(), f"--user-data-dir={profile}"]
        command += ["--remote-debugging-pipe", "about:blank"]
        # The protocol's pipes are the descriptors 3 and 4
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._write, self._read, self._buffer, self._number = from_us, to_us, b"", 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        self._session: str | None = None
        target = next(found for found in self._call("Target.getTargets")["targetInfos"] if found["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the browser."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no message from the browser for {PATIENCE} s")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise ConnectionError("the browser ended")
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _record(self, message: dict[str, Any]) -> None:
        """Stores the content of an event."""
        if "method" not in message:
            return
        event = message.get("params", {})
        self._events.append(message["method"])
        if message["method"] == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif message["method"] == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(value.get("value", value)) for value in event["args"]))
        elif message["method"] == "Log.entryAdded":
            self.complaints.append(event["entry"]["text"])
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._record(message)

    def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Sets the window's size in CSS pixels (below 600, a phone) and the reader's preference for dark pages."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def load(self, page: Path) -> None:
        """Opens any page from disk and waits until it is loaded."""
        self.complaints.clear()
        self.requests.clear()
        self._events.clear()
        self._call("Page.navigate", url=page.absolute().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._record(self._message())

    def open(self, page: Path) -> float:
        """Opens a report and waits until its visible part is drawn (`data-ready` on its root).

        Returns:
            The time it took, in seconds.
        """
        started = time.monotonic()
        self.load(page)
        self.wait_for("'ready' in document.documentElement.dataset")
        return time.monotonic() - started

    def wait_for(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        self.ask(f"""new Promise((done) => {{
            const look = () => {condition} ? done() : requestAnimationFrame(look);
            look();
        }})""")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, or of the promise it returns."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        """Presses a key: Tab, Enter, the space bar or a letter."""
        code = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
        text = {"Enter": "\r", "Tab": ""}.get(key, key)
        for _ in range(times):
            down = {"type": "keyDown", **code, **({"text": text} if text else {})}
            self._call("Input.dispatchKeyEvent", **down)
            self._call("Input.dispatchKeyEvent", type="keyUp", **code)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Saves the visible part, or the whole page, as PNG."""
        shown = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shown["data"]))
