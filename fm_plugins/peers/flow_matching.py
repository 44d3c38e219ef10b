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
from fm_core.prediction import Prediction
from fm_core.protocols import PathSample, ProbabilityPath
from fm_core.training_times import uniform
from fm_plugins.peers.linear import require_linear
from fm_plugins.peers.needing import needing
from fm_plugins.peers.on_grid import OnGrid, Velocity

with needing("flow_matching"):
    from flow_matching.path import CondOTProbPath
    from flow_matching.solver import ODESolver

__all__ = ["CondOT"]


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


def _integrated(velocity: Velocity, x: Tensor, grid: Tensor, method: str) -> Tensor:
    states: Tensor = ODESolver(lambda x, t: velocity(t, x)).sample(
        x,
        step_size=None,
        method=method,
        time_grid=grid,
        return_intermediates=True,
        enable_grad=torch.is_grad_enabled(),
    )
    return states


def euler() -> OnGrid:
    """flow_matching's Euler."""
    return OnGrid("euler", 1, 1, _integrated)


def midpoint() -> OnGrid:
    """flow_matching's midpoint rule."""
    return OnGrid("midpoint", 2, 2, _integrated)


def heun3() -> OnGrid:
    """flow_matching's third-order rule of Heun."""
    return OnGrid("heun3", 3, 3, _integrated)


def cond_ot() -> CondOT:
    """The objective."""
    return CondOT()
