"""Methods trained under one budget on the same tasks and judged on the same points: the suite `fm bench methods`.

A cell is a method on a task with a seed: it is trained (`training`) and judged (`judging`). What no method gets below,
the distance between two fresh sets of data, is a row of its own, `floor`, one draw a seed; its `squared_w2` is W2²(q0,
q1). Diffusions are sampled by DDIM and flows by Euler's method, which on the linear path are the same: what is compared
is what was learned, and deterministic paths have an energy.

    bench_methods(Path("out/methods"), quick=True)
    bench_methods(Path("benchmarks/results/sf2m"), paper="sf2m", seeds=2)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from attrs import asdict, evolve

from fm_core import registry
from fm_core.bench.asked import folder_of, names_of, seeds_of
from fm_core.bench.contenders import library
from fm_core.bench.judging import Exam, judge, oracle
from fm_core.bench.paper_table import FLOOR, write_table
from fm_core.bench.papers import PAPERS, SF2M, Budget, Method, Paper, Published, Task
from fm_core.bench.records import Record, Results
from fm_core.bench.running import Cell, NotHere, run
from fm_core.bench.training import train
from fm_core.errors import BudgetError, PluginError, UnknownNameError, did_you_mean

__all__ = ["FLOOR", "FULL", "METHODS", "QUICK", "TASKS", "bench_methods", "cells", "paper_cells"]

T = TypeVar("T")

TASKS: Mapping[str, Task] = SF2M.tasks
"""Tasks by name: the four of [SF]²M's Table 2."""

_DDIM = {"solver": "ddim"}

METHODS: Mapping[str, Method] = {
    "DDPM": Method("ddpm", _DDIM, any_source=False),
    "DSM": Method("dsm", _DDIM, any_source=False, precondition=True),
    "EDM": Method("edm", _DDIM, any_source=False, precondition=True),
    "FM": Method("fm", any_source=False),
    "CFM": Method("cfm"),
    "OT-CFM": Method("ot_cfm"),
    "RF": Method("rectified_flow"),
    "2-RF": Method("rectified_flow", reflow=1),
    "CFM (flow_matching)": Method("cfm", {"objective": "flow_matching_cond_ot"}),
    "CFM (torchcfm)": Method("cfm", {"objective": "torchcfm_cfm"}),
    "OT-CFM (torchcfm)": Method("cfm", {"objective": "torchcfm_cfm", "coupling": "torchcfm_exact_ot"}),
}
"""Methods by name; those of another library's matchers say whose, and are skipped where it is not installed."""

FULL = Budget(points=None, steps=5_000, batch_size=256, ema=0.999, n=2_000, pairs=50_000)
QUICK = Budget(points=None, steps=200, batch_size=256, ema=0.99, euler=50, n=500, pairs=5_000)
_QUICK_TASKS, _QUICK_METHODS = ("N→8gaussians", "N→moons"), ("DDPM", "CFM", "OT-CFM", "2-RF")


def bench_methods(
    out: str | os.PathLike[str],
    *,
    quick: bool = False,
    paper: str | None = None,
    seeds: Iterable[int] | int | None = None,
    tasks: Iterable[str] | str | None = None,
    methods: Iterable[str] | str | None = None,
    budget: Budget | None = None,
    command: str | None = None,
    progress: bool | None = None,
) -> Results:
    """Trains and judges what the folder does not hold yet.

    Args:
        out: Folder of `results.jsonl`, and of unfinished trainings, which the next run goes on with.
        quick: Whether a small budget, two tasks, four methods and three seeds will do.
        paper: Name of a published table to repeat under its own budget; the folder gets a `README.md` of ours beside
            theirs.
        seeds: The replicates, or how many; by default 5, or the paper's.
        tasks: Names of tasks, one or several, "N→moons" also as "N->moons" or "moons"; None for all.
        methods: Names of methods, or of recipes, one or several; None for all.
        budget: Another budget than the default.
        command: What was typed, for the record.
        progress: Whether to show a bar with the time left; None on a terminal.

    Raises:
        UnknownNameError: For a paper, task or method that is not there.
        ArgumentError: For seeds that are none.
        BudgetError: For a quick paper.
        DataError: If the disk is full.
    """
    folder, named, by = folder_of(out), names_of(tasks), names_of(methods)
    if paper is None:
        todo = cells(
            _tasks(TASKS, named or (_QUICK_TASKS if quick else ())),
            _methods(by or (_QUICK_METHODS if quick else ())),
            budget or (QUICK if quick else FULL),
            seeds_of(seeds, 3 if quick else 5),
            trainings=folder / TRAININGS,
        )
        return run(todo, folder, command=command, title="methods", progress=progress)
    table = _chosen(PAPERS, (paper,), "paper")[paper]
    if quick:
        raise BudgetError(
            "a paper's table is repeated under its own budget; choose fewer seeds or tasks, not quick=True"
        )
    every = seeds_of(seeds, table.seeds)
    part = evolve(
        table,
        tasks=_tasks(table.tasks, named),
        methods=_chosen(table.methods, by, "method"),
        budget=budget or table.budget,
    )
    try:
        todo = paper_cells(part, every, trainings=folder / TRAININGS)
        return run(todo, folder, command=command, title=paper, progress=progress)
    finally:
        write_table(table, folder)


TRAININGS = "trainings"
"""Folder of unfinished trainings, beside the results."""


def _tasks(known: Mapping[str, Task], names: Sequence[str]) -> dict[str, Task]:
    """Those of these names, which may be typed without an arrow: "N->moons", and what is from noise as "moons"."""
    typed = {name.removeprefix("N→"): name for name in known} | {name.replace("→", "->"): name for name in known}
    return _chosen(known, names, "task", typed)


def _chosen(
    known: Mapping[str, T], names: Sequence[str], kind: str, typed: Mapping[str, str] | None = None
) -> dict[str, T]:
    """Those of these names, or of other spellings of them; all for none."""
    spelt = {**(typed or {}), **{name: name for name in known}}
    for name in names:
        if not isinstance(name, str) or name not in spelt:
            raise UnknownNameError(f"there is no {kind} {name!r}; {did_you_mean(str(name), spelt)}")
    return {spelt[name]: known[spelt[name]] for name in names or known}


def _methods(names: Sequence[str]) -> dict[str, Method]:
    """Methods by name, the registry's recipes among them."""
    recipes = {name: Method(name) for name in (part.name for part in registry.components("recipe"))}
    return _chosen({**recipes, **METHODS}, names or tuple(METHODS), "method")


def paper_cells(paper: Paper, seeds: Sequence[int], *, trainings: Path | None = None) -> list[Cell]:
    """The cells of a published table: its rows on its columns; those that are not built here are skipped and say so.

    Args:
        paper: The table.
        seeds: Replicates.
        trainings: Folder in which trainings keep their state, to be gone on with; None keeps none.
    """
    return cells(paper.tasks, paper.methods, paper.budget, seeds, published=paper.published, trainings=trainings)


def cells(
    tasks: Mapping[str, Task],
    methods: Mapping[str, Method],
    budget: Budget,
    seeds: Sequence[int],
    *,
    published: Mapping[str, Mapping[str, Published]] | None = None,
    trainings: Path | None = None,
) -> list[Cell]:
    """Every method on every task that it is for, and each task's floor.

    Args:
        tasks, methods: By name.
        budget: What each method is given.
        seeds: Replicates.
        published: Figures of a paper, by method and task.
        trainings: Folder in which trainings keep their state, to be gone on with; None keeps none.
    """
    rows = published or {}
    there = [
        _of_method(_of_task(name, tasks[name], budget, seed), methods, rows, trainings)
        for seed in seeds
        for name in tasks
    ]
    return [cell for some in there for cell in some]


def _of_task(name: str, task: Task, budget: Budget, seed: int) -> tuple[Record, Exam]:
    what = {"data": task.data, "source": task.source}
    return Record("methods", name, FLOOR, asdict(budget), seed, notes={"task": what}), Exam(task, budget, seed)


def _of_method(
    on: tuple[Record, Exam],
    methods: Mapping[str, Method],
    published: Mapping[str, Mapping[str, Published]],
    trainings: Path | None,
) -> Iterator[Cell]:
    blank, exam = on
    yield Cell(blank, exam.floor)
    for title in dict.fromkeys([*methods, *published]):
        method, there = methods.get(title), published.get(title, {}).get(blank.problem)
        notes = dict(blank.notes) | ({} if there is None else {"published": asdict(there)})
        if method is None:
            if there is not None:
                yield Cell(evolve(blank, contender=title, notes=notes), _published_only)
        elif exam.task.source is None or method.any_source:
            record = evolve(blank, contender=title, group=_group(method), notes={**notes, "method": asdict(method)})
            where = None if trainings is None else trainings / record.key
            yield Cell(record, partial(_trained_and_judged, method, exam, where))


def _group(method: Method) -> str:
    """Whose method it is: the library's that a part of it is from."""
    named = [(kind, method.parts.get(kind)) for kind in ("objective", "coupling")]
    groups = [library(kind, name) for kind, name in named if isinstance(name, str)]
    return next((group for group in groups if group != "ours"), "ours")


def _published_only() -> dict[str, float]:
    raise NotHere("published only: the method is not built here")


def _trained_and_judged(method: Method, exam: Exam, where: Path | None) -> dict[str, float]:
    try:
        result, seconds = train(exam.task, method, exam.budget, exam.seed, checkpoint=where)
    except (PluginError, UnknownNameError) as error:
        raise NotHere(str(error)) from error
    exact = None if method.reflow else oracle(exam.task, result.pipeline)
    figures = {**judge(result.pipeline, exam, exact), "train_s": seconds}
    if exam.budget.ema is not None and "npe" in figures:
        figures["npe_last"] = judge(result.raw, exam, only_energy=True)["npe"]
    if where is not None:
        shutil.rmtree(where, ignore_errors=True)
    return figures
