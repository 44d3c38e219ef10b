"""The exact law of a plan's output on Gaussian data: solvers proven without drawing a sample.

Let x1 ~ N(m, V), x0 ~ N(0, I), independent, x_t = α·x1 + σ·x0. In the eigen-directions of V, of variance v each, the
prediction with the row (a, b) is affine in the state (Bishop 2006, 2.3.1),

    E[a·x1 + b·x0 | x_t] = a·m + γ·(x_t − α·m),    γ = (a·α·v + b·σ)/(α²·v + σ²),

so every state of a plan is an affine function of independent standard normals, `y_s = μ_s + Σ_i C_si·ξ_i`: ξ_0 is the
first state's, and each noisy row brings one of its own. The rows of the plan act on μ and C as they do on states.

References:
    Bishop 2006, Pattern Recognition and Machine Learning, 2.3.1.
    Kloeden & Platen 1992, 9.7 (weak convergence). https://doi.org/10.1007/978-3-662-12616-5
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fm_core.levels import levels
from fm_core.plan import Plan
from fm_core.prediction import Prediction, require_gaussian, row

__all__ = ["output_law", "state_laws"]

Law = tuple[Tensor, Tensor]
"""Mean and variance of every direction."""


def output_law(plan: Plan, path: Any, mean: Any, variance: Any, *, start: Law | None = None) -> Law:
    """Mean and variance of the last state of a plan, with the exact denoiser of Gaussian data.

    Args:
        plan: A plan in any of the five Gaussian spaces.
        path: The Gaussian path that it was made for.
        mean: Mean of the data in each eigen-direction of its covariance, any shape S.
        variance: Its variance there, shape S, ≥ 0 (> 0 where the plan asks at σ = 0).
        start: Mean and variance of the first state, shape S each; by default those of x_t at `plan.t0`, `α·m` and
            `α²·v + σ²`.

    Returns:
        Mean and variance of the last state, float64, shape S.

    >>> from fm_core import build
    >>> path, solver = build("path", "linear"), build("solver", "euler")
    >>> plan = solver.plan(path, torch.linspace(0, 1, 101, dtype=torch.float64))
    >>> mean, variance = output_law(plan, path, mean=3.0, variance=0.25)
    >>> print(f"{mean:.4f} {variance:.4f}")
    3.0000 0.2427
    """
    *_, (_, last_mean, last_variance) = state_laws(plan, path, mean, variance, start=start)
    return last_mean, last_variance


def state_laws(
    plan: Plan, path: Any, mean: Any, variance: Any, *, start: Law | None = None
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Time, mean and variance of the first state, of every accepted one, and of the last.

    Args and shapes are those of `output_law`.
    """
    mean, variance = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, variance))
    m, v = torch.broadcast_tensors(mean, variance)  # type: ignore[no-untyped-call]
    held: dict[int, Tensor] = {0: _first_state(plan, path, m, v, start)}
    offsets, gains = _predictor(plan, path, m, v)
    place = {j: i for i, j in enumerate(plan.evaluated)}
    yield plan.t0, *_moments(held[0])
    drawn = 1
    for new, step in enumerate(plan.program, 1):
        for j, _ in step.evaluate:
            held[-1 - j] = gains[place[j]] * held[j]
            held[-1 - j][0] += offsets[place[j]]
        state = sum(
            (weight * held[index] for weight, index in zip(step.weights, step.operands)),
            torch.zeros_like(held[new - 1]),
        )
        if step.noise:
            drawn += 1
            state[drawn] = step.noise
        held[new] = state
        for index in step.spent:
            del held[index]
        if step.accepted is not None or new == len(plan.rows):
            yield plan.rows[new - 1].t, *_moments(state)


def _first_state(plan: Plan, path: Any, m: Tensor, v: Tensor, start: Law | None) -> Tensor:
    """μ and C of the first state, `(2 + noisy rows, *S)`: the mean first, then the weights of ξ_0, ξ_1, …"""
    alpha, sigma = levels(path, torch.tensor(plan.t0, dtype=torch.float64))
    first, spread = start or (alpha * m, alpha.square() * v + sigma.square())
    state = m.new_zeros((2 + sum(bool(row.noise) for row in plan.rows), *m.shape))
    state[0], state[1] = first, torch.as_tensor(spread, dtype=torch.float64).sqrt()
    return state


def _predictor(plan: Plan, path: Any, m: Tensor, v: Tensor) -> Law:
    """Offsets and gains of `p_j = offset + γ·y_j` for every evaluated prediction, each `(evaluated, *S)`."""
    times = torch.tensor([plan.state_times[j] for j in plan.evaluated], dtype=torch.float64)
    alpha, sigma = levels(path, times)
    kind = require_gaussian(plan.space)
    if kind is Prediction.SCORE:  # −(x − α·m)/(α²·v + σ²): finite where σ = 0, which −noise/σ is not
        a, noise = torch.zeros_like(alpha), -torch.ones_like(alpha)
    else:
        slopes = (path.d_alpha(times), path.d_sigma(times)) if kind is Prediction.VELOCITY else (alpha, sigma)
        a, b = row(kind, alpha, sigma, *slopes)
        noise = b * sigma
    a, noise, alpha, sigma = (c.reshape((-1,) + (1,) * m.ndim) for c in (a, noise, alpha, sigma))
    gain = (a * alpha * v + noise) / (alpha.square() * v + sigma.square())
    return (a - gain * alpha) * m, gain


def _moments(state: Tensor) -> Law:
    return state[0].clone(), state[1:].square().sum(0)
