"""The energy of a path, and how far it is above optimal transport.

    PE = ∫_0^1 E‖v(x_t, t)‖² dt,    NPE = |PE − W2²(q0, q1)| / W2²(q0, q1)

By Benamou & Brenier W2² is the least PE of all fields that carry q0 to q1, so NPE is 0 for optimal transport, and
grows as trajectories bend. The integral is taken as the runner of [SF]²M takes it: ‖v‖² rides along as one more
component of the Euler scheme, that is, the left rectangle rule on the very states that Euler visits,

    PE ≈ Σ_i (t_{i+1} − t_i)·mean_b ‖v(x_i, t_i)‖²,    x_{i+1} = x_i + (t_{i+1} − t_i)·v(x_i, t_i)

with 100 equal steps by default.

References:
    Tong et al. 2024, section 5.1. https://arxiv.org/abs/2302.00482
    Its runner, augmentation.py (SquaredL2Reg) and cfm_module.py. https://github.com/atong01/conditional-flow-matching/tree/main/runner/src/models
    Benamou & Brenier 2000. https://doi.org/10.1007/s002110050002
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.errors import DataError, DivergenceError, ShapeError, TimeError
from fm_core.floor import Floor, Sampler, draw
from fm_core.randomness import make_generator
from fm_plugins.metrics.wasserstein2 import Wasserstein2

__all__ = ["NormalizedPathEnergy", "Velocity", "path_energy"]

Velocity = Callable[[Tensor, Tensor], Tensor]
"""A field `v(x, t)` of states `(B, *D)` and times `(B,)`, `(B, *D)`."""


@torch.no_grad()
def path_energy(velocity: Velocity, x0: Tensor, times: Tensor | None = None) -> float:
    """Mean of ∫‖v‖² dt along Euler trajectories, left rectangle rule.

    >>> round(path_energy(lambda x, t: 3 * torch.ones_like(x), torch.zeros(5, 2)), 9)
    18.0

    Args:
        velocity: `v(x, t)` of states `(B, *D)` and times `(B,)`.
        x0: Source samples, shape `(B, *D)`.
        times: Grid, shape `(N+1,)`, strictly increasing; by default 101 equal ones from 0 to 1.

    Returns:
        The energy, in squared units of x.

    Raises:
        DataError: If x0 is empty.
        TimeError: If times are not a strictly increasing grid.
        ShapeError: If the field returns another shape than its state.
        DivergenceError: If the energy is not finite.
    """
    if x0.numel() == 0:
        raise DataError(f"the energy of a path is a mean over source samples; got none, shape {tuple(x0.shape)}")
    grid = torch.linspace(0, 1, 101, dtype=torch.float64) if times is None else times.detach().cpu().double()
    if grid.ndim != 1 or len(grid) < 2 or not bool((grid.diff() > 0).all()):
        raise TimeError(
            "times are a strictly increasing grid of shape (N+1,), N ≥ 1, since energy is an integral over them; "
            f"got {times}"
        )
    x, energy = x0, 0.0
    for t, step in zip(grid.tolist(), grid.diff().tolist()):
        v = velocity(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device))
        if v.shape != x.shape:
            raise ShapeError(
                f"a velocity has the shape of its state, {tuple(x.shape)}; the field returned "
                f"{tuple(v.shape)} at t = {t:g}"
            )
        energy += step * float(v.double().square().sum()) / len(x)
        x = x + step * v
    if not energy < float("inf"):
        raise DivergenceError(
            f"the energy of the path is {energy}: the field or its Euler trajectory is not finite. Look at its "
            "states, or take more steps."
        )
    return energy


@final
@frozen
class NormalizedPathEnergy:
    """|PE − W2²| / W2² of a velocity field between two sets of samples.

    It is no metric of two sets: it is called with the field first. W2² is the exact one between the given samples, as
    many of each as PE is averaged over; where it is known, or was estimated from more, pass it.

    >>> x0 = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> NormalizedPathEnergy()(lambda x, t: torch.ones_like(x), x0, x0 + 1) < 1e-6
    True

    Args:
        steps: Euler steps of equal length.
    """

    steps: int = field(default=100, validator=validators.ge(1))
    of_samples = False

    def __call__(
        self, velocity: Velocity, x0: Tensor, x1: Tensor | None = None, *, squared_w2: float | None = None
    ) -> float:
        """The normalized path energy.

        Args:
            velocity: `v(x, t)` of states `(B, *D)` and times `(B,)`.
            x0: Source samples, shape `(n, *D)`.
            x1: Data samples, shape `(m, *D)`: needed unless `squared_w2` is given.
            squared_w2: W2²(q0, q1), in place of the estimate from x0 and x1.

        Raises:
            DataError: If neither or both of x1 and `squared_w2` are given, or W2² is 0.
            ShapeError, DivergenceError: As `path_energy` does.
        """
        if (x1 is None) == (squared_w2 is None):
            raise DataError(
                "the energy is compared with W2²(q0, q1): give either data samples x1 or squared_w2, one of them"
            )
        optimum = Wasserstein2()(x0, x1) ** 2 if x1 is not None else float(squared_w2 or 0)
        if not optimum > 0:
            raise DataError(
                f"the energy is divided by W2²(q0, q1), which must be positive; got {optimum}: source and "
                "data do not differ"
            )
        energy = path_energy(velocity, x0, torch.linspace(0, 1, self.steps + 1, dtype=torch.float64))
        return abs(energy - optimum) / optimum

    def floor(
        self, source: Sampler, target: Sampler, n: int, *, draws: int = 5, generator: torch.Generator | None = None
    ) -> Floor:
        """What NPE comes to for optimal transport itself, from sampling alone.

        The mean of |A − B|/B over pairs of independent estimates A, B of W2² from n samples of each: the energy of the
        optimal field along n fresh trajectories would be such an A.

        Args:
            source, target: Data sets or samples, as `floor` takes them.
            n: Samples of each in an estimate.
            draws: Pairs, at least 2.
            generator: Of all draws; fresh entropy for None.
        """
        g = generator or make_generator()

        def estimate() -> float:
            return Wasserstein2()(draw(source, n, g), draw(target, n, g)) ** 2

        pairs = [(estimate(), estimate()) for _ in range(draws)]
        return Floor.of([abs(a - b) / b for a, b in pairs], n)
