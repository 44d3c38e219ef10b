"""Single-step members of the family: exact exponential integrators with stages, as tables.

Stages stand at `v_t + c_i·(v_s − v_t)` with 0 < c_1 < … < c_m < 1, each interpolating all predictions before it in the
step; so does the step itself, or only those named by `used`. One stage gives order 2; two give order 3 for c = (1/3,
2/3), where the weight of the first one, of local order 2, vanishes as h → 0. Where v is infinite at either end of a
step, the step has no stages and order 1.

With noise, a stage and its step see one Brownian path: the step starts from the last stage, whose noise it carries on
as the exact solution does, takes back that stage's share of the predictions, and adds the noise since.

References:
    Lu et al. 2022, DPM-Solver, Algorithms 1 and 2. https://arxiv.org/abs/2206.00927
    Gonzalez et al. 2023, SEEDS (one noise for stage and step). https://arxiv.org/abs/2305.14267
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row
from fm_core.prediction import as_prediction
from fm_plugins.multistep.integrals import SPACES, VARIABLES, Clock
from fm_plugins.multistep.rows import Weights, table_row, total
from fm_plugins.multistep.shortcut import SHORTCUTS, Shortcut, shortened

__all__ = ["SingleStep", "Tau", "check_tau", "stage_nodes", "tau_squared"]

Tau = float | Callable[[float], float]
"""τ of a step: a number, or a function of λ = log(α/σ) where the step begins."""


def _as_nodes(nodes: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(float, nodes))


def check_tau(instance: object, attribute: Any, tau: Tau) -> None:
    """A validator of τ.

    Raises:
        ValueError: For a number that is negative or not finite, and for noise on velocities, of which none is known.
    """
    if getattr(instance, "space", None) is Prediction.VELOCITY and (callable(tau) or tau != 0.0):
        raise ValueError(f"noise is for tables of data or noise predictions; got tau={tau!r} with space='velocity'")
    if not callable(tau) and not 0.0 <= tau < math.inf:
        raise ValueError(f"tau is a number ≥ 0 (0 is the ODE, 1 the reverse-time SDE) or a function of λ; got {tau!r}")


def check_nodes(instance: object, attribute: Any, nodes: tuple[float, ...]) -> None:
    """A validator of the nodes of stages.

    Raises:
        ValueError: If they do not rise inside (0, 1).
    """
    if not all(before < after for before, after in pairwise((0.0, *nodes, 1.0))):
        raise ValueError(f"the nodes of stages rise inside (0, 1), each at a place of its own; got {nodes}")


def check_used(instance: Any, attribute: Any, used: tuple[int, ...] | None) -> None:
    """A validator of the predictions that a step interpolates.

    Raises:
        ValueError: If they are none, or not such of the step, rising.
    """
    last = len(instance.nodes)
    if used is not None and (not used or not all(a < b for a, b in pairwise((-1, *used, last + 1)))):
        raise ValueError(f"used are predictions of the step, rising, of 0 to {last}; got {list(used)}")


def tau_squared(tau: Tau, clock: Clock, i: int, j: int) -> float:
    """τ² of a step; none to where there is no noise left, whose state is the data.

    A noise prediction that stands still over a step in which ρ = σ/α falls from ρ_i to ρ_j leaves the variance
    ρ_j² + τ²·(1 + τ²)·(ρ_i − ρ_j)² in x/α in place of ρ_j²: on coarse grids that is the noise of ρ_i over again. So in
    noise τ ≤ (ρ_j/(ρ_i − ρ_j))², by which the excess is at most 1 + τ² of what should be left, and the less the coarser
    the step. Steps with ρ_i ≤ 2·ρ_j are as asked for τ ≤ 1, and any τ keeps the marginals.
    """
    if clock.space is Prediction.VELOCITY or clock.sigma[j] == 0.0:
        return 0.0
    asked = float(tau(float(clock.log_ratio[i])) if callable(tau) else tau)
    if not 0.0 <= asked < math.inf:
        raise ValueError(f"tau is a number ≥ 0 at every λ; got {asked} at λ = {clock.log_ratio[i]:.4g}")
    if clock.space is Prediction.NOISE and asked:
        asked = min(asked, math.expm1(max(clock.log_ratio[j] - clock.log_ratio[i], 1e-9)) ** -2)
    return asked**2


def stage_nodes(order: int) -> tuple[float, ...]:
    """Nodes of the stages of a single step of order 1, 2 or 3.

    Raises:
        ValueError: For a higher order: more conditions than these nodes can meet.
    """
    if order not in (1, 2, 3):
        raise ValueError(
            f"single steps have orders 1, 2 and 3; got {order}. Higher orders come from history: a multistep solver"
        )
    return {1: (), 2: (0.5,), 3: (1 / 3, 2 / 3)}[order]


@frozen
class SingleStep:
    """A single-step member, called as the coefficient function of a `TableSolver`.

    Args:
        space: What is interpolated: data, noise or velocity.
        variable: "t", "lambda" (log α/σ) or "sigma" (σ/α).
        nodes: Nodes c_i of the stages in (0, 1), rising.
        used: Which of the step's predictions the step itself interpolates, 0 being the first; all for None.
        shortcut: A published simplification of the step of two predictions, see `shortcut.py`.
        tau: τ of the noise; 0 is deterministic.
    """

    space: Prediction = field(converter=as_prediction, validator=validators.in_(SPACES))
    variable: str = field(validator=validators.in_(VARIABLES))
    nodes: tuple[float, ...] = field(converter=_as_nodes, validator=check_nodes)
    used: tuple[int, ...] | None = field(default=None, kw_only=True, validator=check_used)
    shortcut: Shortcut | None = field(default=None, kw_only=True, validator=validators.in_(SHORTCUTS))
    tau: Tau = field(default=0.0, kw_only=True, validator=check_tau)

    def __call__(self, path: ProbabilityPath, times: Tensor) -> Plan:
        """The table on a grid, float64 `(N+1,)`, with `len(nodes) + 1` rows a step where v is finite."""
        clock, steps = self.clock(path, times), len(times) - 1
        rows: list[Row] = []
        width = len(self.nodes)
        inner = [(n, steps + 1 + n * width + m) for n in range(steps) for m in range(width)]
        clock.prepare(
            [(n, j, tau_squared(self.tau, clock, n, n + 1)) for n, j in [*inner, *((n, n + 1) for n in range(steps))]]
        )
        for n in range(steps):
            self.step(clock, n, steps, len(rows), rows)
        return Plan(self.space, float(times[0]), rows)

    def clock(self, path: ProbabilityPath, times: Tensor) -> Clock:
        """The grid's times, then those of the stages, step by step; stages that do not exist are at their step's
        start.
        """
        grid = Clock.of(path, self.space, self.variable, times.tolist())
        low, high = torch.from_numpy(grid.value[:-1]), torch.from_numpy(grid.value[1:])
        finite = low.isfinite() & high.isfinite()
        inner = [torch.where(finite, low + c * (high - low), 0.0) for c in self.nodes]
        values = torch.stack(inner, 1).flatten() if inner else torch.empty(0, dtype=torch.float64)
        match self.variable:
            case "t":
                at = values
            case "lambda":
                at = path.t_of_log_snr(2 * values)  # type: ignore[attr-defined]
            case _:
                at = path.t_of_log_snr(-2 * values.log())  # type: ignore[attr-defined]
        at = torch.where(finite.repeat_interleave(len(self.nodes)), at, times[:-1].repeat_interleave(len(self.nodes)))
        return Clock.of(path, self.space, self.variable, [*times.tolist(), *at.tolist()])

    def step(self, clock: Clock, n: int, steps: int, start: int, rows: list[Row]) -> None:
        """Adds the rows of step n, whose state has the index `start`."""
        width, tau2 = len(self.nodes), tau_squared(self.tau, clock, n, n + 1)
        staged = math.isfinite(clock.value[n]) and math.isfinite(clock.value[n + 1])
        times = [n, *(steps + 1 + n * width + m for m in range(width * staged))]
        index = {n: start} | {k: len(rows) + m for m, k in enumerate(times[1:], 1)}
        before: Weights = {}
        for m, j in enumerate([*times[1:], n + 1]):
            weights = self._weights(clock, n, j, times[: m + 1], tau2)
            states, predictions, origin = {index[n]: clock.carry(n, j, tau2)}, weights, n
            if tau2 and m:  # through the stage before: its noise goes on, and so must not its predictions
                origin = times[m]
                through = clock.carry(origin, j, tau2)
                states, predictions = (
                    {index[origin]: through},
                    total(weights, {k: -through * w for k, w in before.items()}),
                )
            named = {index[k]: w for k, w in predictions.items()}
            rows.append(table_row(float(clock.t[j]), states, named, clock.noise(origin, j, tau2), accepted=j == n + 1))
            before = weights

    def _weights(self, clock: Clock, n: int, j: int, times: list[int], tau2: float) -> Weights:
        """Weights of the predictions of step n at `times` in the state at time j."""
        if j == n + 1 and len(times) > 1:
            used = times if self.used is None else [times[u] for u in self.used]
            if self.shortcut:
                return shortened(self.shortcut, clock, n, j, used[::-1], tau2)
            return clock.weights(n, j, used[::-1], tau2)
        return clock.weights(n, j, times[::-1], tau2)
