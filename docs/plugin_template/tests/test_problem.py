"""The reference is where the flow ends, and the benchmark measures solvers by it."""

from __future__ import annotations

from pathlib import Path

import torch
from fm_core.bench.solvers import bench_solvers

from my_plugin.problem import Ellipse


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_reference_is_where_many_small_steps_end() -> None:
    problem = Ellipse(mean=2.0, stds=(0.5, 1.0, 2.0))
    x0 = torch.randn(5, 3, generator=generator(), dtype=torch.float64)
    fine = problem.pipeline.replace(solver="rk4").sample(x0=x0, steps=200, seed=0).x
    torch.testing.assert_close(problem.reference(x0), fine, atol=1e-7, rtol=0)


def test_the_truth_has_the_moments_that_it_says() -> None:
    x = Ellipse(mean=2.0, stds=(0.5, 1.0)).truth(40_000, generator())
    torch.testing.assert_close(x.mean(0), torch.full((2,), 2.0, dtype=torch.float64), atol=0.03, rtol=0)
    torch.testing.assert_close(x.std(0), torch.tensor([0.5, 1.0], dtype=torch.float64), atol=0, rtol=0.02)


def test_a_solver_of_higher_order_is_found_nearer_to_it(tmp_path: Path) -> None:
    found = bench_solvers(
        tmp_path,
        problems=[Ellipse(stds=(0.5, 2.0))],
        only=["euler", "rk4"],
        budgets=[20],
        seeds=1,
        samples=16,
        progress=False,
    )
    errors = {one.contender: one.figures["error_median"] for one in found.of("solvers")}
    assert 0 < errors["rk4"] < errors["euler"] / 10
