"""Speed beside bare loops: samples, steps, training steps and OT pairs a second, start-up, memory; how each grows.

What an operation does, and what it runs in turn with, is in `operations`. Sizes are varied one by one, the others
staying as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import asdict, evolve, frozen

from fm_core.bench.asked import folder_of, seeds_of
from fm_core.bench.contenders import library
from fm_core.bench.operations import Size, matching, memory, pairing, sampling, startup, training
from fm_core.bench.records import Record, Results
from fm_core.bench.running import Cell, run

__all__ = ["FULL", "QUICK", "Effort", "bench_throughput", "cells"]


@frozen(kw_only=True)
class Effort:
    """How long is measured, and at which sizes.

    Args:
        name: Of its rows, so that a glimpse is no stand-in for a measurement.
        seconds: Of a race, about.
        processes: Fresh processes for a start-up.
        sweeps: Values of each part of the size.
        base: What the other parts are.
    """

    name: str
    seconds: float
    processes: int
    sweeps: Mapping[str, Sequence[int]]
    base: Size


FULL = Effort(
    name="full",
    seconds=3.0,
    processes=9,
    sweeps={"batch": (1, 16, 256, 4096), "dimension": (2, 32, 512), "steps": (10, 50, 200)},
    base=Size(),
)
QUICK = Effort(name="quick", seconds=0.2, processes=1, sweeps={"batch": (256,)}, base=Size(steps=20))

SOLVERS = ("euler", "heun", "unipc")
COUPLINGS: Mapping[str, str | None] = {"cfm": None, "ot_cfm": "minibatch_ot"}
MATCHERS = {"torchcfm_cfm": "objective", "torchcfm_exact_ot": "coupling", "flow_matching_cond_ot": "objective"}
"""Matchers of other libraries that train beside `fit`, by name, and their kinds."""

PAIRINGS = ("minibatch_ot", "torchcfm_exact_ot")
LARGEST_PAIRING = 2048
"""Pairs at once beyond which scipy takes seconds."""

PROGRAMS = {
    "import fm_core": "import fm_core",
    "fm --help": "import sys; sys.argv = ['fm', '--help']; from fm_core.cli import app; app(standalone_mode=False)",
    "fm plugins": "import sys; sys.argv = ['fm', 'plugins']; from fm_core.cli import app; app(standalone_mode=False)",
    "import torch": "import torch",
}
"""What start-up is measured of."""


def bench_throughput(
    out: str | os.PathLike[str],
    *,
    quick: bool = False,
    seeds: Iterable[int] | int | None = None,
    command: str | None = None,
    progress: bool | None = None,
) -> Results:
    """Measures what the folder does not hold yet.

    Args:
        out: Folder of `results.jsonl`.
        quick: Whether few sizes and short races will do.
        seeds: The replicates, or how many; by default 3, or 1 if quick.
        command: What was typed, for the record.
        progress: Whether to show a bar with the time left; None on a terminal.

    Raises:
        ArgumentError: For seeds that are none.
    """
    folder, every = folder_of(out), seeds_of(seeds, 1 if quick else 3)
    todo = [cell for seed in every for cell in cells(QUICK if quick else FULL, seed)]
    return run(todo, folder, command=command, title="throughput", progress=progress)


def cells(effort: Effort, seed: int) -> Iterator[Cell]:
    """All cells of one seed."""
    for part, values in effort.sweeps.items():
        for value in values:
            size = evolve(effort.base, **{part: value})
            others: dict[str, Any] = {name: own for name, own in asdict(size).items() if name != part}
            others["effort"] = effort.name
            there = partial(Record, "throughput", settings={part: value}, seed=seed, notes=others)
            for solver in SOLVERS:
                measure = partial(sampling, solver, size, seed, effort.seconds)
                yield Cell(there(problem=f"sampling by {part}", contender=solver), measure)
            if part == "steps":
                continue
            for name, (pairs, train) in _trainings(size, seed, effort.seconds).items():
                if not pairs or size.batch <= LARGEST_PAIRING:
                    yield Cell(there(problem=f"training by {part}", contender=name, group=_group(name)), train)
            if 1 < size.batch <= LARGEST_PAIRING:
                for name in PAIRINGS:
                    pair = partial(pairing, size, seed, effort.seconds, name)
                    yield Cell(there(problem=f"pairing by {part}", contender=name, group=_group(name)), pair)
            if part == "batch":
                yield Cell(there(problem=f"memory by {part}", contender="sample"), partial(memory, size))
    for name, program in PROGRAMS.items():
        record = Record("throughput", "start-up", name, {}, seed, notes={"effort": effort.name})
        yield Cell(record, partial(startup, program, effort.processes))


def _trainings(size: Size, seed: int, seconds: float) -> dict[str, tuple[bool, Callable[[], dict[str, float]]]]:
    """Trainings by name: whether they pair by optimal transport, and what races them."""
    ours = {
        name: (coupling is not None, partial(training, coupling, size, seed, seconds))
        for name, coupling in COUPLINGS.items()
    }
    theirs = {
        name: (kind == "coupling", partial(matching, kind, name, size, seed, seconds))
        for name, kind in MATCHERS.items()
    }
    return {**ours, **theirs}


def _group(name: str) -> str:
    """Whose it is."""
    kind = MATCHERS.get(name)
    return "ours" if kind is None else library(kind, name)
