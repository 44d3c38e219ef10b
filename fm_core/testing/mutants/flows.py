"""Solvers that end elsewhere than on the flow, with one defect each."""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fm_core.errors import BudgetError
from fm_core.plan import Plan, Row
from fm_core.prediction import Prediction
from fm_core.randomness import normal
from fm_core.table_solver import TableSolver
from fm_core.testing.mutants.plans import DPMPP, Loop, ab2, ddim, euler, heun, maruyama, solver, wide
from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []

VELOCITY, NOISE = Prediction.VELOCITY, Prediction.NOISE


def _euler_step(field: Any, x: Tensor, t: float, s: float, generator: Any) -> Tensor:
    u: Tensor = field.predict(x, t, None, VELOCITY)
    return x + (s - t) * u


def _heun_step(field: Any, x: Tensor, t: float, s: float, generator: Any) -> Tensor:
    u: Tensor = field.predict(x, t, None, VELOCITY)
    end: Tensor = x + (s - t) / 2 * (u + field.predict(x + (s - t) * u, s, None, VELOCITY))
    return end


def _rk4_step(field: Any, x: Tensor, t: float, s: float, generator: Any, last: int = 2) -> Tensor:
    """Runge–Kutta 4, whose last stage starts from the slope of this number."""
    h, slopes = s - t, [field.predict(x, t, None, VELOCITY)]
    for _ in range(2):
        slopes.append(field.predict(x + h / 2 * slopes[-1], t + h / 2, None, VELOCITY))
    slopes.append(field.predict(x + h * slopes[last], s, None, VELOCITY))
    end: Tensor = x + h / 6 * (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3])
    return end


class _AdamsLoop:
    """Adams–Bashforth 2 as a loop with a history of its own for every run: no table, and no one-step method."""

    needs, order, evals_per_step = frozenset({VELOCITY}), 2, 1

    def solve(
        self, field: Any, x: Tensor, times: Tensor, *, cond: Any = None, generator: Any = None, on_step: Any = None
    ) -> Tensor:
        before, last = None, 1.0
        for i, (t, s) in enumerate(pairwise(times.tolist())):
            if on_step and not i:
                on_step(t, x)
            h, u = s - t, field.predict(x, t, cond, VELOCITY)
            x = x + h * (u if before is None else u + h / (2 * last) * (u - before))
            before, last = u, h
            if on_step:
                on_step(s, x)
        return x


def _langevin_step(
    field: Any, x: Tensor, t: float, s: float, generator: Any, drift: float = 1, noise: float = 1
) -> Tensor:
    """Euler–Maruyama with g² = 1: dX = (u + ½·score) dt + dW."""
    u, score = field.predict(x, t, None, VELOCITY, Prediction.SCORE)
    fresh = normal(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    moved: Tensor = x + (s - t) * (u + drift * 0.5 * score) + noise * abs(s - t) ** 0.5 * fresh
    return moved


class _FourSteps:
    """A grid of four steps over the whole interval, and no other: what a calibrated solver has."""

    def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        if steps != 4:
            raise BudgetError(f"this solver is made for 4 steps; got {steps}")
        return torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)


def _langevin(order: int = 1, **changes: float) -> Loop:
    needs = frozenset({VELOCITY, Prediction.SCORE})
    return Loop(lambda *a: _langevin_step(*a, **changes), needs, order, stochastic=True, falls=False)  # type: ignore[arg-type]


right("solver", "euler", lambda: solver(euler))
right("solver", "heun", lambda: solver(heun, order=2, evals_per_step=2))
right("solver", "ab2", lambda: solver(ab2, order=2))
right("solver", "ddim", ddim)
right("solver", "dpm_pp_2m", lambda: solver(DPMPP(2), "data", 2, exact_in="log_snr"))
right("solver", "dpm_pp_3m", lambda: solver(DPMPP(3), "data", 3, exact_in="log_snr"))
right("solver", "sde_dpm_pp", lambda: solver(DPMPP(3, 1.0), "data", 2, stochastic=True, exact_in="log_snr"))
right("solver", "maruyama", maruyama)
right("solver", "of_one_grid", lambda: solver(euler, grid=_FourSteps()))
right("solver", "loop", lambda: Loop(_euler_step))
right("solver", "rk4_loop", lambda: Loop(_rk4_step, order=4, evals_per_step=4))
right("solver", "adams_loop", _AdamsLoop)
right("solver", "stochastic_loop", _langevin)


def _to_equal_steps(times: Tensor) -> Tensor:
    """Where every step would end if the grid were uniform."""
    return (times[:-1] + (times[-1] - times[0]) / (len(times) - 1)).clamp(max=0.99)


def _steps(length: Any, fall: Any = None) -> Any:
    """Euler's table with steps of another length: `length(times) -> (N,)`."""

    def plan(path: Any, times: Tensor) -> Plan:
        rows = zip(times[1:].tolist(), length(times).tolist(), strict=True)
        return Plan(VELOCITY, float(times[0]), [Row(s, ((k, 1.0),), ((k, h),)) for k, (s, h) in enumerate(rows)])

    return plan


def _add(times: Tensor) -> Tensor:
    steps = times.diff()
    steps[0] += times[0]
    return steps


def _addim(path: Any, times: Tensor) -> Plan:
    """DDIM with α_t where α_s is meant."""
    (alpha_t, sigma_t), sigma_s = (path.alpha(times[:-1]), path.sigma(times[:-1])), path.sigma(times[1:])
    keep = (sigma_s / sigma_t).tolist()
    data = (alpha_t - alpha_t * sigma_s / sigma_t).tolist()
    rows = [Row(t, ((k, keep[k]),), ((k, data[k]),)) for k, t in enumerate(times[1:].tolist())]
    return Plan(Prediction.DATA, float(times[0]), rows)


plant("solver", "builds", "its factory raises", lambda: 1 / 0)
plant("solver", "builds", "no evals_per_step", lambda: type("Bare", (), {"needs": (), "order": 1, "solve": print})())
plant(
    "solver",
    "flow_of_a_gaussian",
    "α where the next α is meant",
    lambda: solver(_addim, "data"),
    found="hackable_diffusion, aDDIM",
)
plant(
    "solver",
    "flow_of_a_gaussian",
    "steps taken to be equal, prev = t − T//N, on a grid where they are not",
    lambda: ddim(before=_to_equal_steps),
    found="diffusers, DDIM (issues 9261, 11347)",
)
plant(
    "solver",
    "flow_of_a_gaussian",
    "the last step left out",
    lambda: solver(_steps(lambda t: t.diff() * (t[1:] < t[-1]))),
)
plant(
    "solver",
    "error_falls_with_the_steps",
    "√(α_s² + σ_t²) for σ_s in the slope's weight: order 1 where 2 is claimed",
    lambda: solver(DPMPP(2, slope=wide), "data", 2),
    found="azula, REABSampler",
)
plant("solver", "error_falls_with_the_steps", "order 2 claimed by Euler", lambda: solver(euler, order=2))
plant(
    "solver",
    "error_falls_with_the_steps",
    "order 2 claimed by a loop of order 1",
    lambda: Loop(_euler_step, order=2),
)
plant(
    "solver",
    "error_falls_with_the_steps",
    "order 4 claimed by Heun, in a loop",
    lambda: Loop(_heun_step, order=4, evals_per_step=2),
)
plant(
    "solver",
    "error_falls_with_the_steps",
    "Runge–Kutta 4 whose last stage starts from the second slope, not the third",
    lambda: Loop(functools.partial(_rk4_step, last=1), order=4, evals_per_step=4),
)
plant("solver", "any_interval", "the first step taken to begin at t = 0", lambda: solver(_steps(_add)))
plant(
    "solver",
    "any_interval",
    "steps of 1/N whatever the interval",
    lambda: solver(_steps(lambda t: 0 * t[1:] + 1 / (len(t) - 1))),
)
plant(
    "solver",
    "constant_velocity_on_an_interval",
    "a whole unit of time on any interval",
    lambda: solver(_steps(lambda t: t.diff() / (t[-1] - t[0]))),
    found="flow_matching, Riemannian solver",
)
plant(
    "solver",
    "constant_velocity_on_an_interval",
    "falling grids run forward",
    lambda: solver(_steps(lambda t: t.diff().abs())),
    found="flow_matching, Riemannian solver",
)
plant(
    "solver",
    "inversion",
    "falling grids run forward",
    lambda: Loop(
        lambda field, x, t, s, g: _euler_step(field, x, 0.0, abs(s - t), g) if s < t else _euler_step(field, x, t, s, g)
    ),
)
plant(
    "solver",
    "inversion",
    "steps of a falling grid twice as long",
    lambda: solver(_steps(lambda t: t.diff() * torch.where(t.diff() < 0, 2.0, 1.0))),
)
plant("solver", "inversion", "noise added on a falling grid", lambda: Loop(_langevin_step, stochastic=True, falls=True))


def _only_noise(level: float = 1.0, stochastic: bool | None = None) -> TableSolver:
    made = maruyama(drift=1.0, noise=level)
    return solver(made.plan, "noise", stochastic=level > 0 if stochastic is None else stochastic)


plant("solver", "zero_noise_is_the_flow", "the noise goes, its drift stays", _only_noise)
plant(
    "solver",
    "zero_noise_is_the_flow",
    "declared stochastic without noise",
    lambda level=1.0: solver(maruyama(drift=level**2, noise=level).plan, "noise", stochastic=True),
)
right(
    "solver",
    "any_level",
    lambda level=1.0: solver(maruyama(drift=level**2, noise=level).plan, "noise", stochastic=level > 0),
)
plant("solver", "bias_of_samples", "noise without the drift that makes up for it", lambda: _langevin(drift=0.0))
plant("solver", "law_of_the_output", "weak order 3 claimed by Euler–Maruyama, in a loop", lambda: _langevin(order=3))
plant("solver", "law_of_the_output", "noise 15 % too large, in a loop", lambda: _langevin(noise=1.15))
plant("solver", "law_of_the_output", "noise 2 % too large, in a loop", lambda: _langevin(noise=1.02))
plant("solver", "bias_of_samples", "drift without its noise", lambda: _langevin(noise=0.3))
