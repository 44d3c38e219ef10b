"""Samplers of azula on any Gaussian path: its time runs from 1 at the noise to 0, and it is told the data prediction.

A sampler steps over times of its own; here they are the grid's, 1 − t. azula divides by α and by σ, so it is shown no
time near 0 or 1, and neither level near 0: none below 1e-6, or below 1e-3, the margin of azula's own schedules, where
that serves a sampler better (Heun's, and those of the data prediction in log(σ/α)). It runs under `no_grad`.

References:
    azula. https://github.com/probabilists/azula
"""

from __future__ import annotations

from typing import Any, final

import torch
from attrs import field as attribute, frozen, validators
from torch import Tensor

from fm_core.field import Field
from fm_core.gaussian import check_times
from fm_core.levels import levels
from fm_core.prediction import Prediction
from fm_core.protocols import OnStep, ProbabilityPath
from fm_plugins.peers.needing import needing

with needing("azula", "einops", plain=False):
    from azula import sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule

__all__ = ["Azula"]

OWN_MARGIN = 1e-3
"""Least α and σ of azula's own schedules, by default."""


@final
@frozen
class Azula:
    """A sampler of azula.

    Args:
        sampler: Name of its class.
        order: The order that it claims; an argument of the multistep ones.
        margin: Least α and σ, and least distance of a time from 0 and 1, that it is shown.
    """

    sampler: str
    order: int = attribute(default=1, validator=[validators.instance_of(int), validators.ge(1)])
    margin: float = 1e-6

    needs = frozenset({Prediction.DATA})
    geometries = frozenset({"euclidean"})
    stochastic = False

    @property
    def evals_per_step(self) -> int:
        """Network calls of a step."""
        return 2 if self.sampler == "HeunSampler" else 1

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
        denoiser = _Asked(field, cond, grid, self, on_step)
        options = {"order": self.order} if "AB" in self.sampler else {}
        sampler = getattr(sample, self.sampler)(
            denoiser, steps=len(grid) - 1, silent=True, dtype=torch.float64, **options
        )
        end: Tensor = sampler(x)
        if on_step:
            on_step(float(grid[-1]), end)
        return end


class _Levels(Schedule):  # type: ignore[misc]
    """The path's schedule on a grid: azula's time falls from 1 to 0 in equal steps, one for each of the grid's."""

    def __init__(self, path: ProbabilityPath, grid: Tensor, margin: float) -> None:
        self.levels = [level.clamp(min=margin) for level in levels(path, grid)]

    def index(self, t: Tensor) -> Tensor:
        """Which of the grid's times azula's are."""
        return ((1 - t) * (len(self.levels[0]) - 1)).round().long()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ, neither of them 0."""
        alpha, sigma = (level.to(t.device)[self.index(t)] for level in self.levels)
        return alpha, sigma


class _Asked(Denoiser):  # type: ignore[misc]
    """The field as azula asks for it. A sampler asks at each of its states first, so it tells of them too."""

    def __init__(self, field: Field, cond: Any, grid: Tensor, solver: Azula, on_step: OnStep | None) -> None:
        super().__init__()
        shown = grid.clamp(solver.margin, 1 - solver.margin)
        self.schedule = _Levels(field.path, shown, solver.margin)
        self.field, self.cond, self.stages, self.on_step = field, cond, solver.evals_per_step, on_step
        self.grid, self.times = grid.tolist(), shown.tolist()
        self.asked = 0

    def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
        """The data prediction at states `(B, *D)` and azula's time `()`."""
        i = int(self.schedule.index(t))
        if self.on_step and self.asked % self.stages == 0:
            self.on_step(self.grid[i], x_t)
        self.asked += 1
        return DiracPosterior(mean=self.field.predict(x_t, self.times[i], self.cond, Prediction.DATA))


def ddim() -> Azula:
    """DDIMSampler without noise, which is EulerSampler."""
    return Azula("EulerSampler")


def heun() -> Azula:
    """HeunSampler."""
    return Azula("HeunSampler", 2, OWN_MARGIN)


def vab(order: int = 2) -> Azula:
    """vABSampler: Adams–Bashforth on x0 − x1, in σ/(α + σ)."""
    return Azula("vABSampler", order)


def zab(order: int = 2) -> Azula:
    """zABSampler: Adams–Bashforth on the noise prediction, in σ/α."""
    return Azula("zABSampler", order)


def zeab(order: int = 2) -> Azula:
    """zEABSampler: exponential Adams–Bashforth on the noise prediction, in log(σ/α)."""
    return Azula("zEABSampler", order)


def xeab(order: int = 2) -> Azula:
    """xEABSampler: exponential Adams–Bashforth on the data prediction, in log(σ/α)."""
    return Azula("xEABSampler", order, OWN_MARGIN)


def reab(order: int = 2) -> Azula:
    """REABSampler: Rosenbrock-type exponential Adams–Bashforth."""
    return Azula("REABSampler", order, OWN_MARGIN)
