"""Races against bare loops: fair, right about who is slower, and of the same work."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve

from fm_core import build, hookimpl, observing
from fm_core.bench import operations, throughput
from fm_core.bench.operations import Size, bare_euler, pairing, raced, sampling, startup, training
from fm_core.bench.throughput import FULL, QUICK, cells
from fm_core.errors import ArgumentError

SMALL = Size(batch=8, dimension=3, steps=4)


def test_a_race_is_run_in_turn_and_reports_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that counts: ours takes 30 ticks, and 300 once; the bare loop 10."""
    now, turns = itertools.count(), []
    monkeypatch.setattr(operations.time, "perf_counter", lambda: float(next(now)))

    def works(name: str, ticks: int) -> Any:
        def work() -> None:
            turns.append(name)
            for _ in range(10 * ticks if name == "ours" and turns.count(name) == 4 else ticks):
                next(now)

        return work

    own, ratio = raced(works("ours", 29), works("bare", 9), seconds=0.0)
    assert turns == ["ours", "bare"] * 6  # one to warm up, and at least five
    assert own == 30
    assert ratio == 3


def test_a_planted_slower_operation_is_slower() -> None:
    _, ratio = raced(lambda: time.sleep(0.004), lambda: time.sleep(0.001), seconds=0.0)
    assert ratio > 2


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_bare_loop_has_as_many_network_calls(solver: str) -> None:
    figures = sampling(solver, SMALL, 0, seconds=0.0)
    assert figures["nfe"] == SMALL.steps
    assert figures["samples_per_s"] * figures["sample_s"] == pytest.approx(SMALL.batch)
    assert figures["steps_per_s"] * figures["sample_s"] == pytest.approx(SMALL.steps)
    assert figures["over_bare"] > 0


def test_the_bare_loop_is_eulers_method() -> None:
    pipeline = operations._pipeline(SMALL, 0, solver="euler")
    x0 = operations._points(SMALL, 0)
    bare = bare_euler(operations._network(SMALL, 0), x0, SMALL.steps)
    torch.testing.assert_close(pipeline.sample(x0=x0, steps=SMALL.steps).x, bare)


def test_training_runs_its_steps_with_its_coupling() -> None:
    seen: list[tuple[str, int]] = []

    class Watches:
        @hookimpl
        def fm_fit_start(self, pipeline: Any, steps: int, batch_size: int) -> None:
            seen.append((type(pipeline.coupling).__name__, steps * batch_size))

    with observing(Watches()):
        figures = training("minibatch_ot", SMALL, 0, seconds=0.0)
    assert set(seen) == {("MinibatchOT", SMALL.steps * SMALL.batch)}
    assert figures["training_steps_per_s"] > 0


def test_a_pairing_that_is_not_optimal_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Size(batch=16)
    assert pairing(size, 0, seconds=0.0)["pairs_per_s"] > 0
    monkeypatch.setattr(operations.registry, "build", lambda kind, name: build("coupling", "independent"))
    with pytest.raises(ArithmeticError, match="not optimal"):
        pairing(size, 0, seconds=0.0)


def test_startup_is_over_a_python_that_does_nothing() -> None:
    assert startup("import time; time.sleep(0.1)", 2)["startup_s"] > 0.1
    with pytest.raises(RuntimeError, match="no_such_module"):
        startup("import no_such_module", 1)


def test_memory_is_that_of_a_fresh_process() -> None:
    assert operations._in_a_process(eval, "__import__('os').getpid()") != os.getpid()
    assert operations.sampled_peak(SMALL) > 20
    assert operations.bare_peak(SMALL) > 20


@pytest.mark.parametrize("effort", [FULL, QUICK])
def test_cells_are_distinct_and_a_sweep_varies_one_size(effort: Any) -> None:
    every = list(cells(effort, 0))
    assert len({cell.record.key for cell in every}) == len(every)
    sweeps: dict[tuple[str, str], list[Any]] = {}
    for cell in every:
        sweeps.setdefault((cell.record.problem, cell.record.contender), []).append(cell.record)
    for (problem, _), records in sweeps.items():
        if problem != "start-up":
            (part,) = records[0].settings
            assert problem.endswith(f"by {part}")
            values = {record.settings[part] for record in records}
            assert len(records) == len(values)
            assert len(values) > 1 or effort is QUICK or "pairing" in problem
            assert len({str(record.notes) for record in records}) == 1
    assert {cell.record.problem.split()[0] for cell in every} == {
        "sampling",
        "training",
        "pairing",
        "memory",
        "start-up",
    }


def test_quick_rows_are_no_stand_in_for_full_ones() -> None:
    """A start-up of one process is not that of nine, and a race of a fifth of a second not one of three."""
    same_sizes = evolve(QUICK, base=FULL.base)
    full, quick = ({cell.record.key for cell in cells(effort, 0)} for effort in (FULL, same_sizes))
    assert full
    assert quick
    assert not full & quick


@pytest.mark.parametrize("seeds", [0, -1, [], "3", [1.5]])
def test_seeds_that_are_none_are_refused(tmp_path: Path, seeds: Any) -> None:
    with pytest.raises(ArgumentError, match="seeds are how many"):
        throughput.bench_throughput(tmp_path, quick=True, seeds=seeds)
