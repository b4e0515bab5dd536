"""A real browser without a window, driven over two pipes by the DevTools protocol; it needs nothing but the browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser", "google-chrome")
HOW = "needs a headless browser: apt-get install --no-install-recommends chromium-headless-shell, or $PESO_BROWSER"

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def browser_path() -> str | None:
    """The browser that $PESO_BROWSER names, or one that is installed."""
    return os.environ.get("PESO_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(eq=False)
class Browser:
    """A browser with one page.

    Attributes:
        events: what the page reported since it was opened: messages, errors, requests.
    """

    write: int
    read: int
    session: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _rest: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self.read, 1 << 20)
            assert more, "the browser has gone"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, width: int, height: int, **media: str) -> None:
        """Open a file in a window of some pixels, such as a phone's, and wait until it is there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        phone = width < 500
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in media.items()])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """What the page asked for, beside itself."""
        sent = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [of["request"]["url"] for of in sent if not of["request"]["url"].startswith(("file:", "data:"))]

    def complaints(self) -> list[str]:
        """Errors and warnings on the console."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(event) for event in self.events if event.get("method") in kinds]

    def screenshot(self, path: Path, **clip: float) -> None:
        """Save what the window shows, or a part of the page, as a PNG."""
        part = {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True} if clip else {}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **part)["data"]))

    def printed(self, path: Path) -> None:
        """Save the page as it is printed, as a PDF."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"]))


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    """Start a browser, and end it with all that it started."""
    (their_read, write), (read, their_write) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:

        def arrange() -> None:
            # The protocol reads from descriptor 3 and writes to 4; first out of the way of each other.
            high = [os.dup(their_read), os.dup(their_write)]
            high = [os.dup2(handle, 40 + place) for place, handle in enumerate(high)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        command = [path, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            command, preexec_fn=arrange, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(their_read)
        os.close(their_write)
        try:
            yield Browser(write, read)
        finally:
            process.kill()
            process.wait()
            os.close(write)
            os.close(read)
