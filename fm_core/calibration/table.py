"""Tables that calibration fits: times, and a lower triangle of weights.

Every deterministic table that asks the network once a step, at rising times, can be written as

    y_{s+1} = a_s·y_s + c_s·Σ_{j≤s} β_sj·p_j,    p_j = field(y_j, t_j),

with the exact linear part of its space, and the weight that is exact for a constant prediction where Σ_j β_sj = 1:

    velocity   a_s = 1                  c_s = t_{s+1} − t_s
    data       a_s = σ_{s+1}/σ_s        c_s = α_{s+1} − a_s·α_s

Predictor–corrector tables belong to it: the corrected state is never asked, so what it adds goes into the weights of
the next one. The free numbers are β and t_1 … t_{N−1}, that is N − 1 + N·(N+1)/2. Times are given by the logarithms g
of their gaps, so that they rise whatever the fit does:

    t_s = t_0 + (t_N − t_0)·Σ_{i<s} e^{g_i} / Σ_i e^{g_i}.

References:
    Butcher 2006, General linear methods. https://doi.org/10.1017/S0962492906220014
    Shaul et al. 2023, Bespoke solvers (solvers fitted to a flow). https://arxiv.org/abs/2310.19075
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from fm_core.plan import Plan
from fm_core.prediction import Prediction

__all__ = ["SPACES", "Table", "Tables", "free_numbers", "table_of"]

SPACES = (Prediction.VELOCITY, Prediction.DATA)

FOREIGN = 1e-9
"""A linear part that differs by more from its space's own is another family's."""


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
        times: `(V, N+1)`, float64.
        carry: a_s, `(V, N)`.
        weights: c_s·β_sj, `(V, N, N)`, lower triangular.
    """

    times: Tensor
    carry: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, some: slice) -> Tables:
        return Tables(self.times[some], self.carry[some], self.weights[some])


@frozen(eq=False)
class Table:
    """One table by its free numbers.

    Args:
        space: What p_j is: velocity or data.
        path: Gaussian path whose α and σ give a_s and c_s.
        ends: t_0 and t_N, fixed.
        gaps: g, `(N,)`, float64.
        shares: β, `(N, N)`, float64, lower triangular.
    """

    space: Prediction
    path: Any
    ends: tuple[float, float]
    gaps: Tensor
    shares: Tensor

    @property
    def steps(self) -> int:
        """N, the number of rows."""
        return len(self.gaps)

    @property
    def times(self) -> Tensor:
        """`(N+1,)`, from end to end exactly."""
        low, high = self.ends
        inner = low + (high - low) * self.gaps.softmax(0).cumsum(0)[:-1]
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

    def at(self, times: Tensor, shares: Tensor) -> Tables:
        """Tables of this space with times `(V, N+1)` and β `(V, N, N)`."""
        carry, exact = linear_part(self.space, self.path, times)
        return Tables(times, carry, exact[..., None] * shares)

    @property
    def alone(self) -> Tables:
        """This table, V = 1."""
        return self.at(self.times[None], self.shares[None])


def linear_part(space: Prediction, path: Any, times: Tensor) -> tuple[Tensor, Tensor]:
    """a_s and c_s on grids `(V, N+1)`, each `(V, N)`."""
    if space == Prediction.VELOCITY:
        gaps = times.diff(dim=1)
        return torch.ones_like(gaps), gaps
    alpha, sigma = path.alpha(times), path.sigma(times)
    carry = sigma[:, 1:] / sigma[:, :-1]
    return carry, alpha[:, 1:] - carry * alpha[:, :-1]


def table_of(plan: Plan, path: Any) -> Table | None:
    """The table that a plan is; None for one that is not of this family.

    Its states are eliminated until each is `A·y_0 + Σ_j B_j·p_j`, so rows between two that are asked disappear.

    Args:
        plan: A plan.
        path: The path that it was made for.
    """
    asked = plan.evaluated
    times = [plan.state_times[j] for j in asked] + [plan.state_times[-1]]
    rising = all(a < b for a, b in pairwise(times))
    if plan.stochastic or plan.space not in SPACES or not asked or asked[0] != 0 or not rising:
        return None
    states = _eliminated(plan)[[*asked, len(plan.rows)]]
    grid = torch.tensor(times, dtype=torch.float64)
    carry, exact = (part[0] for part in linear_part(plan.space, path, grid[None]))
    increments = states[1:] - carry[:, None] * states[:-1]
    if bool(increments[:, 0].abs().max() > FOREIGN * (1 + states[:, 0].abs().max())):
        return None
    return Table(plan.space, path, (times[0], times[-1]), grid.diff().log(), increments[:, 1:] / exact[:, None])


def _eliminated(plan: Plan) -> Tensor:
    """Every state by y_0 and the predictions, `(S + 1, 1 + N)`."""
    place = {j: i for i, j in enumerate(plan.evaluated, 1)}
    states = torch.zeros(len(plan.rows) + 1, len(place) + 1, dtype=torch.float64)
    states[0, 0] = 1.0
    for s, row in enumerate(plan.rows, 1):
        for k, weight in row.states:
            states[s] += weight * states[k]
        for j, weight in row.predictions:
            states[s, place[j]] += weight
    return states
