"""The page in a real browser, headless Chromium, driven through its debugging pipe as a reader would: mouse and keys.

References:
    DevTools protocol; `--remote-debugging-pipe` is JSON ended by zero bytes, read from descriptor 3, written to 4.
    https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fm_core.bench.records import append
from fm_core.bench.report import write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 180.0
"""Seconds in which a browser on a busy machine answers."""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium: install Debian's package, apt-get install chromium (the test installs nothing)",
)

# Puts the pipes where Chromium looks for them, from numbers that they cannot collide with, and becomes Chromium.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Page:
    """One tab; `errors` collects what its console complains of, `requests` what it asks the network for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest = to_browser, from_browser, b""
        self._number, self._session = 0, ""
        self._loaded = False
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._note(self._next())

    def see(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, element: str) -> None:
        """Clicks in the middle of an element, given as an expression."""
        box = self.see(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); "
            f"return [r.x + r.width / 2, r.y + r.height / 2]; }})({element})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def prefer(self, scheme: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def brightness(self) -> float:
        """Mean of a screenshot, from 0 (black) to 1."""
        picture = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        values = Image.open(io.BytesIO(picture)).convert("L").histogram()
        return sum(level * many for level, many in enumerate(values)) / (255 * sum(values))

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"chromium said nothing for {PATIENCE:g} seconds"
            piece = os.read(self._from, 1 << 20)
            assert piece, "chromium ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown" or (
            method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert")
        ):
            self.errors.append(json.dumps(params))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    profile = tmp_path_factory.mktemp("profile")
    assert CHROMIUM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command = [CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    launch = [sys.executable, "-c", _LAUNCH, *map(str, high), *command]
    with (profile / "log").open("wb") as log:
        browser = subprocess.Popen(launch, pass_fds=high, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for end in (theirs_in, theirs_out, *high):
        os.close(end)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_out)  # Chromium ends when its pipe does
        try:
            browser.wait(20)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
        os.close(ours_in)


@pytest.fixture(scope="module")
def report(synthetic, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    out = tmp_path_factory.mktemp("bench")
    long = synthetic.made("a_name_without_any_place_to_break_" * 4, 2, 1.0)
    rows = synthetic.solver((*synthetic.solvers, long), {"8 gaussians, 2-D": 1.0}, seeds=2)
    append(out, synthetic.run, *synthetic.other(), *rows)  # rows with gaps come first
    return write(out)


@pytest.fixture
def page(tab: Page, report: Path) -> Page:
    tab.errors.clear()
    tab.requests.clear()
    tab.prefer("light")
    tab.open(report)
    return tab


TABLE = "document.querySelector('#table-solvers table')"


def heading(label: str) -> str:
    return f"[...{TABLE}.querySelectorAll('th button')].find(b => b.textContent === '{label}')"


def column(page: Page, label: str, of: str = "dataset.sort") -> list[str]:
    """A column of the rows to be seen, from the top."""
    at = f"[...{TABLE}.querySelectorAll('thead th')].findIndex(h => h.textContent === '{label}')"
    rows = f"[...{TABLE}.tBodies[0].rows].filter(r => !r.hidden)"
    return page.see(f"{rows}.map(r => r.cells[{at}].{of})")  # type: ignore[no-any-return]


def sorted_by(page: Page, label: str) -> str | None:
    return page.see(f"{heading(label)}.closest('th').getAttribute('aria-sort')")  # type: ignore[no-any-return]


def test_a_click_on_a_heading_sorts_up_then_down_and_gaps_stay_last(page: Page) -> None:
    before = column(page, "median error")
    page.click(heading("median error"))
    up = column(page, "median error")
    numbers = [float(value) for value in up if value]
    assert up != before
    assert numbers == sorted(numbers)
    assert up.index("") == len(numbers) < len(up)
    assert sorted_by(page, "median error") == "ascending"
    page.click(heading("median error"))
    down = column(page, "median error")
    assert [float(value) for value in down if value] == numbers[::-1]
    assert down[len(numbers) :] == [""] * (len(down) - len(numbers))
    assert sorted_by(page, "median error") == "descending"
    page.click(heading("contender"))
    names = column(page, "contender")
    assert names[0].startswith("a_name_without")
    assert names[-1] == "rk4"
    assert sorted_by(page, "median error") is None
    assert page.errors == []


def test_the_keyboard_alone_filters_and_sorts(page: Page) -> None:
    page.see("document.querySelector('#table-solvers input').focus()")
    page.call("Input.insertText", text="diffusers UNIPC")
    assert set(column(page, "contender", "innerText")) == {"diffusers UniPC-3"}
    assert page.see("document.querySelector('#table-solvers output').textContent") == "7 of 87 rows"
    shown = column(page, "NFE asked")
    assert shown == ["5", "8", "10", "15", "20", "30", "50"]
    for _ in range(5):  # the region that scrolls, then the headings up to "NFE asked"
        page.press("Tab", 9)
    assert page.see(f"document.activeElement === {heading('NFE asked')}")
    page.press("Enter", 13, "\r")
    page.press(" ", 32, " ")
    assert column(page, "NFE asked") == shown[::-1]
    assert sorted_by(page, "NFE asked") == "descending"
    page.see("document.querySelector('#table-solvers input').select()")
    page.press("Backspace", 8)
    assert len(column(page, "contender")) == 87
    assert page.errors == []


def test_light_and_dark_follow_the_system_until_the_reader_chooses(page: Page) -> None:
    light = page.brightness()
    page.prefer("dark")
    dark = page.brightness()
    assert light > 0.85
    assert dark < 0.25
    page.click("document.getElementById('theme')")
    assert page.brightness() == pytest.approx(light, abs=0.02)
    page.prefer("light")
    page.click("document.getElementById('theme')")
    assert page.brightness() == pytest.approx(dark, abs=0.02)
    page.see("localStorage.clear()")
    assert page.errors == []


def test_pointing_at_a_line_brings_it_forward(page: Page) -> None:
    label = "document.querySelector('svg.chart .label text')"
    x, y = page.see(
        f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect(); "
        f"return [r.x + 5, r.y + r.height / 2]; }})({label})"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert page.see("document.querySelectorAll('svg.pointed .series.on').length") == 1
    name = page.see(f"{label}.querySelector('title').textContent")
    assert page.see("document.querySelector('svg.pointed .series.on .line title').textContent") == name
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert page.see("document.querySelectorAll('.pointed, .on').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_is_never_wider_than_the_window(tab: Page, report: Path, width: int) -> None:
    tab.open(report, width)
    assert tab.see("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_tables_are_all_there(tab: Page, report: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report)
        tab.call("DOM.enable")
        root = tab.call("DOM.getDocument")["root"]["nodeId"]

        def count(selector: str) -> int:
            return len(tab.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"])

        assert count("#table-solvers tbody tr") == 87
        assert count("th button") == 0
        assert count("#theme[hidden], .filter[hidden]") == 5
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_nothing_but_the_file_is_asked_for(page: Page, report: Path) -> None:
    assert page.see("document.title") == "Benchmark report"
    assert {url for url in page.requests if not url.startswith("data:")} == {report.as_uri()}
    assert page.errors == []
