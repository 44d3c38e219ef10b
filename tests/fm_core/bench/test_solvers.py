"""The solvers suite checks itself on closed forms: orders, planted solvers, seeds, resuming."""

from __future__ import annotations

import functools
import itertools
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve

from fm_core import Component, Model, TableSolver, UnknownNameError, build, compose, registry
from fm_core.bench import solvers as suite
from fm_core.bench.contenders import Contender, contenders
from fm_core.bench.pipeline_problem import PipelineProblem
from fm_core.bench.ranking import rankings
from fm_core.bench.records import Record, Results
from fm_core.bench.report.cells import cells
from fm_core.bench.setting import Setting
from fm_core.bench.statistics import differ
from fm_core.building import OptionError
from fm_core.errors import ArgumentError, FMError, PluginError
from fm_core.naming import label
from fm_core.plan import Plan

FIGURES = ("error_median", "error_rms", "nfe", "distance", "floor")


def bench(out: Path, only: Any, **more: Any) -> Results:
    given = {"problems": ["gaussian"], "budgets": [8], "seeds": 1, "samples": 16, "with_peers": False} | more
    return suite.bench_solvers(out, only=only, command="test", progress=False, **given)


def by_name(results: Results) -> dict[str, Record]:
    return {record.contender: record for record in results.of("solvers")}


@pytest.fixture
def no_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """No orders, which are not what is tested."""
    monkeypatch.setattr(suite.orders, "cells", lambda competing: iter(()))


pytestmark = pytest.mark.usefixtures("no_orders")


def scaled(plan: Any, factor: float, path: Any, times: Any) -> Plan:
    """A table with every weight multiplied: a planted mistake."""
    right = plan(path, times)
    rows = [evolve(row, predictions=tuple((j, factor * b) for j, b in row.predictions)) for row in right.rows]
    return Plan(right.space, right.t0, rows)


def test_a_planted_worse_solver_is_ranked_so_beyond_noise(tmp_path: Path) -> None:
    heun = build("solver", "heun")
    planted = TableSolver(functools.partial(scaled, heun.plan, 0.99), space="velocity", order=2, evals_per_step=2)
    competing = [Contender(heun, name="heun"), Contender(planted, name="planted")]
    measured = {c.contender: c for c in cells(bench(tmp_path, competing, seeds=5, budgets=[40]).of("solvers"))}
    right, wrong = (measured[name].estimates["error_median"] for name in ("heun", "planted"))
    assert wrong.median > right.median
    assert differ(right, wrong) is True


def test_times_are_of_warm_runs_and_every_seed_is_a_round(tmp_path: Path) -> None:
    turns: list[str] = []

    class Noted(SlowOnce):
        def solve(self, field: Any, x: Any, times: Any, **more: Any) -> Any:
            turns.append(self.name)
            return super().solve(field, x, times, **more)

    competing = [Contender(Noted(build("solver", "euler"), name), name=name) for name in ("a", "b")]
    found = bench(tmp_path, competing, seeds=2).of("solvers")
    assert turns == ["a", "a", "b", "b", "a", "b"], "warmed up once, and then in turn"
    assert all(0 < one.figures["sample_s"] < SlowOnce.DELAY for one in found)


def test_what_all_contenders_share_is_not_in_the_time_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference of a seed, whose cost has nothing to do with the solver that is measured first."""
    drawn = Setting._drawn

    def slowly(self: Setting, seed: int) -> Any:
        time.sleep(SlowOnce.DELAY)
        return drawn(self, seed)

    monkeypatch.setattr(Setting, "_drawn", slowly)
    found = bench(tmp_path, ["euler", "ddim"], seeds=3).of("solvers")
    assert len(found) == 6
    assert all(one.figures["sample_s"] < SlowOnce.DELAY for one in found)


class SlowOnce:
    """A solver whose first run takes long, as that of one which computes tables."""

    DELAY = 0.3

    def __init__(self, of: Any, name: str) -> None:
        self.of, self.name, self.delay = of, name, self.DELAY

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    def solve(self, field: Any, x: Any, times: Any, **more: Any) -> Any:
        time.sleep(self.delay)
        self.delay = 0
        return self.of.solve(field, x, times, **more)


def test_a_planted_slower_solver_takes_longer(tmp_path: Path) -> None:
    """Twenty times the calls of the very same table, most of them for nothing: no load hides that."""

    class Slow:
        def __init__(self, of: Any) -> None:
            self.of = of

        def __getattr__(self, name: str) -> Any:
            return getattr(self.of, name)

        def solve(self, field: Any, x: Any, times: Any, **more: Any) -> Any:
            for _ in range(19):
                self.of.solve(field, x, times, **more)
            return self.of.solve(field, x, times, **more)

    euler = build("solver", "euler")
    competing = [Contender(euler, name="euler"), Contender(Slow(euler), name="slow")]
    problems = ["gaussian", "eight_gaussians"]
    measured = cells(bench(tmp_path, competing, problems=problems, budgets=[20], seeds=4).of("solvers"))
    for problem in problems:
        fast, slow = (
            next(one.estimates for one in measured if (one.contender, one.problem) == (name, problem))
            for name in ("euler", "slow")
        )
        assert slow["sample_s"].median > fast["sample_s"].median
        assert differ(fast["sample_s"], slow["sample_s"]) is True
        assert slow["error_median"].by_seed == fast["error_median"].by_seed
        assert slow["nfe"].median == 20 * fast["nfe"].median, "calls are counted where they are made"


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
    from_config = registry.from_config

    def absent(kind: str, config: Any) -> Any:
        if config == {"name": "ddim"}:
            raise PluginError("install diffusers")
        return from_config(kind, config)

    monkeypatch.setattr(registry, "from_config", absent)
    given = {"problems": ["gaussian", "line"], "budgets": [4, 8], "seeds": 2}
    records = bench(tmp_path, ["heun", "ddim"], **given).of("solvers")
    assert [(one.status, one.why) for one in records if one.contender == "ddim"] == [("skipped", "install diffusers")]
    assert sum(one.contender == "heun" for one in records) == 8


def raising() -> Any:
    raise ValueError("no table on this machine")


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solvers of a stranger's plugin: a factory that raises, one that returns no solver, and one that is sound."""
    monkeypatch.setattr(registry.default, "_added", {})
    monkeypatch.setattr(registry.default, "_found", registry.default._ready())
    sound: dict[str, Any] = {"sound": lambda: build("solver", "euler")}
    broken: dict[str, Any] = {"raises": raising, "three": lambda: 3, "gone": "fm_core.naming:gone"}
    for name, factory in {**sound, **broken, "absent": "no_such_library.solvers:absent"}.items():
        registry.register(Component("solver", name, factory, summary="a stranger's"))


@pytest.mark.usefixtures("strangers")
def test_a_broken_solver_is_one_row_that_names_its_plugin_and_the_others_run(tmp_path: Path) -> None:
    named = ["raises", "three", "gone", "absent", "sound"]
    records = bench(tmp_path, named, problems=["gaussian", "line"], seeds=2).of("solvers")
    rows = [(one.contender, one.status) for one in records]
    bad = [("raises", "failed"), ("three", "failed"), ("gone", "failed"), ("absent", "skipped")]
    assert [row for row in rows if row[1] != "ok"] == bad
    assert rows.count(("sound", "ok")) == 4
    why = {one.contender: one.why for one in records if one.status == "failed"}
    assert "no table on this machine" in why["raises"]
    assert "solver/raises (plugin 'python'" in why["raises"]
    assert "solver/three (plugin 'python' of python) is no solver: int lacks solve" in why["three"]


def hollow() -> Any:
    return 3


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize(("factory", "said"), [(raising, "no table on this machine"), (hollow, "int lacks title")])
def test_a_broken_problem_is_a_row_that_names_its_plugin_and_the_others_run(
    tmp_path: Path, factory: Any, said: str
) -> None:
    registry.register(Component("problem", "broken", factory, summary="a stranger's"))
    records = bench(tmp_path, ["heun"], problems=["broken", "gaussian"]).of("solvers")
    assert [(one.problem, one.status) for one in records] == [("broken", "failed"), ("gaussian", "ok")]
    assert said in records[0].why
    assert "(plugin 'python'" in records[0].why


def test_a_problems_options_and_paths_are_checked_before_anything_runs(tmp_path: Path) -> None:
    for problem, match in (
        ("gaussian(dmi=3)", "dmi"),
        ("gaussian(path=vpp)", "did you mean"),
        ("saved(folder=gone)", "gone"),
    ):
        with pytest.raises(FMError, match=match):
            bench(tmp_path, ["heun"], problems=["line", problem])
    with pytest.raises(ArgumentError, match="is a name"):
        bench(tmp_path, ["heun"], problems=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("strangers")
def test_options_that_a_broken_factory_does_not_take_are_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="raises"):
        bench(tmp_path, ["raises(order=3)"])


def test_one_contender_or_problem_may_stand_alone_and_a_folder_be_a_string(tmp_path: Path) -> None:
    out: Any = str(tmp_path)
    alone = bench(out, "heun", problems="gaussian", budgets=8)
    assert [(one.contender, one.problem, one.settings) for one in alone.of("solvers")] == [
        ("heun", "gaussian", {"nfe": 8})
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"seeds": 0}, "seeds are how many"),
        ({"seeds": -1}, "seeds are how many"),
        ({"seeds": []}, "seeds are how many"),
        ({"seeds": "3"}, "got '3'"),
        ({"seeds": ["3"]}, "seeds are how many"),
        ({"seeds": True}, "got True"),
        ({"seeds": 10**9}, "more than 1,000"),
        ({"seeds": itertools.count()}, "more than 1,000"),
        ({"samples": 0}, "samples is a whole number ≥ 1; got 0"),
        ({"samples": 2.5}, "samples is"),
        ({"budgets": [0]}, "budgets are whole numbers ≥ 1; got 0"),
        ({"budgets": [2.5]}, "got 2.5"),
        ({"budgets": []}, "budgets are"),
        ({"budgets": "8"}, "got '8'"),
    ],
)
def test_numbers_that_are_none_are_refused_before_anything_runs(tmp_path: Path, asked: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        bench(tmp_path, ["heun"], **asked)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_path_is_refused() -> None:
    out: Any = 3
    with pytest.raises(ArgumentError, match="folder of results"):
        bench(out, ["heun"])


def test_a_glimpse_is_no_stand_in(tmp_path: Path) -> None:
    given: dict[str, Any] = {"samples": None}
    assert len(bench(tmp_path, ["heun"], quick=True, **given).of("solvers")) == 1
    assert len(bench(tmp_path, ["heun"], **given).of("solvers")) == 2


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


def test_a_reference_that_diverges_is_the_problems_failure_and_no_contenders(tmp_path: Path) -> None:
    def explodes(x: Any, t: Any) -> Any:
        return x * torch.where(t > 0.9, torch.inf, 1.0)[:, None]

    pipeline = compose(path="linear", model=Model(explodes, predicts="velocity"))
    problem = PipelineProblem(title="bad", pipeline=pipeline, event_shape=(2,))
    (record,) = bench(tmp_path, ["heun"], problems=[problem]).of("solvers")
    assert record.status == "failed"
    assert record.why.startswith("DataError: the reference of problem PipelineProblem")
    assert "not finite" in record.why


def test_rows_of_a_network_that_was_trained_anew_are_not_taken_for_its_own(tmp_path: Path) -> None:
    """It is saved to the folder where the first was: one name, two networks."""
    here = tmp_path / "mine"

    def measured(seed: int) -> Results:
        net = Model(build("model", "mlp", shape=2, seed=seed), predicts="velocity")
        compose(path="linear", model=net).save(here)
        given = {"name": "saved", "folder": str(here), "shape": [2]}
        return bench(tmp_path / "out", ["heun"], problems=[given])

    first, again, other, back = (measured(seed) for seed in (0, 0, 1, 0))
    assert (first.measured, again.measured, other.measured, back.measured) == (1, 0, 1, 0)
    assert other.asked != first.asked == back.asked
    old, new = {record.problem for record in other.of("solvers")}
    assert old != new
    named = label({"name": "saved", "folder": str(here), "shape": [2]})
    assert all(re.fullmatch(re.escape(named) + "#[0-9a-f]{8}", problem) for problem in (old, new))
    errors = [cell.estimates["error_median"].median for cell in cells(other.of("solvers"))]
    assert errors[0] != errors[1]


def test_a_contender_that_is_not_finite_diverged(tmp_path: Path) -> None:
    planted = TableSolver(functools.partial(scaled, build("solver", "euler").plan, 1e300), space="velocity", order=1)
    (record,) = bench(tmp_path, [Contender(planted, name="wild")], budgets=[2]).of("solvers")
    assert record.status == "diverged"


class Given:
    """One Gaussian, whose reference or truth is given in another way."""

    title, exact, reference_error, event_shape = "given", True, 1e-9, (2,)

    def __init__(self, **given: Callable[[Any], Any]) -> None:
        self.of, self.given = build("problem", "gaussian"), given

    @property
    def pipeline(self) -> Any:
        return self.of.pipeline

    def condition(self, n: int, generator: Any) -> None:
        return None

    def reference(self, x0: Any, cond: Any = None) -> Any:
        ends = self.given.get("reference", lambda ends: ends)(self.of.reference(x0, cond))
        x0.zero_()  # contenders have their own
        return ends

    def truth(self, n: int, generator: Any) -> Any:
        return self.given.get("truth", lambda drawn: drawn)(self.of.truth(n, generator))


@pytest.mark.parametrize("what", ["reference", "truth"])
@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda x: x[:1], r"is a tensor of shape \(16, 2\); got \(1, 2\)"),
        (lambda x: x[:, :1], r"got \(16, 1\)"),
        (lambda x: x.numpy(), "got a ndarray"),
        (lambda x: x.index_fill(0, torch.tensor([3]), math.nan), "is finite; got 1 of 16 rows that are not"),
        (lambda x: x * math.inf, "got 16 of 16 rows"),
    ],
)
def test_a_reference_or_truth_that_is_none_is_a_row_that_names_the_problem(
    tmp_path: Path, what: str, how: Callable[[Any], Any], why: str
) -> None:
    """Else a row is broadcast into an error of every sample, and what is not finite is blamed on the contender."""
    (record,) = bench(tmp_path, ["heun"], problems=[Given(**{what: how})]).of("solvers")
    assert record.status == "failed"
    assert f"the {what} of problem Given" in record.why
    assert re.search(why, record.why)


def test_where_no_law_is_known_samples_are_judged_by_the_references_ends(tmp_path: Path) -> None:
    """A pipeline of one's own without its data: a perfect sampler comes to the floor, and so does a stochastic one."""
    unknown = Given(truth=lambda drawn: None)
    given: dict[str, Any] = {"problems": [unknown], "budgets": [4, 80], "samples": 64, "seeds": 40}
    records = bench(tmp_path, ["rk4", "euler", "sde_dpm_solver_pp(order=2)"], **given).of("solvers")
    assert all(record.status == "ok" for record in records)
    ratios: dict[tuple[str, int], list[float]] = {}
    for record in records:
        over = record.figures["distance"] / record.figures["floor"]
        ratios.setdefault((record.contender, record.settings["nfe"]), []).append(over)
    for perfect in (("rk4", 80), ("sde_dpm_solver_pp(order=2)", 80)):
        assert 0.75 < sum(ratios[perfect]) / 40 < 1.3
    assert sum(ratios["euler", 4]) / 40 > 1.5
    known = bench(tmp_path / "known", ["rk4"], budgets=[80], samples=64, seeds=40).of("solvers")
    own, floors = (sum(r.figures["floor"] for r in of if r.contender == "rk4") for of in (records, known))
    assert own / 2 == pytest.approx(floors, rel=0.1), "floors are of one size, however they were drawn"


def test_what_is_judged_path_by_path_alone_takes_no_draws_of_the_law() -> None:
    def never(drawn: Any) -> None:
        raise AssertionError

    setting = Setting(Given(truth=never), 8, name="x")
    (cell,) = suite.cells_of(setting, contenders(["heun"])[0], [{"nfe": 4}], 0, only_errors=True)
    assert cell.measure().keys() == {"nfe", "error_median", "error_rms", "reference_error"}


def test_a_reference_that_writes_into_its_input_changes_no_figure(tmp_path: Path) -> None:
    own, theirs = (
        bench(tmp_path / str(at), ["heun"], problems=[problem]).of("solvers")[0]
        for at, problem in enumerate([build("problem", "gaussian"), Given()])
    )
    assert {name: theirs.figures[name] for name in FIGURES} == {name: own.figures[name] for name in FIGURES}


def test_samples_that_blew_up_are_no_solution_though_they_are_finite(tmp_path: Path) -> None:
    planted = TableSolver(functools.partial(scaled, build("solver", "euler").plan, 1e9), space="velocity", order=1)
    (record,) = bench(tmp_path, [Contender(planted, name="wild")], budgets=[2]).of("solvers")
    assert record.status == "diverged"
    assert "blew up" in record.why


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


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("calibrated@karras", "is fitted with its times"),
        ("dopri5@karras", "chooses its times as it goes"),
        ({"order": 3}, "a solver is given by its name"),
    ],
)
def test_what_cannot_compete_as_it_is_given_is_refused_before_anything_runs(given: Any, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        contenders([given])


def test_contenders_are_given_in_any_form() -> None:
    heun = build("solver", "heun")
    found = contenders(["heun@karras", {"name": "unipc", "order": 3}, heun, Contender("ddim")])
    assert [one.name for one in found] == ["heun@karras", "unipc(order=3)", "heun", "ddim"]
    assert [one.group for one in found] == ["ours"] * 4


def lame(factor: float) -> TableSolver:
    """Euler with its weights multiplied: a solver without a name."""
    plan = functools.partial(scaled, build("solver", "euler").plan, factor)
    return TableSolver(plan, space="velocity", order=1)


def test_two_that_have_one_name_are_refused_before_anything_runs(tmp_path: Path) -> None:
    from fm_core.bench.pipeline_problem import PipelineProblem

    pipeline = build("problem", "gaussian").pipeline
    nets = [PipelineProblem(title=title, pipeline=pipeline, event_shape=(2,)) for title in ("a", "b")]
    with pytest.raises(ArgumentError, match=r"two different problems are called 'PipelineProblem'.*register them"):
        bench(tmp_path, ["heun"], problems=nets)
    for competing in ([lame(1), lame(2)], [pipeline.replace(solver=lame(1)), lame(2)]):
        with pytest.raises(ArgumentError, match=r"two different contenders are called 'TableSolver.*Contender\("):
            bench(tmp_path, competing)
    with pytest.raises(ArgumentError, match="called 'mine', by"):
        bench(tmp_path, [Contender("heun", name="mine"), Contender("euler", name="mine")])
    assert not list(tmp_path.iterdir())


def test_one_that_is_given_twice_is_measured_once(tmp_path: Path) -> None:
    solver, problem = lame(1), build("problem", "gaussian")
    twice = [solver, solver, "heun", {"name": "heun"}, build("solver", "heun")]
    found = bench(tmp_path, twice, problems=["gaussian", problem, {"name": "gaussian"}])
    assert found.measured == 2


def test_a_fitted_pipeline_competes_under_a_short_name() -> None:
    """Its solver and grid are the contender; its weights, some hundred letters, are a digest that tells two apart."""
    said = {"nfe": 2, "seed": 0, "path": "linear", "network": "Model", "iterations": 35, "pilot": [32, 2]}
    times = [0.0, 0.5123456789012345, 1.0]
    fitted = [
        build("solver", "calibrated", space="velocity", times=times, weights=[[0.5], [0.1, last]], provenance=said)
        for last in (0.4, 0.45)
    ]
    pipeline = build("problem", "gaussian").pipeline.replace(solver=fitted[0])
    names = [one.name for one in contenders([pipeline, *fitted])]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("calibrated(…") and len(name) < 20 for name in names)


def test_a_table_is_fitted_for_few_calls_unless_more_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def fit(pipeline: Any, *, x0: Any, nfe: int, **more: Any) -> Any:
        asked.append((len(x0), nfe))
        return pipeline.replace(solver="euler")

    monkeypatch.setattr("fm_core.calibration.calibrate.calibrate", fit)
    monkeypatch.setattr(suite, "DEFAULT", ("heun", "calibrated"))
    bench(tmp_path / "default", None, budgets=None)
    assert asked == [(128, 5), (128, 8), (128, 10)]
    asked.clear()
    images = {"name": "gaussian", "shape": [1, 8, 8]}
    found = bench(tmp_path / "asked", ["calibrated"], problems=["line", images], budgets=[12, 30]).records
    assert asked == [(128, 12), (32, 12), (32, 30)]
    (skipped,) = (one for one in found if one.status != "ok")
    assert (skipped.problem, skipped.settings["nfe"], skipped.status) == ("line", 30, "skipped")
    assert "494 free numbers" in skipped.why


@pytest.mark.parametrize(("quick", "seeds"), [(True, {0, 1, 2}), (False, {0, 1, 2, 3, 4})])
def test_a_glimpse_takes_three_seeds_and_a_full_run_five(tmp_path: Path, quick: bool, seeds: set[int]) -> None:
    found = bench(tmp_path, "euler", quick=quick, seeds=None, samples=4)
    assert {record.seed for record in found.of("solvers")} == seeds


class _Own:
    """Euler's method with another `solve`."""

    def __init__(self, solve: Any) -> None:
        self.of, self.solve = build("solver", "euler"), solve

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def test_calls_that_go_round_the_field_are_no_feat(tmp_path: Path) -> None:
    def around(field: Any, x: Any, times: Any, **more: Any) -> Any:
        for a, b in itertools.pairwise(times.to(x)):
            x = x + (b - a) * field.model(x, a.expand(len(x)), None)
        return x

    record = by_name(bench(tmp_path, [Contender(_Own(around), name="around")]))["around"]
    assert record.status == "failed"
    assert "no network call of it was counted" in record.why


def test_a_solver_that_works_in_place_changes_nobody_else_s_figures(tmp_path: Path) -> None:
    def inside(field: Any, x: Any, times: Any, **more: Any) -> Any:
        for a, b in itertools.pairwise(times.tolist()):
            x += (b - a) * field.predict(x, a, None, "velocity")
        return x

    euler, other = Contender(build("solver", "euler"), name="euler"), Contender(_Own(inside), name="inside")
    alone = by_name(bench(tmp_path / "alone", [euler]))["euler"].figures
    beside = by_name(bench(tmp_path / "beside", [other, euler]))
    assert beside["euler"].figures["error_median"] == alone["error_median"]
    assert beside["inside"].figures["error_median"] == pytest.approx(alone["error_median"], rel=1e-6)
