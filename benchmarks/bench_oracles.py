"""Error against network calls on exact fields and on a trained network, calibrated and not, peers side by side.

    .venv/bin/python benchmarks/bench_oracles.py --out out/oracles        --quick: less of everything
                                                                           --only dim2,vp: these oracles alone

The exact fields are velocities of Gaussian mixtures in closed form, in float64; the trained one is a U-Net of digits.
The error of a sample is the root mean square over dimensions of its distance to where a fine reference takes the
same noise. All are run on the same noise, which no calibration has seen; median and root mean square over samples are
kept, for the latter is ruled by the few that pass next to a separatrix and end in another mode. "At most N calls" is
what a peer is given: where fewer of the budgets here serve it better, those count.

Every figure is a cell of `oracles.json`, and a second run computes what is missing. `oracles.md` is the table,
`oracles.png` the picture.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from oracle_fields import ORACLES, Oracle
from oracle_peers import Counted, peers_of
from oracle_picture import picture
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor

import fm_core as fm
from fm_core.calibration.table import free_numbers
from fm_core.fit.files import replacing
from fm_core.randomness import make_generator

BUDGETS = (5, 8, 10, 15, 20, 30, 50)
PLAIN = {8: 1.5, 10: 1.0, 15: 1.5, 20: 1.0, 30: 1.5, 50: 2.5}
"""How many times the best peer's median that of `auto` may be."""

CALIBRATED = {5: 1 / 5, 8: 1 / 5, 10: 1 / 5, 15: 1 / 3, 20: 1 / 3}
"""And that of a calibrated table, whose root mean square may be 1.5 times the best peer's."""

REFERENCE, PILOT_SEED, NOISE_SEED = 1000, 0, 101

Cell = dict[str, Any]


@frozen(eq=False)
class Bench:
    """One oracle, run: noise never calibrated on, and where it goes."""

    oracle: Oracle
    pipeline: fm.Pipeline
    noise: list[Tensor]
    ends: list[Tensor]

    def cell(self, run: Callable[[Tensor], Tensor]) -> Cell:
        """Median and root mean square over all samples, and the median of every seed; of what runs to the end."""
        began = time.perf_counter(), time.process_time()
        errors = [(run(x).double() - end).flatten(1).square().mean(1).sqrt() for x, end in zip(self.noise, self.ends)]
        took = {"wall_s": time.perf_counter() - began[0], "cpu_s": time.process_time() - began[1]}
        every = torch.cat(errors)
        if not bool(every.isfinite().all()):
            return {"failed": "not finite"}
        rms = float(every.square().mean().sqrt())
        return {"median": float(every.median()), "rms": rms, "seeds": [float(e.median()) for e in errors], **took}


def bench_of(oracle: Oracle, folder: Path) -> Bench:
    """The pipeline, the noise and its ends by the reference."""
    pipe = oracle.make(folder)
    dtype = pipe.placement[1] if oracle.classes else torch.float64
    shape = (oracle.samples, *oracle.shape)
    noise = [torch.randn(shape, generator=make_generator(NOISE_SEED + s), dtype=dtype) for s in range(oracle.seeds)]
    bench = Bench(oracle, pipe, noise, [])
    ends = [pipe.sample(x0=x, steps=REFERENCE, cond=bench.oracle.cond(len(x))).x.double() for x in noise]
    return evolve(bench, ends=ends)


def run_peer(bench: Bench, name: str, nfe: int) -> Cell:
    """A peer's cell; of one that fails, or takes more calls, why."""

    def run(x: Tensor) -> Tensor:
        net = Counted(bench.pipeline, x.dtype, bench.oracle.cond(len(x)))
        end = peers_of(bench.pipeline.path)[name](net, x.clone(), nfe)
        if net.calls > nfe:
            raise ValueError(f"takes {net.calls} calls")
        return end

    try:
        return bench.cell(run)
    except Exception as error:  # strangers fail as they will; what is said of it is kept
        return {"failed": f"{type(error).__name__}: {error}"[:120]}


def run_auto(bench: Bench, nfe: int) -> Cell:
    """The uncalibrated default's cell."""
    return bench.cell(lambda x: bench.pipeline.sample(x0=x, nfe=nfe, cond=bench.oracle.cond(len(x))).x)


def run_calibrated(bench: Bench, nfe: int) -> Cell:
    """A calibrated table's cell, with what calibrating took."""
    several = math.ceil(4 * free_numbers(nfe) / math.prod(bench.oracle.shape))
    shape = (max(bench.oracle.pilot, several), *bench.oracle.shape)
    pilot = torch.randn(shape, generator=make_generator(PILOT_SEED), dtype=bench.noise[0].dtype)
    began = time.perf_counter(), time.process_time()
    fast = fm.calibrate(bench.pipeline, x0=pilot, nfe=nfe, cond=bench.oracle.cond(len(pilot)), seed=PILOT_SEED)
    took = {"calibration_wall_s": time.perf_counter() - began[0], "calibration_cpu_s": time.process_time() - began[1]}
    said = getattr(fast.solver, "provenance", {})
    cell = bench.cell(lambda x: fast.sample(x0=x, nfe=nfe, cond=bench.oracle.cond(len(x))).x)
    return {**cell, **took, "pilot": shape[0], "iterations": said.get("iterations"), "from": said.get("begun_from")}


def cells_of(bench: Bench, key: str) -> dict[str, Callable[[], Cell]]:
    """All cells of an oracle by name: first the peers', then ours."""
    cells: dict[str, Callable[[], Cell]] = {}
    for nfe in BUDGETS:
        for name in peers_of(bench.pipeline.path):
            cells[f"{key}/{nfe}/{name}"] = lambda nfe=nfe, name=name: run_peer(bench, name, nfe)
        cells[f"{key}/{nfe}/auto"] = lambda nfe=nfe: run_auto(bench, nfe)
    for nfe in CALIBRATED:
        cells[f"{key}/{nfe}/calibrated"] = lambda nfe=nfe: run_calibrated(bench, nfe)
    return cells


@frozen
class Line:
    """What is said of one budget on one oracle."""

    nfe: int
    peer: str
    best: Cell
    auto: Cell
    calibrated: Cell | None

    @property
    def missed(self) -> list[str]:
        """The aims that it misses."""
        found, ratio = [], self.auto["median"] / self.best["median"]
        if self.nfe in PLAIN and ratio > PLAIN[self.nfe]:
            found.append(f"auto {ratio:.2f} × the best peer, not ≤ {PLAIN[self.nfe]:g}")
        if self.calibrated:
            ratio, rms = (self.calibrated[of] / self.best[of] for of in ("median", "rms"))
            if ratio > CALIBRATED[self.nfe]:
                found.append(f"calibrated {ratio:.2f} × the best peer, not ≤ {CALIBRATED[self.nfe]:.2f}")
            if rms > 1.5:
                found.append(f"calibrated root mean square {rms:.2f} × the best peer's, not ≤ 1.5")
        return found


def lines_of(cells: dict[str, Cell], key: str) -> list[Line]:
    """The lines of an oracle whose cells are there."""
    lines = []
    for nfe in BUDGETS:
        rivals = {}
        for name, cell in cells.items():
            oracle, calls, who = name.split("/", 2)
            if oracle == key and int(calls) <= nfe and who not in ("auto", "calibrated") and "median" in cell:
                rivals[f"{who} ({calls})" if int(calls) < nfe else who] = cell
        auto = cells.get(f"{key}/{nfe}/auto")
        if rivals and auto:
            peer = min(rivals, key=lambda name: rivals[name]["median"])
            lines.append(Line(nfe, peer, rivals[peer], auto, cells.get(f"{key}/{nfe}/calibrated")))
    return lines


HEAD = ("calls", "best peer", "median / rms", "auto", "ratio", "calibrated", "ratio", "its rms", "calibrating, CPU", "")


def row_of(line: Line) -> list[str]:
    """The line in words and figures."""

    def said(cell: Cell) -> str:
        return f"{cell['median']:.1e} / {cell['rms']:.1e}"

    row = [
        str(line.nfe),
        line.peer,
        said(line.best),
        said(line.auto),
        f"{line.auto['median'] / line.best['median']:.2f}",
    ]
    fitted = line.calibrated
    if fitted:
        ratios = (line.best["median"] / fitted["median"], fitted["rms"] / line.best["rms"])
        row += [said(fitted), f"1/{ratios[0]:.1f}", f"{ratios[1]:.2f}", f"{fitted['calibration_cpu_s']:.0f} s"]
    return [*row, *[""] * (len(HEAD) - 1 - len(row)), "; ".join(line.missed)]


EXPLAINED = """A sample's error is the root mean square over dimensions of its distance to where a reference of 1,000
steps takes the same noise: here are their median / root mean square over samples. "Ratio" is our median to that of the
best peer with at most as many calls, "its rms" the calibrated table's root mean square to that peer's. Calibrating is
said in seconds of one processor. The last column says which aim is missed."""


def page(found: dict[str, Any], oracles: dict[str, Oracle]) -> str:
    """`oracles.md`."""
    text = ["# Error per network call", "", f"`{found['command']}`", "", f"{found['machine']}.", "", EXPLAINED, ""]
    for key, oracle in oracles.items():
        if lines := lines_of(found["cells"], key):
            samples = f"{oracle.seeds} × {oracle.samples} samples; calibrated on {oracle.pilot} others, or more."
            text += [f"## {oracle.title}", "", samples, ""]
            rows = [list(HEAD), ["---"] * len(HEAD), *map(row_of, lines)]
            text += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(text)


def show(found: dict[str, Any], console: Console) -> None:
    """The tables, on the terminal."""
    for key, oracle in ORACLES.items():
        if lines := lines_of(found["cells"], key):
            table = Table(*HEAD, title=oracle.title)
            for line in lines:
                table.add_row(*row_of(line))
            console.print(table)


def machine() -> str:
    """Processor, threads and versions."""
    versions = []
    for name in ("torch", "diffusers", "azula", "torchdiffeq"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    processor = platform.processor() or platform.machine()
    return (
        f"{processor}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, {', '.join(versions)}"
    )


def lessened(oracle: Oracle) -> Oracle:
    """Less of everything, to see that it runs."""
    return evolve(oracle, samples=min(64, oracle.samples), seeds=1, pilot=min(128, oracle.pilot))


def main() -> None:
    """Runs what is missing, and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/oracles"))
    parser.add_argument("--only", default=",".join(ORACLES), help="oracles, by comma")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")  # those of peers are not ours to raise
    asked.out.mkdir(parents=True, exist_ok=True)
    kept, console = asked.out / "oracles.json", Console(stderr=True)
    found = json.loads(kept.read_text()) if kept.exists() else {"cells": {}}
    found |= {"command": f"python {' '.join(sys.argv)}", "machine": machine()}
    oracles = {key: lessened(oracle) if asked.quick else oracle for key, oracle in ORACLES.items()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for key in asked.only.split(","):
            bench = bench_of(oracles[key], asked.out)
            cells = {name: run for name, run in cells_of(bench, key).items() if name not in found["cells"]}
            task = progress.add_task(key, total=len(cells))
            for name, run in cells.items():
                progress.update(task, description=name)
                with torch.no_grad():
                    found["cells"][name] = run()
                with replacing(kept) as (part,):
                    part.write_text(json.dumps(found, indent=1))
                progress.advance(task)
    (asked.out / "oracles.md").write_text(page(found, oracles))
    picture(found["cells"], {key: oracle.title for key, oracle in oracles.items()}, asked.out / "oracles.png")
    show(found, Console(width=200))


if __name__ == "__main__":
    main()
