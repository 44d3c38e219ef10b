"""Tables that calibration fits: times, and a lower triangle of weights, in straight coordinates (`fm_core.straight`).

There every Gaussian path is the linear one, and every deterministic table that asks the network once a step, at rising
times, and leaves a state where it is whose velocity is 0, can be written as

    y_{s+1} = y_s + (τ_{s+1} − τ_s)·Σ_{j≤s} β_sj·u_j,    u_j = E[x1 − x0 | y_j, τ_j],

exact for a constant velocity where Σ_j β_sj = 1. Exponential integrators of the data or the noise belong to it, and
predictor–correctors: the corrected state is never asked, so what it adds goes into the weights of the next one. The
free numbers are β and τ_1 … τ_{N−1}, that is N − 1 + N·(N+1)/2. Times are given by the logarithms g of their gaps, so
that they rise whatever the fit does:

    τ_s = τ_0 + (τ_N − τ_0)·Σ_{i<s} e^{g_i} / Σ_i e^{g_i}.

Where the data prediction closes a run, it is the last row, from wherever the last call is made to τ_N = 1, for the data
are `y + (1 − τ)·u`. The calls are made before the limit up to which the network may be asked, which then stands for τ_N
in that formula.

References:
    Butcher 2006, General linear methods. https://doi.org/10.1017/S0962492906220014
    Shaul et al. 2023, Bespoke solvers (solvers fitted to a flow). https://arxiv.org/abs/2310.19075
"""

from __future__ import annotations

from itertools import pairwise

import torch
from attrs import evolve, frozen
from torch import Tensor

from fm_core.plan import Plan
from fm_core.protocols import ProbabilityPath
from fm_core.straight import clock, straight_velocity

__all__ = ["Table", "Tables", "free_numbers", "table_of"]

LEAST_GAP = 1e-4
"""Times that are nearer to the limit are moved away from it, so that they can be fitted."""

FOREIGN = 1e-9
"""A table that moves a state without velocity by more, relatively, is another family's."""


def free_numbers(steps: int) -> int:
    """How many numbers of a table of so many steps are free.

    >>> free_numbers(8)
    43
    """
    return steps - 1 + steps * (steps + 1) // 2


@frozen(eq=False)
class Tables:
    """V tables side by side, as a rollout reads them.

    Args:
        times: τ, `(V, N+1)`, float64.
        weights: (τ_{s+1} − τ_s)·β_sj, `(V, N, N)`, lower triangular.
    """

    times: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, some: slice) -> Tables:
        return Tables(self.times[some], self.weights[some])


@frozen(eq=False)
class Table:
    """One table by its free numbers.

    Args:
        ends: τ_0 and τ_N, fixed.
        limit: What inner times stay below: τ_N, or less.
        gaps: g, `(N,)`, float64.
        shares: β, `(N, N)`, float64, lower triangular.
    """

    ends: tuple[float, float]
    limit: float
    gaps: Tensor
    shares: Tensor

    @property
    def steps(self) -> int:
        """N, the number of rows."""
        return len(self.gaps)

    @property
    def times(self) -> Tensor:
        """τ, `(N+1,)`, from end to end exactly."""
        low, high = self.ends
        inner = low + (self.limit - low) * self.gaps.softmax(0).cumsum(0)[:-1]
        return torch.cat([inner.new_tensor([low]), inner, inner.new_tensor([high])])

    def moved(self, change: Tensor) -> Table:
        """The table at other free numbers.

        Args:
            change: What is added to g, and to β row by row, `(N + N·(N+1)/2,)`.
        """
        shares = self.shares.clone()
        rows, columns = torch.tril_indices(self.steps, self.steps)
        shares[rows, columns] += change[self.steps :]
        return evolve(self, gaps=self.gaps + change[: self.steps], shares=shares)

    @property
    def alone(self) -> Tables:
        """This table, V = 1."""
        return tables_at(self.times[None], self.shares[None])


def tables_at(times: Tensor, shares: Tensor) -> Tables:
    """Tables with times τ `(V, N+1)` and β `(V, N, N)`."""
    return Tables(times, times.diff(dim=1)[..., None] * shares)


def table_of(plan: Plan, path: ProbabilityPath, limit: float | None = None) -> Table | None:
    """The table that a plan is; None for one that is not of this family.

    Its states are eliminated until each is `A·y_0 + Σ_j B_j·u_j`, so rows between two that are asked disappear.

    Args:
        plan: A plan.
        path: The path that it was made for.
        limit: Where its last row is the data prediction that closes a run, τ up to which the network may be asked.
    """
    asked = plan.evaluated
    times = [plan.state_times[j] for j in asked] + [plan.state_times[-1]] * (limit is None)
    rising = all(a < b for a, b in pairwise(times))
    if plan.stochastic or not asked or asked[0] != 0 or not rising:
        return None
    tau, scale = clock(path, torch.tensor(plan.state_times, dtype=torch.float64))
    if limit is not None:
        tau[-1] = scale[-1] = 1.0
    some = [*asked, len(plan.rows)]
    states, tau = _eliminated(plan, path, scale)[some], tau[some]
    if not bool(states.isfinite().all()) or bool((states[:, 0] - 1).abs().max() > FOREIGN):
        return None
    shares = states[:, 1:].diff(dim=0) / tau.diff()[:, None]
    below = float(tau[-1]) if limit is None else limit
    gaps = torch.cat([tau[:-1], tau.new_tensor([below])]).diff()
    return Table((float(tau[0]), float(tau[-1])), below, gaps.clamp(min=LEAST_GAP).log(), shares)


def _eliminated(plan: Plan, path: ProbabilityPath, scale: Tensor) -> Tensor:
    """Every state y by y_0 and the velocities u, `(S + 1, 1 + N)`."""
    times = torch.tensor(plan.state_times, dtype=torch.float64)
    m, k = straight_velocity(path, times, plan.space)
    place = {j: i for i, j in enumerate(plan.evaluated, 1)}
    states = torch.zeros(len(plan.rows) + 1, len(place) + 1, dtype=torch.float64)  # of x, not yet of y
    unit = torch.eye(len(place) + 1, dtype=torch.float64)
    states[0, 0] = scale[0]
    for s, row in enumerate(plan.rows, 1):
        for j, weight in row.states:
            states[s] += weight * states[j]
        for j, weight in row.predictions:
            states[s] += weight / k[j] * (unit[place[j]] - m[j] * states[j])
    return states / scale[:, None]
