"""Straight coordinates: every Gaussian path is the linear one, at other times and another scale.

    x_t = α·x1 + σ·x0 = κ·(τ·x1 + (1 − τ)·x0)    with κ = α + σ and τ = α/(α + σ)

so y = x_t/κ follows the linear path, on its own clock τ, and dy/dτ = u = E[x1 − x0 | x_t]. The data prediction knows
nothing of κ and τ. Hence a table for velocities of the linear path is one for every Gaussian path, with the same errors
on the same data, written in any prediction p = a·x1 + b·x0 of that path by

    u = m·x_t + k·p,    m = (a + b)/(α·b − σ·a),    k = −(α + σ)/(α·b − σ·a).

References:
    Karras et al. 2022, section 2 and appendix B (scale and time of a flow are free). https://arxiv.org/abs/2206.00364
    Liu et al. 2023, proposition 3.4 (curved interpolations by straight ones). https://arxiv.org/abs/2209.03003
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import evolve
from torch import Tensor

from fm_core.levels import levels
from fm_core.plan import Plan, Row
from fm_core.prediction import Prediction
from fm_core.protocols import ProbabilityPath

if TYPE_CHECKING:
    from fm_core.table_solver import TableSolver

__all__ = ["clock", "straight_plan", "straight_space", "straight_velocity", "straightened", "times_of_clock"]


def clock(path: ProbabilityPath, times: Tensor) -> tuple[Tensor, Tensor]:
    """τ and κ at times of any shape, float64.

    Raises:
        CompatError: If the path is not Gaussian.
    """
    alpha, sigma = levels(path, times)
    return alpha / (alpha + sigma), alpha + sigma


def times_of_clock(path: ProbabilityPath, tau: Tensor) -> Tensor:
    """The times at which the clock shows τ, float64, of any shape."""
    return path.t_of_log_snr(2 * (tau.log() - (1 - tau).log()))  # type: ignore[attr-defined,no-any-return]


def straight_space(path: ProbabilityPath) -> Prediction:
    """What the tables of a path ask for: its velocity if finite to both ends, or all there is, else the data."""
    if Prediction.DATA not in path.provides:
        return Prediction.VELOCITY
    ends = path.span(Prediction.VELOCITY, (Prediction.VELOCITY,))  # type: ignore[attr-defined]
    return Prediction.VELOCITY if ends == (0.0, 1.0) else Prediction.DATA


def straight_velocity(path: ProbabilityPath, times: Tensor, src: Prediction) -> tuple[Tensor, Tensor]:
    """Coefficients (m, k) of `u = m·x_t + k·p` for a prediction p, float64, of the shape of `times`."""
    (data, of_data), (noise, of_noise) = (
        path.affine(times, src=src, dst=kind)  # type: ignore[attr-defined]
        for kind in (Prediction.DATA, Prediction.NOISE)
    )
    return data - noise, of_data - of_noise


def straight_plan(solver: TableSolver, linear: ProbabilityPath, path: ProbabilityPath, times: Tensor) -> Plan:
    """The table on a path that a solver's table of the linear path's velocities is.

    On a path that knows velocities alone it is the solver's own. Where the velocity at the last time, σ = 0, is asked
    for and cannot be told from the data prediction, the table ends inside by the path's margin, or half of a last step
    that is shorter, and the flow from there is x1 = α(1)·½·(y/α + D(y)) up to O(σ⁴), as `encoding` has it.

    Args:
        solver: A table of velocities.
        linear: The linear path.
        path: Any path.
        times: The grid, `(N+1,)`.
    """
    if Prediction.DATA not in path.provides:
        return solver.plan(path, times)
    plan = solver.plan(linear, clock(path, times)[0])
    if straight_space(path) is not Prediction.DATA or all(plan.state_times[j] < 1.0 for j in plan.evaluated):
        return straightened(plan, path, times)
    middle = float(times[-2] + times[-1]) / 2
    stop = max(path.span(Prediction.DATA, ())[1], middle)  # type: ignore[attr-defined]
    inside = torch.cat([times[:-1], times.new_tensor([stop])])
    table = straightened(solver.plan(linear, clock(path, inside)[0]), path, inside)
    last, (alpha, end) = len(table.rows), levels(path, torch.stack([inside[-1], times[-1]]))[0].tolist()
    closing = Row(float(times[-1]), ((last, end / alpha / 2),), ((last, end / 2),))
    return evolve(table, rows=(*table.rows[:-1], evolve(table.rows[-1], accepted=False), closing))


def straightened(plan: Plan, path: ProbabilityPath, times: Tensor, space: Prediction | None = None) -> Plan:
    """The table on a path that a table of the linear path is.

    Args:
        plan: On velocities of the linear path, its grid points at τ of `times`. If it goes on to τ = 1 beyond them, it
            ends at clean data, as a run does that the data prediction closes: there κ = 1, whatever noise the path ends
            with.
        path: Gaussian path.
        times: The grid, `(N+1,)`.
        space: What it asks for on this path; that of `straight_space` by default.
    """
    space = straight_space(path) if space is None else space
    own = _own_times(plan, path, times)
    scale = clock(path, own)[1].tolist()
    if len(plan.times) > len(times):
        scale[-1] = 1.0
    asked = list(plan.evaluated)
    m, k = (part.tolist() for part in straight_velocity(path, own[asked], space))
    of_state, of_prediction = dict(zip(asked, m, strict=True)), dict(zip(asked, k, strict=True))
    rows = []
    for s, row in enumerate(plan.rows, 1):
        states = {j: weight / scale[j] for j, weight in row.states}
        for j, weight in row.predictions:
            states[j] = states.get(j, 0.0) + weight * of_state[j]
        rows.append(
            Row(
                own[s].item(),
                tuple((j, scale[s] * weight) for j, weight in sorted(states.items()) if weight),
                tuple((j, scale[s] * weight * of_prediction[j]) for j, weight in row.predictions),
                scale[s] * row.noise,
                row.accepted,
            )
        )
    return Plan(space, own[0].item(), rows)


def _own_times(plan: Plan, path: ProbabilityPath, times: Tensor) -> Tensor:
    """The time of every state: at grid points the grid's own, to the last bit."""
    tau = torch.tensor(plan.state_times, dtype=torch.float64)
    beyond = [1.0] * (len(plan.times) - len(times))
    at = dict(zip(plan.times, [*times.tolist(), *beyond], strict=True))
    inverse = times_of_clock(path, tau).tolist()
    return torch.tensor([at.get(key, t) for key, t in zip(tau.tolist(), inverse)], dtype=torch.float64)
