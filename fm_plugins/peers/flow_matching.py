"""Meta's flow_matching as it comes: its `ODESolver` on the grid given, and its straight path as an objective.

    loss = ‖v(x_t, t) − dx_t‖²,   (x_t, dx_t) = CondOTProbPath().sample(x_0, x_1, t)

References:
    Lipman et al. 2024, Flow Matching Guide and Code. https://arxiv.org/abs/2412.06264
    flow_matching. https://github.com/facebookresearch/flow_matching
"""

from __future__ import annotations

from typing import Any, final

import torch
from attrs import frozen
from torch import Tensor

from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep, PathSample, ProbabilityPath
from fm_core.training_times import uniform
from fm_plugins.peers.linear import require_linear
from fm_plugins.peers.needing import needing

with needing("flow_matching"):
    from flow_matching.path import CondOTProbPath
    from flow_matching.solver import ODESolver

__all__ = ["CondOT", "Solved"]

METHODS = {"euler": (1, 1), "midpoint": (2, 2), "heun3": (3, 3)}
"""Order, and network calls of a step, of the methods that its documentation names."""


@final
@frozen
class Solved:
    """`ODESolver` with a method of a fixed grid.

    Args:
        method: Its name.
    """

    method: str

    needs = frozenset({Prediction.VELOCITY})
    geometries = frozenset({"euclidean"})
    stochastic = False

    @property
    def order(self) -> int:
        """Order that it claims."""
        return METHODS[self.method][0]

    @property
    def evals_per_step(self) -> int:
        """Network calls of a step."""
        return METHODS[self.method][1]

    def solve(
        self,
        field: Field,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries states x `(B, *D)` from `times[0]` to `times[-1]`."""
        grid = check_times(times)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            u: Tensor = field.predict(x, t, cond, Prediction.VELOCITY)
            return u

        states = ODESolver(velocity).sample(
            x,
            step_size=None,
            method=self.method,
            time_grid=grid,
            return_intermediates=True,
            enable_grad=torch.is_grad_enabled(),
        )
        if on_step:
            for t, state in zip(grid.tolist(), states, strict=True):
                on_step(t, state)
        end: Tensor = states[-1]
        return end


@final
@frozen
class CondOT:
    """Flow matching on flow_matching's straight path."""

    needs = frozenset({Prediction.VELOCITY})

    def sample_time(
        self,
        path: ProbabilityPath,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Uniform times, shape `(B,)`."""
        return uniform(path, batch, (0.0, 1.0), generator, device)

    def draw(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Times, points and velocities for a training step, as its own examples have them, by the global generator."""
        drawn = CondOTProbPath().sample(x_0=x0, x_1=x1, t=torch.rand(len(x1), device=x1.device))
        return drawn.t, drawn.x_t, drawn.dx_t

    def loss(self, field: Field, sample: PathSample, cond: Any = None) -> Tensor:
        """Squared error of every sample, averaged over its event, shape `(B,)`.

        Raises:
            CompatError: On a path that is not straight.
        """
        require_linear(field.path)
        drawn = CondOTProbPath().sample(x_0=sample.x0, x_1=sample.x1, t=sample.t)
        error = field.predict(drawn.x_t, sample.t, cond, Prediction.VELOCITY) - drawn.dx_t
        loss: Tensor = error.square().flatten(1).mean(1)
        return loss


def euler() -> Solved:
    """flow_matching's Euler."""
    return Solved("euler")


def midpoint() -> Solved:
    """flow_matching's midpoint rule."""
    return Solved("midpoint")


def heun3() -> Solved:
    """flow_matching's third-order rule of Heun."""
    return Solved("heun3")


def cond_ot() -> CondOT:
    """The objective."""
    return CondOT()
