"""Results such as the suites write, made up; and a real browser, driven through its debugging pipe as a reader would.

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
import random
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from PIL import Image

from fm_core.bench.records import Record, Run, append
from fm_core.bench.report import write

NFES = (5, 8, 10, 15, 20, 30, 50)


@frozen
class Made:
    """A made-up solver: error C·NFE^−order·e^noise, NFE·(network + overhead) seconds."""

    name: str
    order: float
    constant: float
    overhead: float = 0.1
    group: str = "ours"


SOLVERS = (
    Made("euler", 1, 0.9, 0.02),
    Made("heun", 2, 3.0, 0.04),
    Made("rk4", 4, 120.0, 0.03),
    Made("ddim", 1, 0.7, 0.05),
    Made("dpm_solver_pp · log_snr", 2, 1.2, 0.08),
    Made("adams_pc-4 · power 1.25", 3.2, 2.05, 0.08),
    Made("auto", 3.2, 2.0, 0.08),
    Made("calibrated", 2.2, 0.12, 0.12),
    Made("diffusers Euler", 1, 0.9, 0.34, "diffusers"),
    Made("diffusers DPM++2M", 2, 1.9, 3.2, "diffusers"),
    Made("diffusers UniPC-3", 2.9, 1.1, 8.4, "diffusers"),
)
PROBLEMS = {"gaussian, 2-D": 0.3, "8 gaussians, 2-D": 1.0, "64 modes, 32-D": 1.4, "digits, class-conditional": 3.0}


def solver_records(
    solvers: Sequence[Made] = SOLVERS,
    problems: dict[str, float] = PROBLEMS,
    *,
    seeds: int = 5,
    nfes: Sequence[int] = NFES,
    run: str = "1f0c",
) -> Iterator[Record]:
    for problem, hardness in problems.items():
        network = 2e-4 * hardness
        for seed in range(seeds):
            for solver in solvers:
                for nfe in nfes:
                    noise = random.Random(f"{problem}{seed}{solver.name}{nfe}").gauss(0, 0.05)
                    error = hardness * solver.constant * nfe**-solver.order * 2.718281828**noise + 2e-6 * hardness
                    yield Record(
                        "solvers",
                        problem,
                        solver.name,
                        {"nfe": nfe},
                        seed,
                        solver.group,
                        figures={
                            "nfe": nfe,
                            "error_median": error,
                            "error_rms": 1.3 * error,
                            "sample_s": nfe * network * (1 + solver.overhead) * 2.718281828 ** (noise / 2),
                            "distance": 0.08 + error / 3,
                            "floor": 0.08,
                            "reference_error": 1e-9,
                        },
                        notes={"order": solver.order},
                        run=run,
                    )


def other_records(run: str = "1f0c") -> Iterator[Record]:
    """Of the other suites, and rows with every status."""
    budget = {"steps": 20000, "batch_size": 512}
    methods = {"OT-CFM": (0.3, 0.03), "I-CFM": (0.37, 0.2), "FM": (0.34, 0.19), "RF": (0.42, 0.04)}
    for task, floor in (("N→8gaussians", 0.25), ("N→moons", 0.1)):
        for seed in range(5):
            yield Record("methods", task, "floor", budget, seed, figures={"w2": floor + 0.01 * seed}, run=run)
            for name, (w2, npe) in methods.items():
                noise = random.Random(f"{task}{seed}{name}").gauss(1, 0.05)
                figures = {"w2": w2 * noise, "npe": npe * noise, "straightness": 0.1 * noise, "train_s": 60 * noise}
                published = {"published": {"w2": 0.303, "w2_std": 0.043, "npe": 0.031}} if name == "OT-CFM" else {}
                yield Record("methods", task, name, budget, seed, figures=figures, notes=published, run=run)
    for seed in range(2):
        for name, cost in (("heun", 1.1), ("diffusers Heun", 1.3)):
            for batch in (1, 16, 256, 4096):
                speed = {"samples_per_s": 5000 * batch**0.7 / cost * (1 + 0.01 * seed), "memory_mb": 200 + batch / 10}
                group = "diffusers" if "diffusers" in name else "ours"
                yield Record("throughput", "mlp, 2-D", name, {"batch": batch}, seed, group, figures=speed, run=run)
    yield Record("micro", "bench_plan", "bench_combine[256]", {}, 0, figures={"mean_s": 3.1e-6}, run=run)
    bad: dict[str, Any] = {
        "problem": "8 gaussians, 2-D",
        "settings": {"nfe": 5},
        "seed": 0,
        "suite": "solvers",
        "run": run,
    }
    yield Record(contender="dopri5", status="failed", why="ValueError: <b>no</b> budget", **bad)
    yield Record(contender="ddpm", status="diverged", why="not finite at t = 0.93", figures={"nfe": 5}, **bad)
    yield Record(contender="azula Heun", group="azula", status="skipped", why="azula is not installed", **bad)


RUN = Run(
    "1f0c",
    "fm bench solvers --out out/bench",
    "2026-11-22T10:00:00+00:00",
    {"processor": "Xeon", "cores": 2, "threads": 1, "memory_gb": 7.8, "gpu": None, "system": "Linux x86_64"},
    {"python": "3.12.3", "torch": "2.13.0", "diffusers": "0.42.1"},
    {"commit": "0123456789abcdef", "dirty": False},
    130.0,
)


@frozen
class Results:
    """What tests make results of."""

    run: Run
    solver: Callable[..., Iterator[Record]]
    other: Callable[..., Iterator[Record]]
    made: Callable[..., Any]
    solvers: Sequence[Made]


@pytest.fixture(scope="session")
def synthetic() -> Results:
    return Results(RUN, solver_records, other_records, Made, SOLVERS)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 180.0
"""Seconds in which a browser on a busy machine answers."""

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

    def press(self, key: str, code: int, text: str = "", *, shift: bool = False) -> None:
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def prefer(self, scheme: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])))

    def brightness(self) -> float:
        """Mean of a screenshot, from 0 (black) to 1."""
        values = self.screenshot().convert("L").histogram()
        return sum(level * many for level, many in enumerate(values)) / (255 * sum(values))

    def picture(self, x: float, y: float, width: float, height: float) -> Counter[tuple[int, int, int]]:
        """How often each colour occurs in a part of a screenshot."""
        part = self.screenshot().convert("RGB").crop((round(x), round(y), round(x + width), round(y + height)))
        values = part.tobytes()
        return Counter(zip(values[::3], values[1::3], values[2::3], strict=True))

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


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium: install Debian's package, apt-get install chromium (the test installs nothing)")
    profile = tmp_path_factory.mktemp("profile")
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


@pytest.fixture(scope="session")
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
