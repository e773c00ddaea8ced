"""A headless Chromium, driven over a pipe by the protocol of its developer tools.

Source of the methods and events: https://chromedevtools.github.io/devtools-protocol/. Over the
pipe, each message is JSON and ends with a NUL.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # Chromium refuses to run as root with one; pages here are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
_PATIENCE_SECONDS = 60
# Events that say what a page complained of, or asked a network for.
_COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


def find() -> str | None:
    """Return the path of a Chromium; ``CHROMIUM`` names one that is elsewhere."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser; what it logs and asks for is kept from the beginning."""

    def __init__(self, browser: _Pipe, session: str) -> None:
        self._browser = browser
        self._session = session

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        return self._browser.call(method, parameters, self._session)

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is there."""
        self._browser.events.clear()
        self.do("Page.navigate", url=path.resolve().as_uri())
        self._browser.wait_for("Page.loadEventFired")

    def size(self, width: int, height: int, *, scale: float = 1, mobile: bool = False) -> None:
        """Set the size of the window, in CSS pixels."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )

    def dark(self, *, on: bool) -> None:
        """Choose the colours of the night, or of the day."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page, as JSON has it."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, *, whole: bool = False, top: float = 0, height: float = 0) -> bytes:
        """Return a PNG of the window, of the whole page, or of ``height`` from ``top`` on."""
        clip: dict[str, Any] = {}
        if whole or height:
            box = self.evaluate(
                "[document.documentElement.scrollWidth, document.body.scrollHeight]"
            )
            area = {"x": 0, "y": top, "width": box[0], "height": height or box[1], "scale": 1}
            clip = {"clip": area, "captureBeyondViewport": True}
        return base64.b64decode(self.do("Page.captureScreenshot", format="png", **clip)["data"])

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        options = {"printBackground": True, "preferCSSPageSize": True}
        return base64.b64decode(self.do("Page.printToPDF", **options)["data"])

    def complaints(self) -> list[str]:
        """Return what the page has written to the console since it was opened, in any way."""
        self.evaluate("0")  # what was said before this is answered has arrived
        return [json.dumps(e) for e in self._browser.events if e["method"] in _COMPLAINTS]

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for since it was opened."""
        self.evaluate("0")
        sent = (e for e in self._browser.events if e["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]


class _Pipe:
    """The two pipes to a browser: calls and their answers, and events in the order they came."""

    def __init__(self, into: int, out_of: int) -> None:
        self._into, self._out_of = into, out_of
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, parameters: dict[str, Any], session: str = "") -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._into, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self._next()

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._out_of], [], [], max(0, left))
            data = os.read(self._out_of, 1 << 20) if ready else b""
            assert data, "the browser is gone" if ready else "the browser does not answer"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def opened(program: str) -> Iterator[Page]:
    """Start the browser with a profile of its own, and give its page; both are gone afterwards."""
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()

    def become_3_and_4() -> None:
        # Copied out of the way first: either may be 3 or 4 already.
        first, second = os.dup(to_browser), os.dup(from_browser)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=become_3_and_4,
            close_fds=False,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield _page(_Pipe(from_us, to_us))
        finally:
            os.close(from_us)
            os.close(to_us)
            process.terminate()
            process.wait(timeout=_PATIENCE_SECONDS)


def _page(pipe: _Pipe) -> Page:
    target = pipe.call("Target.createTarget", {"url": "about:blank"})["targetId"]
    attached = pipe.call("Target.attachToTarget", {"targetId": target, "flatten": True})
    page = Page(pipe, attached["sessionId"])
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.do(f"{domain}.enable")
    return page
