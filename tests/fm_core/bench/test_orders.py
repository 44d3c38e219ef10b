"""Orders: what is declared is measured inside a path, and where nothing can be told it says so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from fm_core import TableSolver, build
from fm_core.bench import orders
from fm_core.bench.contenders import DEFAULT, Contender, contenders
from fm_core.bench.orders import Order, slope, slopes, told
from fm_core.bench.records import Record, Results
from fm_core.bench.report.cells import Cell, cells
from fm_core.bench.running import run
from fm_core.bench.statistics import estimate
from fm_core.plan import Plan

PLAIN = ("euler", "heun", "rk4", "adams_bashforth(order=3)", "dpm_solver_pp(order=3)", "unipc(order=2)", "unipc")


def measured(out: Path, *given: Any) -> Results:
    return run(orders.cells(contenders(given)), out, command="test", progress=False)


def test_every_default_solver_is_measured_once_whatever_its_grid() -> None:
    todo = [cell.record for cell in orders.cells(contenders(DEFAULT))]
    assert len({record.key for record in todo}) == len(todo)
    named = {record.contender for record in todo}
    assert {"auto", "euler", "unipc(order=3)", "edm"} <= named
    assert not {"unipc(order=3)@log_snr", "dopri5", "euler_maruyama", "calibrated"} & named


def test_the_measured_order_is_the_declared_one(tmp_path: Path) -> None:
    """Multistep methods with an empty history too: Adams–Bashforth 3 is of order 2 on a whole uniform grid."""
    found = orders.orders(cells(measured(tmp_path, *PLAIN).records))
    assert {one.solver: one.declared for one in found} == dict(zip(PLAIN, (1, 2, 4, 3, 3, 3, 3), strict=True))
    assert {one.verdict for one in found} == {"as declared"}


def planted(order: int, change: Callable[[int, float], float]) -> Contender:
    """Heun's table with other weights of its predictions."""
    heun = build("solver", "heun")

    def plan(path: Any, times: Any) -> Plan:
        right = heun.plan(path, times)
        rows = [evolve(row, predictions=tuple((j, change(j, b)) for j, b in row.predictions)) for row in right.rows]
        return Plan(right.space, right.t0, rows)

    solver = TableSolver(functools.partial(plan), space="velocity", order=order, evals_per_step=2)
    return Contender(solver, name="planted")


@pytest.mark.parametrize(
    ("order", "change", "verdict", "kept"),
    [
        (2, lambda j, b: b * (0.6 if j % 2 else 1.4) / 1.0, "less than declared", False),
        (3, lambda j, b: b, "less than declared", False),
        (1, lambda j, b: b, "more than declared", True),
    ],
)
def test_a_wrong_table_and_a_wrong_declaration_are_told(
    tmp_path: Path, order: int, change: Callable[[int, float], float], verdict: str, kept: bool
) -> None:
    (one,) = orders.orders(cells(measured(tmp_path, planted(order, change)).records))
    assert (one.verdict, one.kept) == (verdict, kept)
    assert told([one]).startswith(f"{int(kept)} of 1 solvers show at least")
    assert f"; {verdict}: {one.solver} (" in told([one])


def test_a_solver_that_chooses_by_its_budget_keeps_the_order_of_the_lowest(tmp_path: Path) -> None:
    """`auto` declares that of its table for few steps; with as many as these it takes Adams PC-5."""
    (one,) = orders.orders(cells(measured(tmp_path, "auto").records))
    assert one.measured == pytest.approx(5, abs=0.35)
    assert one.kept
    expected = "1 of 1 solvers show at least the order that they declare; more than declared: auto (4.7, declared 2)."
    assert told([one]) == expected


def test_what_cannot_be_told_is_not_counted_as_kept() -> None:
    unknown = Order("odd", 2.0, None, "rounding")
    assert unknown.kept is None
    said = told([Order("heun", 2.0, 1.7), unknown])
    assert said == "1 of 2 solvers show at least the order that they declare; odd: cannot tell: rounding."


def test_what_cannot_be_told_says_why(tmp_path: Path) -> None:
    class Refuses:
        order, stochastic, evals_per_step = 2, False, 1
        needs = frozenset({"velocity"})
        geometries, grid = frozenset({"euclidean"}), None

        def solve(self, *given: Any, **more: Any) -> Any:
            raise NotImplementedError("it has a grid of its own")

    (one,) = orders.orders(cells(measured(tmp_path, Contender(Refuses(), name="refuses")).records))
    assert one.measured is None
    assert one.verdict.startswith("cannot tell: it does not run from 0.15 to 0.85")
    assert "a grid of its own" in one.verdict


@pytest.mark.parametrize("factor", [1e30, 1e200, 1e300])
def test_what_blows_up_is_not_called_rounding(tmp_path: Path, factor: float) -> None:
    (one,) = orders.orders(cells(measured(tmp_path, planted(2, lambda j, b: b * factor)).records))
    assert one.measured is None
    assert "blows up" in one.why or "not finite" in one.why
    assert "rounding" not in one.why


def test_solvers_of_less_than_their_declared_order_do_not_compete() -> None:
    competing = cells(
        Record("solvers", "p", name, {}, 0, figures={"nfe": 1.0}, notes={"solver": solver})
        for name, solver in (("worse@karras", "worse"), ("heun", "heun"), ("odd", "odd"), ("not measured", "new"))
    )
    measured = [Order("worse", 1.0, 0.3), Order("heun", 2.0, 2.0), Order("odd", 2.0, None, "rounding")]
    assert [cell.contender for cell in orders.sound(competing, measured)] == ["heun", "odd", "not measured"]


def of(name: str, error: Callable[[int], float], floor: float = 1e-9) -> list[Cell]:
    figures = [{"nfe": n, "error_median": error(n), "reference_error": floor} for n in (5, 10, 20, 40, 80)]
    return cells([Record("solvers", "p", name, {"nfe": f["nfe"]}, s, figures=f) for f in figures for s in range(2)])


@pytest.mark.parametrize(
    ("error", "floor", "why"),
    [
        (lambda n: 1e-9, 1e-9, "come near the reference's"),
        (lambda n: n**-2.0 + 300 * n**-4.0, 1e-9, "not settled: 2"),
        (lambda n: 3.0 * n**-2.0, 1e-4, "come near the reference's"),
    ],
)
def test_a_slope_that_says_nothing_is_none(error: Callable[[int], float], floor: float, why: str) -> None:
    found = slopes(of("a", error, floor))["a"]
    assert found.value is None
    assert why in found.why


def test_a_slope_is_that_of_the_finest_budgets() -> None:
    found = slopes(of("second", lambda n: 3.0 * n**-2.0 + 50.0 * n**-5.0))["second"]
    assert found.value is not None
    assert found.value.median == pytest.approx(2, abs=0.02)
    few = slopes(of("few", lambda n: 1 / n)[:2])["few"]
    assert few.why == "fewer than 3 budgets"


def test_a_slope_has_the_interval_of_its_seeds() -> None:
    records = [
        Record("solvers", "p", "a", {"nfe": n}, s, figures={"nfe": n, "error_median": n ** -(2 + 0.1 * s)})
        for n in (10, 20, 40)
        for s in range(5)
    ]
    value = slopes(cells(records))["a"].value
    assert value is not None
    expected = estimate([2.0, 2.1, 2.2, 2.3, 2.4], "plain")
    assert value.low == pytest.approx(expected.low)
    assert value.high == pytest.approx(expected.high)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_a_slope_leaves_out_what_is_at_the_floor(p: float) -> None:
    nfe = [5, 10, 20, 40, 80, 160]
    errors = [n**-p + 1e-13 for n in nfe]
    errors[0] = 1e3
    assert slope(nfe, errors, floor=0) == pytest.approx(p, rel=1e-3)
    floored = [max(n**-p, 40.0**-p) for n in nfe]
    assert slope(nfe, floored, floor=40.0**-p / 9) == pytest.approx(p, rel=1e-3), "40 and finer are at the floor"


def test_too_few_points_have_no_slope() -> None:
    assert slope([10, 20], [1e-9, 1e-9], floor=1e-9) is None
    assert slope([10, 10], [1.0, 2.0]) is None


def test_objects_that_were_named_have_an_order_each() -> None:
    """Both are called by their class otherwise, and the second would be judged by the first's order."""
    solvers = {name: planted(order, lambda j, b: b).solver for name, order in (("a", 1), ("b", 2))}
    named = contenders(Contender(solver, name=name) for name, solver in solvers.items())
    assert {cell.record.contender for cell in orders.cells(named)} == {"a", "b"}
    assert [one.notes["solver"] for one in named] == ["a", "b"]
