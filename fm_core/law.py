"""The exact law of a plan's output on Gaussian data: solvers proven without drawing a sample.

Let x1 ~ N(m, V), x0 ~ N(0, I), independent, x_t = α·x1 + σ·x0. In the eigen-directions of V, of variance v each, the
prediction with the row (a, b) is affine in the state (Bishop 2006, 2.3.1),

    E[a·x1 + b·x0 | x_t] = a·m + γ·(x_t − α·m),    γ = (a·α·v + b·σ)/(α²·v + σ²),

so every state of a plan is an affine function of independent standard normals, `y_s = μ_s + g_s·ξ + Σ_i c_si·ξ_i`: ξ is
the first state's, in units of its own spread, and each noisy row brings a ξ_i. The rows of the plan act on μ, g and c
as they do on states. In any basis, V = Q·diag(v)·Qᵀ and a first state of covariance S, the covariance of y_s is

    Q·(diag(g)·QᵀSQ·diag(g) + diag(Σ_i c_i²))·Qᵀ.

References:
    Bishop 2006, Pattern Recognition and Machine Learning, 2.3.1.
    Kloeden & Platen 1992, 9.7 (weak convergence). https://doi.org/10.1007/978-3-662-12616-5
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import ArgumentError, DataError, ShapeError
from fm_core.levels import levels
from fm_core.plan import Plan
from fm_core.prediction import Prediction, require_gaussian, row

__all__ = ["output_law", "state_laws"]

Law = tuple[Tensor, Tensor]
"""Mean with variance of every direction, or with covariance."""

SYMMETRIC = 1e-6
"""Of its largest entry, by how much a covariance may differ from its transpose, or have a negative eigenvalue."""


def output_law(
    plan: Plan,
    path: Any,
    mean: Any,
    variance: Any = None,
    *,
    covariance: Any = None,
    start: tuple[Any, Any] | None = None,
) -> Law:
    """Mean and variance, or covariance, of the last state of a plan, with the exact denoiser of Gaussian data.

    Args:
        plan: A plan in any of the five Gaussian spaces.
        path: The Gaussian path that it was made for.
        mean: Mean of the data in each direction, any shape S; or one number for all.
        variance: Its variance in each of these independent directions, shape S or one number, ≥ 0 (> 0 where the plan
            asks at σ = 0).
        covariance: In place of `variance`: the data's covariance, `(D, D)`, S being `(D,)`.
        start: Mean, and variance or covariance, of the first state; by default those of x_t at `plan.t0`, `α·m` and
            `α²·v + σ²`.

    Returns:
        Mean, float64, shape S, and variance of shape S, or covariance `(D, D)`, of the last state.

    Raises:
        ShapeError: For a variance or covariance of another shape than the mean's.
        DataError: For a variance that is negative or not finite, for a covariance that is none, or for data without
            spread where the plan asks at σ = 0.

    >>> from fm_core import build
    >>> path, solver = build("path", "linear"), build("solver", "euler")
    >>> plan = solver.plan(path, torch.linspace(0, 1, 101, dtype=torch.float64))
    >>> mean, variance = output_law(plan, path, mean=3.0, variance=0.25)
    >>> print(f"{mean:.4f} {variance:.4f}")
    3.0000 0.2427
    >>> print(output_law(plan, path, mean=3.0, covariance=[[0.25, 0.2], [0.2, 0.25]])[1].numpy().round(4))
    [[0.2429 0.1952]
     [0.1952 0.2429]]
    """
    *_, (_, last_mean, spread) = state_laws(plan, path, mean, variance, covariance=covariance, start=start)
    return last_mean, spread


def state_laws(
    plan: Plan,
    path: Any,
    mean: Any,
    variance: Any = None,
    *,
    covariance: Any = None,
    start: tuple[Any, Any] | None = None,
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Time, mean and variance, or covariance, of the first state, of every accepted one, and of the last.

    Args and shapes are those of `output_law`.
    """
    if (variance is None) == (covariance is None):
        raise ArgumentError("give the variance in each direction, variance=, or covariance=, (D, D): one of the two")
    if covariance is None:
        m, v = _along_axes(mean, variance, "the data")
        basis = None
    else:
        m, whole = _any_basis(mean, covariance, "the data")
        v, basis = torch.linalg.eigh(whole)
        m, v = m @ basis, v.clamp(min=0.0)
    return _laws(plan, path, m, v, _First.of(plan, path, m, v, basis, start))


@frozen(eq=False)
class _First:
    """The law of the first state, in the eigenbasis Q of the data: mean, and variances or covariance there."""

    mean: Tensor
    spread: Tensor
    basis: Tensor | None

    @classmethod
    def of(
        cls, plan: Plan, path: Any, m: Tensor, v: Tensor, basis: Tensor | None, start: tuple[Any, Any] | None
    ) -> _First:
        alpha, sigma = levels(path, torch.tensor(plan.t0, dtype=torch.float64))
        if start is None:
            spread = alpha.square() * v + sigma.square()
            return cls(alpha * m, spread if basis is None else spread.diag(), basis)
        if basis is None:
            mean, spread = (torch.broadcast_to(x, m.shape) for x in _along_axes(*start, "the first state"))
            return cls(mean, spread, None)
        mean, whole = _any_basis(*start, "the first state")
        return cls(mean @ basis, basis.T @ whole @ basis, basis)

    def moments(self, state: Tensor) -> Law:
        """Mean and (co)variance of a state, given as μ, g and c_i, `(2 + noisy rows, *S)`."""
        gain, fresh = state[1], state[2:].square().sum(0)
        if self.basis is None:
            return state[0].clone(), gain.square() * self.spread + fresh
        inside = gain[:, None] * self.spread * gain + fresh.diag()
        return self.basis @ state[0], self.basis @ inside @ self.basis.T


def _laws(plan: Plan, path: Any, m: Tensor, v: Tensor, first: _First) -> Iterator[tuple[float, Tensor, Tensor]]:
    state = m.new_zeros((2 + sum(bool(row.noise) for row in plan.rows), *m.shape))
    state[0], state[1] = first.mean, 1.0
    held: dict[int, Tensor] = {0: state}
    offsets, gains = _predictor(plan, path, m, v)
    place = {j: i for i, j in enumerate(plan.evaluated)}
    yield plan.t0, *first.moments(state)
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
            yield plan.rows[new - 1].t, *first.moments(state)


def _along_axes(mean: Any, variance: Any, whose: str) -> Law:
    """A mean and the variances of its directions, of one shape."""
    m, v = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, variance))
    if m.shape != v.shape and v.ndim and (m.ndim or v.ndim > 1):
        raise ShapeError(
            f"the variance of {whose} is one number, or one for each entry of the mean, shape {tuple(m.shape)}; got "
            f"shape {tuple(v.shape)}. A matrix is given as covariance=, with a mean (D,) and a start of its kind"
        )
    _require_spread(v, whose)
    m, v = torch.broadcast_tensors(m, v)  # type: ignore[no-untyped-call]
    return m, v


def _any_basis(mean: Any, covariance: Any, whose: str) -> Law:
    """A mean `(D,)` and its covariance `(D, D)`."""
    m, whole = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, covariance))
    if whole.ndim != 2 or whole.shape[0] != whole.shape[1] or (m.ndim and m.shape != whole.shape[:1]):
        raise ShapeError(
            f"the covariance of {whose} has shape (D, D) and its mean (D,), or is one number; got {tuple(whole.shape)} "
            f"and {tuple(m.shape)}"
        )
    scale = SYMMETRIC * whole.abs().max()
    if not (whole - whole.T).abs().max() <= scale:
        raise DataError(f"the covariance of {whose} is symmetric and finite; got {whole.tolist()}")
    whole = (whole + whole.T) / 2
    _require_spread(torch.linalg.eigvalsh(whole) + scale, f"{whose} along some direction")
    return m.expand(whole.shape[0]), whole


def _require_spread(variance: Tensor, whose: str) -> None:
    if not (variance.isfinite() & (variance >= 0)).all():
        raise DataError(f"the variance of {whose} is finite and ≥ 0; got {variance.tolist()}")


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
    bad = ~gain.isfinite().reshape(len(gain), v.numel()).all(1)
    if bad.any():
        raise DataError(
            f"this plan asks for the {plan.space} at t = {times[bad][0]:.6g}, where it is not finite for these data: "
            "α²·v + σ² = 0, or the path's slope is infinite. Give data a variance > 0, or keep the grid off that end"
        )
    return (a - gain * alpha) * m, gain
