"""Headless Chromium by the WebDriver protocol, which is JSON over HTTP, and axe-core."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
"""axe-core's script: ``npm install axe-core`` in the checkout, or where AXE_CORE says."""
SMALL = """
const small = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const parent = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || parent.closest("script, style") || !parent.getClientRects().length) continue;
  const size = parseFloat(getComputedStyle(parent).fontSize);
  if (size < 11) small.push([texts.currentNode.data.trim(), size]);
}
return small;
"""
OVER = """
const over = [];
for (const element of document.querySelectorAll("main *"))
  if (element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest("[hidden]")) over.push(element.outerHTML.slice(0, 80));
return {inner: innerWidth, scroll: document.documentElement.scrollWidth, over};
"""


class Browser:
    """A session of Chromium's driver."""

    def __init__(self, address: str) -> None:
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        options = {
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
        }
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self._base = f"{address}/session"
        self._base += "/" + self._post("", capabilities=wanted)["sessionId"]

    def _post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(self._base + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with self._opener.open(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, address: str, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Go to a page in a window of so many pixels."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self._post("/url", url=address)

    def devtools(self, command: str, **values: Any) -> Any:
        return self._post("/goog/cdp/execute", cmd=command, params=values)

    def run(self, script: str, *args: Any) -> Any:
        return self._post("/execute/sync", script=script, args=list(args))

    def until(self, script: str, seconds: float = 30) -> Any:
        """What a script gives when that is something."""
        deadline = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
            time.sleep(0.1)
        return found

    def complaints(self) -> list[str]:
        """What the console holds of errors since it was last asked: of scripts, of the content policy, of what could not be fetched."""
        return [line["message"] for line in self._post("/se/log", type="browser") if line["level"] == "SEVERE"]

    def violations(self) -> list[str]:
        """What axe-core finds serious or critical."""
        if not AXE.exists():
            pytest.skip(f"axe-core is not installed: no {AXE}")
        self.run(AXE.read_text())
        script = "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(found => done(found.violations))"
        found = self._post("/execute/async", script=script, args=[])
        grave = [entry for entry in found if entry["impact"] in ("serious", "critical")]
        return [f"{entry['id']}: {node['html'][:120]}" for entry in grave for node in entry["nodes"]]

    def screenshot(self, path: Path) -> None:
        """Keep what the window shows."""
        shown = self.devtools("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(shown["data"]))


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """Inside, a browser; the test is skipped where there is none."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromium-driver is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for attempt in range(100):
            try:
                browser = Browser(f"http://127.0.0.1:{port}")
                break
            except urllib.error.URLError:
                assert attempt < 99, "chromedriver did not start"
                time.sleep(0.1)
        yield browser
        browser._opener.open(urllib.request.Request(browser._base, method="DELETE"), timeout=20).close()
    finally:
        process.terminate()
        process.wait()


def check_page(browser: Browser, path: Path, width: int, *, dark: bool = False, plots: int = 0) -> None:
    """Open a page of ours: it is legible in a window so wide, with so many plots to hover over, and fetches nothing.

    Args:
        browser: Opens it.
        path: Of the page.
        width: Of the window, in pixels.
        dark: Under a dark scheme.
        plots: How many there are.
    """
    browser.open(path.as_uri(), width, dark=dark)
    browser.until(f"return document.querySelectorAll('.plot .main-svg').length >= {plots}")
    assert browser.until("return [...document.querySelectorAll('.plot .main-svg')].every(s => s.clientWidth <= innerWidth)")
    assert browser.run(OVER) == {"inner": width, "scroll": width, "over": []}
    assert browser.run(SMALL) == []
    fetched = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert browser.complaints() == []
