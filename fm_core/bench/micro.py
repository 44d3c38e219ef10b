"""The micro-benchmarks of a checkout as records: pytest-benchmark on `benchmarks/bench_*.py`, one process a benchmark.

A row is one benchmark: the median, the spread and the number of its rounds, and what it notes itself (`extra_info`),
such as ratios to what it runs in turn with and network calls. Times of different runs compare on one quiet machine
alone; ratios do anywhere.

References:
    pytest-benchmark, its JSON. https://pytest-benchmark.readthedocs.io
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fm_core
from fm_core.bench.asked import folder_of, names_of, seeds_of
from fm_core.bench.records import Record, Results
from fm_core.bench.running import Cell, run
from fm_core.errors import DataError, UnknownNameError, did_you_mean

__all__ = ["QUICK", "bench_micro", "checkout", "collected", "figures_of"]

QUICK = "quick"
"""The mark of the benchmarks that a quick run measures, `@pytest.mark.quick`."""

GLIMPSE = ("--benchmark-max-time=0.2", "--benchmark-min-rounds=3")
"""What a quick run asks of pytest-benchmark."""

OWN = ("median", "stddev", "iqr", "min")
"""Statistics of pytest-benchmark that are kept, in seconds."""


def bench_micro(
    out: str | os.PathLike[str],
    *,
    quick: bool = False,
    only: Sequence[str] | str | None = None,
    seeds: Iterable[int] | int | None = None,
    folder: Path | None = None,
    command: str | None = None,
    progress: bool | None = None,
) -> Results:
    """Runs the benchmarks that the folder of results does not hold yet.

    Args:
        out: Folder of `results.jsonl`.
        quick: Whether few rounds will do, and, where none are named, the benchmarks marked `quick`.
        only: Files or benchmarks, as pytest names them: `bench_plan.py`, `bench_plan.py::bench_euler`; one or several,
            None for all.
        seeds: The replicates, or how many; by default 1. (The benchmarks' own seeds are fixed.)
        folder: Where they are; by default `benchmarks` of the checkout that the library is imported from.
        command: What was typed, for the record.
        progress: Whether to show a bar with the time left; None on a terminal.

    Raises:
        DataError: Outside a checkout, or without pytest-benchmark.
        UnknownNameError: For a file or benchmark that is not there.
        ArgumentError: For seeds that are none.
    """
    to, every, only = folder_of(out), seeds_of(seeds, 1), names_of(only)
    folder = checkout() if folder is None else folder
    _require_pytest()
    nodes = collected(folder, only, mark=QUICK if quick and not only else "")
    effort = "quick" if quick else "full"
    todo = [
        Cell(_record(node, seed, effort), partial(_measured, folder, node, GLIMPSE if quick else ()))
        for seed in every
        for node in nodes
    ]
    return run(todo, to, command=command, title="micro", progress=progress)


def checkout() -> Path:
    """The folder `benchmarks` of the checkout that the library is imported from.

    Raises:
        DataError: If it is installed without one.
    """
    folder = Path(fm_core.__file__).parents[1] / "benchmarks"
    if not any(folder.glob("bench_*.py")):
        raise DataError(
            f"the micro-benchmarks are no part of the installed package: {folder} has no bench_*.py. Clone the "
            "repository and run `fm bench micro` from its environment (make install), or name another folder."
        )
    return folder


def collected(folder: Path, only: Sequence[str] = (), *, mark: str = "") -> list[str]:
    """The benchmarks of a folder as pytest names them, `bench_plan.py::bench_euler[1]`.

    Scripts among them are left out by the folder's own `conftest.py`.

    Args:
        folder: Where they are.
        only: Files or benchmarks; all if none.
        mark: Those with this mark alone; all for none.

    Raises:
        UnknownNameError: For a file or benchmark that is not there.
        DataError: If pytest cannot collect them.
    """
    done = _pytest(folder, "--collect-only", *(("-m", mark) if mark else ()))
    found = [line for line in done.stdout.splitlines() if "::" in line and not line.startswith(("ERROR", "="))]
    nodes = [f"{Path(file).name}::{rest}" for file, rest in (line.split("::", 1) for line in found)]
    if done.returncode or not nodes:
        marked = f" marked {mark}" if mark else ""
        raise DataError(f"pytest finds no benchmarks{marked} in {folder}: {_last(done)}")
    kept = [[node for node in nodes if node == name or node.startswith((f"{name}::", f"{name}["))] for name in only]
    for name, chosen in zip(only, kept, strict=True):
        if not chosen:
            known = {part for node in nodes for part in (node, node.split("::")[0], node.split("[")[0])}
            raise UnknownNameError(f"there is no benchmark {name!r} in {folder}; {did_you_mean(name, known)}")
    return list(dict.fromkeys(node for chosen in kept for node in chosen)) if only else nodes


def figures_of(benchmark: Mapping[str, Any]) -> dict[str, float]:
    """Figures of one entry of pytest-benchmark's JSON: its times, its rounds, and the numbers it noted itself.

    >>> figures_of({"stats": {"median": 0.5, "rounds": 3}, "extra_info": {"nfe": 10, "ratio": 1.1, "by": "hand"}})
    {'median_s': 0.5, 'rounds': 3.0, 'nfe': 10.0, 'ratio': 1.1}
    """
    stats = benchmark["stats"]
    own = {f"{name}_s": float(stats[name]) for name in OWN if name in stats} | {"rounds": float(stats["rounds"])}
    noted = benchmark.get("extra_info", {})
    return own | {name: float(value) for name, value in noted.items() if isinstance(value, int | float)}


def _record(node: str, seed: int, effort: str) -> Record:
    """A row of its own for each effort: few rounds are no stand-in for many."""
    file, benchmark = node.split("::", 1)
    problem, contender = Path(file).stem.removeprefix("bench_"), benchmark.removeprefix("bench_")
    return Record("micro", problem, contender, {}, seed, notes={"effort": effort})


def _measured(folder: Path, node: str, options: Sequence[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        said = Path(temporary) / "benchmark.json"
        done = _pytest(folder, "--benchmark-only", f"--benchmark-json={said}", *options, node=node)
        if done.returncode or not said.is_file():
            raise RuntimeError(f"pytest {node} failed: {_last(done)}")
        (benchmark,) = json.loads(said.read_text(encoding="utf-8"))["benchmarks"]
    return figures_of(benchmark)


def _pytest(folder: Path, *options: str, node: str = "") -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, on the folder or on one of its benchmarks."""
    names = ("-o", "python_files=bench_*.py", "-o", "python_functions=bench_*", "-p", "no:cacheprovider")
    target = folder / node if node else folder
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_benchmark.plugin", *names, *options, str(target)]
    # Of the plugins of this environment the benchmarks need one: loading all takes longer than most benchmarks.
    # In a worker of pytest-xdist pytest-benchmark measures nothing; this process is no worker, whoever started it.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environ = own | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder.parent, env=environ, capture_output=True, text=True)


def _require_pytest() -> None:
    lacking = [name for name in ("pytest", "pytest_benchmark") if importlib.util.find_spec(name) is None]
    if lacking:
        raise DataError(
            f"the micro-benchmarks run on pytest and pytest-benchmark; {' and '.join(lacking)} is not installed: "
            "pip install 'fm-core[dev]'"
        )


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())[-500:] or f"exit status {done.returncode}"
