"""The law of a solver's output on Gaussian data, where it is known exactly: stochastic solvers proven without luck.

The exact field of Gaussian data is affine, and so is a solver on it: what it ends in is `m + Σ_i g_i·ξ_i`, for the
state's own ξ_0 ~ N(0, 1) and every number that is drawn on the way. A table says m and g by its weights
(`fm_core.law`). Any other solver is asked: each number that it draws is given to it, as a small impulse in one row of a
batch and 0 in the others, and what the rows differ by is g.

References:
    Kloeden & Platen 1992, 9.7 (weak convergence). https://doi.org/10.1007/978-3-662-12616-5
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from fm_core.gaussian import GaussianPath
from fm_core.law import state_laws
from fm_core.protocols import Solver, declared
from fm_core.randomness import BlockGenerator, make_generator
from fm_core.table_solver import TableSolver
from fm_core.testing.fields import FROM, GAUSSIAN, PATHS, TO, power_of, run, settled, start
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.solvers import adaptive, free, times_for

__all__: list[str] = []


@check_of("solver")
def law_of_the_output(subject: Subject) -> float:
    """On Gaussian data the exact mean and variance of its output approach the path's as a power p of the step.

    Noise without the drift that makes up for it keeps a bias however many the steps, and a weak order that is too high
    shows. Of a solver that is no table the law is known by its answers to single numbers of noise.
    """
    solver, least = free(subject), math.inf
    if not isinstance(solver, TableSolver) and (adaptive(solver) or not declared(solver, "stochastic")):
        raise Skipped("it draws nothing: its order is measured on the flow")
    for path in PATHS.values():
        bias, sizes = _bias(solver, path)
        least = min(least, power_of(bias, sizes, solver.order))
        at_most(bias(sizes[0]), 0.2, f"bias of the output's law after {sizes[0]} steps to t = {TO}")
    if least < solver.order - 0.35:
        kind = "weak order" if declared(solver, "stochastic") else "order"
        raise Failed(f"the bias falls like 1/N^{least:.2f}; {kind} {solver.order} is declared", least)
    return least if math.isfinite(least) else float(solver.order)


def _bias(solver: Solver, path: GaussianPath) -> tuple[Callable[[int], float], tuple[int, int]]:
    """The bias of the output's law after N steps, and the N of which the fall is measured."""
    if not isinstance(solver, TableSolver):
        return functools.cache(_of_impulses(solver, path)), (16, 64)
    # Of a stochastic predictor–corrector the errors in h² and h³ cancel on coarser grids.
    return functools.cache(_of_table(solver, path)), (128, 512) if solver.stochastic else (32, 128)


def _of_table(solver: TableSolver, path: GaussianPath) -> Callable[[int], float]:
    mean, variance = (torch.tensor(values, dtype=torch.float64) for values in ([0.0, 1.0, -2.0], [0.3, 1.0, 2.5]))

    def bias(n: int) -> float:
        *_, (_, m, v) = state_laws(solver.plan(path, settled(n)), path, mean, variance)
        return _away(path, m, v, mean, variance)

    return bias


def _away(path: GaussianPath, m: Tensor, v: Tensor, mean: Tensor, variance: Tensor) -> float:
    """How far a mean and a variance are from the path's at the end of the grid."""
    alpha, sigma = (f(torch.tensor(TO, dtype=torch.float64)) for f in (path.alpha, path.sigma))
    return float(torch.stack([m - alpha * mean, v - alpha.square() * variance - sigma.square()]).abs().max())


IMPULSE = 1e-3
"""What a row is given in place of a number from N(0, 1): so little that bounds on sizes are not met."""


class _Impulses(BlockGenerator):
    """Noise of which draw k is an impulse in row 3 + k, and in row 2, which has them all, and else 0."""

    drawn = 0

    def draw(self, sampler: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """The next draw's rows, of the shape and dtype that the sampler gives."""
        noise = torch.zeros_like(super().draw(sampler))
        for row in (2, 3 + self.drawn):
            noise[row : row + 1] = IMPULSE
        self.drawn += 1
        return noise


def _of_impulses(solver: Solver, path: GaussianPath) -> Callable[[int], float]:
    mean, variance = GAUSSIAN.means[0], GAUSSIAN.stds[0].square()
    alpha, sigma = (f(torch.tensor(FROM, dtype=torch.float64)) for f in (path.alpha, path.sigma))
    spread = (alpha.square() * variance + sigma.square()).sqrt()

    def bias(n: int) -> float:
        m, gains = _answers(solver, path, alpha * mean, spread, settled(n))
        return _away(path, m, gains.square().sum(0), mean, variance)

    return bias


def _answers(solver: Solver, path: GaussianPath, mean: Tensor, spread: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """m and g of a solver's output, shapes `(D,)` and `(1 + numbers drawn, D)`.

    Raises:
        Skipped: If it is not affine.
    """
    counting = _Impulses(0, 0, 1)
    run(solver, path, GAUSSIAN, mean[None], times, generator=counting)
    rows = 3 + counting.drawn
    x = mean.repeat(rows, 1)
    x[1:3] += IMPULSE * spread
    middle, *others = run(solver, path, GAUSSIAN, x, times, generator=_Impulses(0, 0, rows)).x
    own, whole, *drawn = ((other - middle) / IMPULSE for other in others)
    gains = torch.stack([own, *drawn])
    if float((whole - gains.sum(0)).abs().max()) > 1e-6 * float(1 + gains.abs().sum(0).max()):
        raise Skipped("it is not affine in its state and noise on Gaussian data: see bias_of_samples")
    return middle, gains


@check_of("solver")
def bias_of_samples(subject: Subject) -> float:
    """Of a stochastic solver that is no table, 4,000 samples of Gaussian data have its mean and standard deviation.

    How the bias falls is measured without samples: see law_of_the_output.
    """
    solver, path, n = free(subject), PATHS["trigonometric"], 4000
    if not declared(solver, "stochastic"):
        raise Skipped("it is not stochastic")
    if isinstance(solver, TableSolver):
        raise Skipped("it is a table: see law_of_the_output")
    end = run(
        solver, path, GAUSSIAN, start(path, GAUSSIAN, FROM, n), times_for(solver, 100), generator=make_generator(5)
    ).x
    alpha, sigma = (f(torch.tensor(TO, dtype=torch.float64)) for f in (path.alpha, path.sigma))
    spread = (alpha.square() * GAUSSIAN.stds[0] ** 2 + sigma.square()).sqrt()
    mean = (end.mean(0) - alpha * GAUSSIAN.means[0]).abs().max() / spread
    return at_most(float(max(mean, (end.std(0) / spread - 1).abs().max())), 0.1, "relative bias of mean or spread")
