"""What it costs to import the library, to ask `fm plugins`, and to discover many plugins.

    python -m pytest benchmarks/bench_import.py

Whole processes are timed in turn with a bare interpreter, so that a busy machine slows both. `extra_info` adds medians
of the processor time used (`cpu_ms`), which other work disturbs less, and of what the bare interpreter used
(`bare_cpu_ms`). Everything is compiled beforehand, as pip leaves it.

Aims, on a quiet machine: `import fm_core` under 60 ms over bare Python, `fm plugins` under 500 ms and, beside 200
plugins of which 20 are broken, under 1 s, of which discovery takes under 100 ms for 50 plugins.
"""

from __future__ import annotations

import importlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fm_core.discovery import discover

ROOT = Path(__file__).parents[1]
ROUNDS = 10
PLUGIN = """
from fm_core import Component, hookimpl

@hookimpl
def fm_components():
    return [Component("solver", f"{__name__}_{i}", "torch:Tensor", "a solver", example={"i": i}) for i in range(5)]
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which bytecode is kept, in a folder of its own, whatever is set here."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | {"PYTHONPYCACHEPREFIX": str(tmp_path)}


def _process(program: str, environ: dict[str, str]) -> float:
    """Runs a program in a fresh interpreter; returns the processor time it took, in ms."""
    before = getrusage(RUSAGE_CHILDREN)
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _bench_process(benchmark: BenchmarkFixture, environ: dict[str, str], program: str, heavy: set[str]) -> None:
    """Times a program, which must not import anything `heavy`, in turn with an empty one."""
    program += f"; import sys; heavy = {heavy!r} & set(sys.modules); assert not heavy, heavy"
    bare: list[float] = []
    own: list[float] = []
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: own.append(_process(program, environ)),
        setup=lambda: bare.append(_process("pass", environ)),
        rounds=ROUNDS,
        warmup_rounds=1,
    )
    benchmark.extra_info["cpu_ms"] = round(statistics.median(own), 1)
    benchmark.extra_info["bare_cpu_ms"] = round(statistics.median(bare), 1)


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import fm_core", {"torch", "numpy", "pluggy", "attr", "attrs"}),
        ("from fm_core import Component, hookimpl", {"torch", "numpy"}),
    ],
    ids=["fm_core", "what_plugins_import"],
)
def bench_import(benchmark: BenchmarkFixture, environ: dict[str, str], statement: str, heavy: set[str]) -> None:
    """A fresh interpreter that imports."""
    _bench_process(benchmark, environ, statement, heavy)


@pytest.mark.parametrize(("count", "broken"), [(0, 0), (200, 20)])
def bench_fm_plugins(
    benchmark: BenchmarkFixture, tmp_path: Path, environ: dict[str, str], count: int, broken: int
) -> None:
    """`fm plugins`, from the start of the process to its end, beside so many plugins of others."""
    site = tmp_path / "site"
    site.mkdir()
    _install_many(site, count, broken)
    environ["PYTHONPATH"] = str(site)
    program = "import sys; sys.argv = ['fm', 'plugins']; from fm_core.cli import app; app(standalone_mode=False)"
    _bench_process(benchmark, environ, program, {"torch", "numpy", "scipy"})


@pytest.mark.parametrize(("count", "broken"), [(50, 0), (200, 20)])
def bench_discovery(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, broken: int
) -> None:
    """Metadata scan, import, validation and collection of fake distributions, beside all that is really installed."""
    modules = _install_many(tmp_path, count, broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    spent: list[float] = []

    def forget() -> None:
        for module in modules:
            sys.modules.pop(module, None)
        importlib.invalidate_caches()

    def timed() -> list[str]:
        start = time.process_time()
        plugins, _ = discover(environ={})
        spent.append(1e3 * (time.process_time() - start))
        return [plugin.status for plugin in plugins if plugin.source.distribution in modules]

    statuses = benchmark.pedantic(timed, setup=forget, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert (statuses.count("ok"), statuses.count("broken")) == (count - broken, broken)
    benchmark.extra_info["cpu_ms"] = round(statistics.median(spent), 1)


def _install_many(site: Path, count: int, broken: int) -> list[str]:
    """So many fake distributions in a folder, the first of them broken; their modules."""
    modules = [f"bench_plugin_{i}" for i in range(count)]
    for i, module in enumerate(modules):
        _install(site, module, "import no_such_module\n" if i < broken else PLUGIN)
    return modules


def _install(site: Path, name: str, code: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fm.plugins]\n{name} = {name}\n")
    (site / f"{name}.py").write_text(code)
