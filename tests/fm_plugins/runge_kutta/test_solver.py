"""Tableaux as tables: the named methods against their textbook formulas."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, Model, TableSolver
from fm_plugins.cfm.linear import linear
from fm_plugins.runge_kutta.solver import euler, heun, midpoint, rk4, runge_kutta

Velocity = Callable[[Tensor, Tensor], Tensor]


def velocity(x: Tensor, t: Tensor) -> Tensor:
    return (x + t[:, None]).sin() - x * t[:, None]


def at(t: float, x: Tensor) -> Tensor:
    return velocity(x, torch.full((len(x),), t, dtype=x.dtype))


def by_hand(name: str, x: Tensor, t: float, s: float) -> Tensor:
    h, m = s - t, t + (s - t) / 2
    match name:
        case "euler":
            return x + h * at(t, x)
        case "midpoint":
            return x + h * at(m, x + h / 2 * at(t, x))
        case "heun":
            p = at(t, x)
            return x + h / 2 * (p + at(s, x + h * p))
    p1 = at(t, x)
    p2 = at(m, x + h / 2 * p1)
    p3 = at(m, x + h / 2 * p2)
    p4 = at(s, x + h * p3)
    return x + h / 6 * (p1 + 2 * p2 + 2 * p3 + p4)


NAMED: dict[str, tuple[Callable[[], TableSolver], int, int]] = {
    "euler": (euler, 1, 1),
    "midpoint": (midpoint, 2, 2),
    "heun": (heun, 2, 2),
    "rk4": (rk4, 4, 4),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("times", [[0.0, 0.1, 0.4, 1.0], [1.0, 0.7, 0.2]], ids=["rising", "falling"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)], ids=str)
def test_steps_are_those_of_the_textbook(name: str, times: list[float], dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    expected = x
    for t, s in itertools.pairwise(times):
        expected = by_hand(name, expected, t, s)
    solver = NAMED[name][0]()
    got = solver.solve(Field(Model(velocity, "velocity"), linear()), x, torch.tensor(times, dtype=torch.float64))
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NAMED)
def test_order_and_cost_are_declared_and_registered(name: str) -> None:
    make, order, cost = NAMED[name]
    times = torch.linspace(0, 1, 8, dtype=torch.float64)
    for solver in (make(), fm.build("solver", name)):
        assert (solver.order, solver.evals_per_step, solver.stochastic) == (order, cost, False)
        assert solver.needs == {"velocity"}
        plan = solver.plan(linear(), times)
        assert plan.nfe == 7 * cost
        assert plan.times == tuple(times.tolist())


def test_stages_of_weight_nothing_are_not_evaluated() -> None:
    """Dormand–Prince's seventh stage serves its error estimate alone; without one it costs nothing."""
    solver = runge_kutta([[], [0.5], [0.25, 0.75]], [0.0, 1.0, 0.0])
    assert solver.plan(linear(), torch.linspace(0, 1, 3, dtype=torch.float64)).nfe == 4


def test_stages_at_the_end_of_a_step_are_at_the_grid_point_to_the_last_bit() -> None:
    """t + 1·(s − t) is not always s in floating point; s is where the path's schedule is safe."""
    times = torch.tensor([0.1, 0.3, 0.7, 1.0], dtype=torch.float64)
    for make in (heun, rk4):
        plan = make().plan(linear(), times)
        assert set(times.tolist()) >= {t for t in plan.state_times if min(abs(t - s) for s in times.tolist()) < 1e-9}
