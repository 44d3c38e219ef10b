"""The solvers suite checks itself on closed forms: orders, planted solvers, seeds, resuming."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fm_core import TableSolver, UnknownNameError, build
from fm_core.bench import solvers as suite
from fm_core.bench.contenders import Contender, contenders
from fm_core.bench.naming import label, parse_pair
from fm_core.bench.ranking import rankings
from fm_core.bench.records import Record, Results
from fm_core.bench.report.cells import cells
from fm_core.bench.setting import Setting
from fm_core.bench.statistics import differ
from fm_core.building import OptionError
from fm_core.plan import Plan

FIGURES = ("error_median", "error_rms", "nfe", "distance", "floor")


def bench(out: Path, only: Any, **more: Any) -> Results:
    given = {"problems": ["gaussian"], "budgets": [8], "seeds": 1, "samples": 16, "with_peers": False} | more
    return suite.bench_solvers(out, only=only, command="test", progress=False, **given)


def by_name(results: Results) -> dict[str, Record]:
    return {record.contender: record for record in results.of("solvers")}


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of timing, and no orders, which are not what is tested."""
    monkeypatch.setattr(suite, "ROUNDS", 1)
    monkeypatch.setattr(suite.orders, "cells", lambda competing: iter(()))


pytestmark = pytest.mark.usefixtures("once")


def worse(plan: Any, path: Any, times: Any) -> Plan:
    """Heun's table with a hundredth of every weight lost: a planted mistake."""
    from attrs import evolve

    right = plan(path, times)
    rows = [evolve(row, predictions=tuple((j, 0.99 * b) for j, b in row.predictions)) for row in right.rows]
    return Plan(right.space, right.t0, rows)


def test_a_planted_worse_solver_is_ranked_so_beyond_noise(tmp_path: Path) -> None:
    heun = build("solver", "heun")
    planted = TableSolver(functools.partial(worse, heun.plan), space="velocity", order=2, evals_per_step=2)
    competing = [Contender(heun, name="heun"), Contender(planted, name="planted")]
    measured = {c.contender: c for c in cells(bench(tmp_path, competing, seeds=5, budgets=[40]).of("solvers"))}
    right, wrong = (measured[name].estimates["error_median"] for name in ("heun", "planted"))
    assert wrong.median > right.median
    assert differ(right, wrong) is True


def test_a_planted_slower_solver_takes_longer(tmp_path: Path) -> None:
    """Twice the calls of the very same table, half of them for nothing, in the median of interleaved rounds."""

    class Slow:
        def __init__(self, of: Any) -> None:
            self.of = of

        def __getattr__(self, name: str) -> Any:
            return getattr(self.of, name)

        def solve(self, field: Any, x: Any, times: Any, **more: Any) -> Any:
            for _ in range(3):
                self.of.solve(field, x, times, **more)
            return self.of.solve(field, x, times, **more)

    euler = build("solver", "euler")
    competing = [Contender(euler, name="euler"), Contender(Slow(euler), name="slow")]
    found = by_name(bench(tmp_path, competing, samples=256, budgets=[20]))
    assert found["slow"].figures["sample_s"] > 2 * found["euler"].figures["sample_s"]
    assert found["slow"].figures["error_median"] == found["euler"].figures["error_median"]
    assert found["slow"].figures["nfe"] == 4 * found["euler"].figures["nfe"], "calls are counted where they are made"


def test_stochastic_solvers_have_a_distance_and_no_pathwise_error(tmp_path: Path) -> None:
    found = by_name(bench(tmp_path, ["heun", "sde_dpm_solver_pp(order=2)"]))
    assert set(FIGURES) <= set(found["heun"].figures)
    figures = found["sde_dpm_solver_pp(order=2)"].figures
    assert "distance" in figures
    assert not {"error_median", "error_rms"} & set(figures)


def test_the_floor_is_what_a_perfect_sampler_gets(tmp_path: Path) -> None:
    """On one Gaussian rk4 is exact: its distance is the floor but for chance; four steps of Euler are above it."""
    records = bench(tmp_path, ["rk4", "euler"], budgets=[4, 80], samples=64, seeds=40).of("solvers")
    ratios: dict[tuple[str, int], list[float]] = {}
    for record in records:
        key = (record.contender, record.settings["nfe"])
        ratios.setdefault(key, []).append(record.figures["distance"] / record.figures["floor"])
    assert 0.75 < sum(ratios["rk4", 80]) / 40 < 1.3
    assert sum(ratios["euler", 4]) / 40 > 1.5


def test_adaptive_solvers_get_tolerances_and_say_what_they_spent(tmp_path: Path) -> None:
    records = bench(tmp_path, ["dopri5"]).of("solvers")
    assert [record.settings["tolerance"] for record in records] == list(suite.TOLERANCES)
    errors = [record.figures["error_median"] for record in records]
    assert errors[0] > 100 * errors[-1]
    assert records[0].figures["nfe"] < records[-1].figures["nfe"]


def test_errors_are_those_of_the_end_points(tmp_path: Path) -> None:
    """Against the flow written out by hand: x(1) = m + s·x0 on the linear path."""
    (record,) = bench(tmp_path, ["heun"], samples=8).of("solvers")
    problem = build("problem", "gaussian")
    x0, _ = Setting(problem, 8, name="x").source(0)
    out = problem.pipeline.replace(solver="heun").sample(x0=x0, nfe=8, seed=0)
    errors = (out.x - (1.0 + 0.5 * x0)).square().mean(1).sqrt()
    assert record.figures["error_median"] == pytest.approx(float(errors.median()), rel=1e-12)
    assert record.figures["error_rms"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-12)


def test_what_a_problem_or_budget_does_not_allow_is_a_row_that_says_why(tmp_path: Path) -> None:
    (record,) = bench(tmp_path, ["rk4"], budgets=[3]).of("solvers")
    assert record.status == "skipped"
    assert "costs" in record.why or "≥" in record.why or "budget" in record.why


def test_a_library_that_is_not_here_is_one_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(contender: Contender) -> str:
        return "install diffusers" if contender.name == "ddim" else ""

    monkeypatch.setattr(suite, "missing", absent)
    given = {"problems": ["gaussian", "line"], "budgets": [4, 8], "seeds": 2}
    records = bench(tmp_path, ["heun", "ddim"], **given).of("solvers")
    assert [(one.status, one.why) for one in records if one.contender == "ddim"] == [("skipped", "install diffusers")]
    assert sum(one.contender == "heun" for one in records) == 8


def test_tables_are_computed_once_for_all_seeds(tmp_path: Path) -> None:
    euler = build("solver", "euler")

    def made(seeds: int) -> list[int]:
        lengths: list[int] = []

        def plan(path: Any, times: Any) -> Plan:
            lengths.append(len(times))
            return euler.plan(path, times)

        solver = TableSolver(plan, space="velocity", order=1)
        bench(tmp_path / str(seeds), [Contender(solver, name="counted")], budgets=[4, 8], seeds=seeds)
        return lengths

    assert made(3) == made(1) != []


def test_a_pipeline_that_diverges_is_a_row(tmp_path: Path) -> None:
    import torch

    from fm_core import Model, compose
    from fm_core.bench.pipeline_problem import PipelineProblem

    def explodes(x: Any, t: Any) -> Any:
        return x * torch.where(t > 0.9, torch.inf, 1.0)[:, None]

    pipeline = compose(path="linear", model=Model(explodes, predicts="velocity"))
    problem = PipelineProblem(title="bad", pipeline=pipeline, event_shape=(2,))
    (record,) = bench(tmp_path, ["heun"], problems=[problem]).of("solvers")
    assert record.status == "diverged"
    assert "not finite" in record.why


def test_what_is_misspelt_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'heun'"):
        bench(tmp_path, ["huen"])
    with pytest.raises(UnknownNameError, match="did you mean 'karras'"):
        bench(tmp_path, ["heun@karas"])
    with pytest.raises(UnknownNameError, match="did you mean"):
        bench(tmp_path, ["heun"], problems=["eight_gausians"])
    with pytest.raises(OptionError, match="order"):
        bench(tmp_path, ["unipc(ordr=3)"])
    assert not list(tmp_path.iterdir())


def figures(results: Results) -> dict[str, Mapping[str, float]]:
    return {r.key: {name: r.figures[name] for name in FIGURES if name in r.figures} for r in results.records}


def test_an_interrupted_suite_goes_on_to_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ["euler", "heun"]
    whole = bench(tmp_path / "whole", only, seeds=2)
    left, sample = itertools.count(), suite._Run.figures

    def stops(self: Any) -> dict[str, float]:
        if next(left) == 2:
            raise KeyboardInterrupt
        return sample(self)

    with monkeypatch.context() as patch:
        patch.setattr(suite._Run, "figures", stops)
        with pytest.raises(KeyboardInterrupt):
            bench(tmp_path / "parts", only, seeds=2)
    assert figures(bench(tmp_path / "parts", only, seeds=2)) == figures(whole)


def test_two_runs_with_other_seeds_agree_wherever_intervals_do_not_overlap(tmp_path: Path) -> None:
    only = ["euler", "ddim", "heun", "midpoint", "rk4", "adams_pc(order=3)", "auto"]
    given: dict[str, Any] = {"problems": ["eight_gaussians"], "samples": 32, "budgets": [12]}
    a, b = (bench(tmp_path / str(s), only, seeds=range(s, s + 5), **given).of("solvers") for s in (0, 100))
    found = {one.figure: one for one in rankings(a, b)}
    errors = found["error_median"]
    assert errors.reversed == found["distance"].reversed == ()
    assert errors.pairs == 21
    assert errors.both >= 8, "most of these differ"
    measured = {cell.contender: cell.estimates["error_median"] for cell in cells(a)}
    assert differ(measured["ddim"], measured["euler"]) is False, "on the linear path they are one solver"


def test_parts_are_read_as_they_are_written() -> None:
    for text in ("heun", "unipc(order=3, shortcut=bh2)@shift(shift=0.5)", "single_step(nodes=[0.5])"):
        solver, grid = parse_pair(text)
        assert label(solver) + (f"@{label(grid)}" if grid else "") == text
    with pytest.raises(OptionError, match="option=value"):
        parse_pair("unipc(3)")
    with pytest.raises(OptionError, match="one grid"):
        parse_pair("heun@karras@uniform")


def test_contenders_are_given_in_any_form() -> None:
    heun = build("solver", "heun")
    found = contenders(["heun@karras", {"name": "unipc", "order": 3}, heun, Contender("ddim")])
    assert [one.name for one in found] == ["heun@karras", "unipc(order=3)", "heun", "ddim"]
    assert [one.group for one in found] == ["ours"] * 4
