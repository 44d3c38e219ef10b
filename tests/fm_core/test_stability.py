"""Order and stability read off coefficients, against what the theory says of each method."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import pytest
import torch

import fm_core as fm
from fm_core.stability import amplification, order_of, zero_stability

LINEAR = fm.build("path", "linear")


def _grid(steps: int, start: float = 0.0, end: float = 1.0) -> torch.Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("path", ["linear", "vp", "ve"])
@pytest.mark.parametrize(
    ("solver", "options", "order"),
    [
        ("euler", {}, 1),
        ("midpoint", {}, 2),
        ("rk4", {}, 4),
        ("ddim", {}, 1),
        ("dpm_solver_pp", {"order": 3}, 3),
        ("unipc", {"order": 3}, 4),
        ("adams_pc", {"order": 4}, 4),
        ("adams_pc", {"order": 5}, 5),
        ("deis", {"order": 3}, 3),
        ("ipndm", {}, 2),
        ("pndm", {}, 2),
    ],
)
def test_the_order_is_read_off_the_coefficients(path, solver, options, order):
    """On a uniform grid starts and ends of low order would hide it, and one equation's error may change sign."""
    built = fm.build("solver", solver, **options)
    assert built.order == order
    assert order_of(built, fm.build("path", path)) == pytest.approx(order, abs=0.15)


def test_the_order_does_not_depend_on_the_number_of_steps_it_is_measured_from():
    solver, path = fm.build("solver", "deis", order=3), fm.build("path", "vp")
    assert [order_of(solver, path, steps=n) for n in (24, 96)] == pytest.approx([3, 3], abs=0.15)


def test_a_method_of_a_lower_order_than_it_declares_is_found_out():
    """Called 3, the explicit trapezoid still has order 2; with weights that are 1 % too large, 0."""
    heun = fm.build("solver", "heun")
    assert order_of(attrs.evolve(heun, order=3), LINEAR) == pytest.approx(2, abs=0.1)

    def off(path, times):
        plan = heun.plan(path, times)
        rows = [attrs.evolve(row, predictions=[(j, 1.01 * w) for j, w in row.predictions]) for row in plan.rows]
        return attrs.evolve(plan, rows=rows)

    assert order_of(fm.TableSolver(off, space="velocity", order=2), LINEAR) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("solver", "asked", "error", "says"),
    [
        ("dopri5", {}, fm.ArgumentError, "a solver with a fixed grid"),
        ("ddpm", {}, fm.TimeError, "adds noise"),
        ("heun", {"steps": 0}, fm.TimeError, "from 4 steps on"),
        ("heun", {"span": (0.75, 0.25)}, fm.TimeError, "a rising span"),
        ("heun", {"span": (-1, 2)}, fm.TimeError, r"must lie in \[0, 1\]"),
    ],
)
def test_what_has_no_order_is_refused(solver, asked, error, says):
    with pytest.raises(error, match=says):
        order_of(fm.build("solver", solver), LINEAR, **asked)


def test_a_table_of_one_number_of_steps_has_no_order():
    fitted = fm.build("solver", "calibrated", space="velocity", times=[0, 0.5, 1], weights=[[0.5], [-0.25, 0.75]])
    with pytest.raises(fm.ArgumentError, match="this table is of 2 alone"):
        order_of(fitted, LINEAR)


def _two_step(theta: float) -> fm.TableSolver:
    """y_{s+1} = (1 + θ)·y_s − θ·y_{s−1} + h·((3 − θ)/2·p_s − (1 + θ)/2·p_{s−1}): consistent of order 2 for any θ, and
    zero-stable for −1 ≤ θ < 1 only (its roots are 1 and θ).
    """

    def plan(path, times):
        grid = times.tolist()
        rows = [fm.Row(grid[1], ((0, 1.0),), ((0, grid[1] - grid[0]),))]
        for s, (t, end) in enumerate(pairwise(grid[1:]), 1):
            h = end - t
            rows.append(
                fm.Row(
                    end,
                    ((s, 1 + theta), (s - 1, -theta)),
                    ((s, h * (3 - theta) / 2), (s - 1, -h * (1 + theta) / 2)),
                )
            )
        return fm.Plan("velocity", grid[0], rows)

    return fm.TableSolver(plan, space="velocity", order=2)


def test_zero_stability_tells_methods_that_converge_from_those_that_cannot():
    """A consistent method whose second root is 1.5 doubles errors every other step, whatever the network."""
    for solver in ("heun", "rk4", "adams_pc", "adams_bashforth"):
        assert zero_stability(fm.build("solver", solver).plan(LINEAR, _grid(40)), LINEAR) == pytest.approx(1.0)
    bounded = [zero_stability(_two_step(0.5).plan(LINEAR, _grid(n)), LINEAR) for n in (20, 80)]
    assert bounded == pytest.approx([2.0, 2.0], rel=1e-4)
    grown = [zero_stability(_two_step(1.5).plan(LINEAR, _grid(n)), LINEAR) for n in (20, 40)]
    assert grown[1] / grown[0] == pytest.approx(1.5**20, rel=0.01)
    assert order_of(_two_step(0.0), LINEAR) == pytest.approx(2, abs=0.1)
    assert order_of(_two_step(1.5), LINEAR) < 0


@pytest.mark.parametrize("mu", [0.3, -1.7, 0.4 + 1.1j])
def test_the_amplification_of_runge_kutta_methods_is_their_stability_polynomial(mu):
    for solver, terms in (("euler", 2), ("heun", 3), ("midpoint", 3), ("rk4", 5)):
        step = sum((mu / 3) ** k / math.factorial(k) for k in range(terms))
        plan = fm.build("solver", solver).plan(LINEAR, _grid(3))
        assert amplification(plan, LINEAR, mu) == pytest.approx(step**3)


def test_conversions_are_folded_before_stability_is_read():
    """DDIM on the linear path is Euler's method on the velocity."""
    plan, times = fm.build("solver", "ddim").plan(LINEAR, _grid(4, 0.1, 0.9)), _grid(4, 0.1, 0.9)
    euler = fm.build("solver", "euler").plan(LINEAR, times)
    assert amplification(plan, LINEAR, -0.8) == pytest.approx(amplification(euler, LINEAR, -0.8))
    assert zero_stability(plan, LINEAR) == pytest.approx(1.0)


def test_noise_has_no_order_of_an_ode_method():
    plan = fm.build("solver", "ddpm").plan(LINEAR, _grid(4))
    with pytest.raises(fm.TimeError, match="adds noise"):
        amplification(plan, LINEAR, -1.0)
