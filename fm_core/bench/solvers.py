"""The solvers suite: error and cost against network calls, of any solvers on any problems.

A deterministic contender is judged path by path: from the source samples of a seed it is taken to its ends, and

    error_median, error_rms     median and root mean square over the samples of ‖x̂ − x(1)‖/√D

A stochastic one has no path of its own to be compared with, so it has no such figures. All are judged by

    distance    the energy distance from their samples to as many draws of the truth, or, where nothing is known of
                that, of the reference's ends from other noise
    floor       the same between draws of the truth: no sampler gets below it but by chance
    nfe         network calls really spent on a sample
    sample_s    seconds of one run of all samples, warm, in turn with the other contenders
    fit_s       seconds in which `fm.calibrate` fitted the table, where one is fitted

All contenders of a block have the same source samples, conditions and draws of the truth. A contender that a problem
does not allow (a budget that affords no step, a path that it does not serve) is a row that is skipped and says why, and
so is, once, one whose library is not installed; one that diverges is a row too, and, once, one whose plugin is broken.

The order of each solver of ours is measured beside: suite "orders", see `orders.py`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.bench import orders
from fm_core.bench.asked import folder_of, names_of, number_of, numbers_of, require_distinct, seeds_of
from fm_core.bench.contenders import DEFAULT, QUICK, Contender, contenders, missing, misspelt, peers
from fm_core.bench.problem import require_problem
from fm_core.bench.records import Record, Results
from fm_core.bench.running import Cell, NotHere, run
from fm_core.bench.setting import Setting, distance_metric
from fm_core.errors import BudgetError, DivergenceError, PluginError, TimeError
from fm_core.naming import label, parse

__all__ = ["bench_solvers", "cells_of"]

SUITE = "solvers"

PROBLEMS = (
    "gaussian",
    "line",
    "eight_gaussians",
    "eight_gaussians(path=vp)",
    "eight_gaussians(path=edm)",
    "modes_32d",
    "modes_32d(path=vp)",
    "modes_512d",
    "image_modes",
    "labelled_gaussians",
    "guided_gaussians",
    "learned_eight_gaussians",
    "learned_moons",
    "learned_scurve",
    "learned_moons_to_gaussians",
    "digits",
    "labelled_digits",
)
QUICK_PROBLEMS = ("eight_gaussians", "modes_32d", "eight_gaussians(path=vp)", "learned_moons")

BUDGETS = (5, 8, 10, 15, 20, 30, 50, 100)
QUICK_BUDGETS = (5, 10, 20, 30)
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
QUICK_TOLERANCES = (1e-2, 1e-4)
SAMPLES, QUICK_SAMPLES = 128, 64
SEEDS, QUICK_SEEDS = 5, 3

FITTED_CALLS = 10
"""Network calls up to which a set of ours has tables fitted: a U-Net's take minutes, and more calls ever more."""

_NAMED = "register them, registry.register(Component('problem', 'mine', factory, summary)), and give their names"

BLOWN_UP = 1e3
"""Samples so many times as large as they should be are no solution."""


@frozen(eq=False)
class _Run:
    """One contender on one problem within one budget, from one seed."""

    setting: Setting
    contender: Contender
    budget: Mapping[str, Any]
    seed: int
    only_errors: bool

    def _sampling(self) -> Callable[[], Any]:
        """The run that is timed, with all that is found beforehand: source samples, fitted tables."""
        draws, budget = self.setting.draws(self.seed), self.budget
        asked = (
            {"nfe": budget["nfe"]} if "nfe" in budget else {"rtol": budget["tolerance"], "atol": budget["tolerance"]}
        )
        pipeline = self.setting.pipeline_with(self.contender, budget.get("nfe"))
        return partial(pipeline.sample, x0=draws.x0, cond=draws.cond, seed=self.seed, **asked)

    def figures(self) -> dict[str, float]:
        """Errors, distance and calls."""
        trouble = self.contender.trouble
        if trouble is not None:
            raise NotHere(str(trouble)) if _lacks(trouble) else trouble
        try:
            samples, seconds = self._timed()
        except (BudgetError, TimeError) as error:
            raise NotHere(str(error)) from error
        draws = self.setting.draws(self.seed)
        x = samples.x.to(torch.float64)
        if not bool(samples.status.all()):
            raise DivergenceError(f"{int((~samples.status).sum())} of {len(x)} samples are not finite")
        _require_scale(x, draws.x0, draws.ends)
        if samples.nfe < 1:
            raise RuntimeError(
                "no network call of it was counted: a solver asks the field that it is given, field.predict(…), and "
                "not the network inside"
            )
        found = {"nfe": float(samples.nfe)}
        if not self.only_errors:
            found["sample_s"] = seconds
        if self.contender.fitted:
            found["fit_s"] = self.setting.fit_seconds(self.budget["nfe"])
        if not self.contender.stochastic:
            errors = (x - draws.ends).flatten(1).square().mean(1)
            found["error_median"] = float(errors.sqrt().median())
            found["error_rms"] = float(errors.mean().sqrt())
            found["reference_error"] = self.setting.problem.reference_error
        if not self.only_errors:
            truth = self.setting.truth(self.seed)
            found["distance"] = distance_metric()(x, truth.x1.to(x))
            found["floor"] = truth.floor
        return found

    def _timed(self) -> tuple[Any, float]:
        """The samples, and the seconds they took: what is done once for all seeds, such as a table, is done before."""
        sample, warm, key = self._sampling(), self.setting.warm, (self.contender, tuple(self.budget.items()))
        if not self.only_errors and key not in warm:
            sample()
            warm.add(key)
        with _no_collector():
            began = time.perf_counter()
            samples = sample()
            return samples, time.perf_counter() - began


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """The collector of garbage, which strikes whoever comes, waits."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def bench_solvers(
    out: str | os.PathLike[str],
    *,
    problems: Any = None,
    only: Any = None,
    budgets: Iterable[int] | int | None = None,
    seeds: Iterable[int] | int | None = None,
    samples: int | None = None,
    quick: bool = False,
    with_peers: bool = True,
    command: str | None = None,
    progress: bool | None = None,
) -> Results:
    """Measures solvers on problems and writes `results.jsonl`; goes on from what is there.

    Args:
        out: Folder of results.
        problems: Problems, or their registry names with options, such as "eight_gaussians(path=vp)"; one or several.
        only: Contenders, or what one types, such as "dpm_solver_pp(order=3)@karras"; one or several, by default a
            sensible set.
        budgets: Network calls given to solvers with a fixed grid. Tables are fitted for 10 calls at most if neither
            these nor contenders are named.
        seeds: The replicates, or how many; by default 5, or 3 if quick.
        samples: Samples of each.
        quick: A glimpse: fewer problems, contenders, budgets, samples, seeds.
        with_peers: Whether other libraries' solvers compete where no contenders are named.
        command: What was typed, for the record.
        progress: Whether to show a bar; None on a terminal.

    Returns:
        All that the folder holds then.

    Raises:
        UnknownNameError: For a problem, solver or grid that no plugin provides, before anything runs.
        OptionError: For options that one of them does not take, likewise.
        ArgumentError: For budgets, seeds or samples that are no positive whole numbers; for different contenders or
            problems of one name, as objects that the registry did not build.
    """
    folder, every = folder_of(out), seeds_of(seeds, QUICK_SEEDS if quick else SEEDS)
    calls = numbers_of("budgets", budgets, QUICK_BUDGETS if quick else BUDGETS)
    count = number_of("samples", samples, QUICK_SAMPLES if quick else SAMPLES)
    only, problems = names_of(only), names_of(problems)

    named = only if only else (*(QUICK if quick else DEFAULT), *(peers(quick=quick) if with_peers else ()))
    competing = contenders(named)
    given = problems if problems else (QUICK_PROBLEMS if quick else PROBLEMS)
    settings = [_setting(one, count) for one in given]
    require_distinct("problems", zip((one.name for one in settings), given, strict=True), _NAMED)
    chosen = bool(only) or budgets is not None

    def given_to(contender: Contender) -> list[dict[str, float]]:
        if contender.adaptive:
            return [{"tolerance": t} for t in (QUICK_TOLERANCES if quick else TOLERANCES)]
        return [{"nfe": n} for n in calls if chosen or not contender.fitted or n <= FITTED_CALLS]

    here = [contender for contender in competing if not missing(contender)]
    cells = [
        cell
        for seed in every
        for setting in settings
        for contender in here
        for cell in cells_of(setting, contender, given_to(contender), seed)
    ]
    cells += orders.cells(here)
    absent = [contender for contender in competing if contender not in here]
    cells += [cell for one in absent for cell in cells_of(settings[0], one, [{"nfe": calls[0]}], every[0])]
    return run(cells, folder, command=command, title=SUITE, progress=progress)


def cells_of(
    setting: Setting,
    contender: Contender,
    budgets: Iterable[Mapping[str, Any]],
    seed: int,
    *,
    only_errors: bool = False,
) -> Iterator[Cell]:
    """One cell for each budget of a contender on a problem; without times and distances if errors alone are wanted."""
    notes = {"samples": setting.samples, **({} if missing(contender) else contender.notes)}
    for budget in budgets:
        record = Record(SUITE, setting.name, contender.name, dict(budget), seed, group=contender.group, notes=notes)
        yield Cell(record, _Run(setting, contender, dict(budget), seed, only_errors).figures)


def _lacks(trouble: Exception) -> bool:
    """Whether what keeps a contender away is a library or plugin that is not there, and not one that is broken."""
    chain: list[BaseException] = [trouble]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    absent = any(isinstance(one, ImportError) for one in chain)
    return absent or (isinstance(trouble, PluginError) and len(chain) == 1)


def _require_scale(x: Tensor, x0: Tensor, ends: Tensor) -> None:
    """What is finite may have blown up all the same.

    Raises:
        DivergenceError: If samples are a thousand times as large as source samples and true ends.
    """
    size, due = (float(tensor.double().square().mean().sqrt()) for tensor in (x, torch.cat([x0.double(), ends])))
    if size > BLOWN_UP * due:
        raise DivergenceError(f"the samples blew up: their root mean square is {size:.2g}, where {due:.2g} is due")


def _setting(given: Any, samples: int) -> Setting:
    """A problem as it is asked for; what is misspelt is said here, one that is broken fails when it is measured."""
    config = parse(given) if isinstance(given, str) else given
    try:
        problem = require_problem(config)
        revision = getattr(problem, "revision", "")
        return Setting(problem, samples, name=label(given) + (f"#{revision}" if revision else ""))
    except Exception as error:
        if not isinstance(config, Mapping) or misspelt(error):
            raise
    return Setting(given, samples)
