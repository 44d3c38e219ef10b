"""A pipeline as a problem: its own fine solution is the reference, since no closed form is known.

The reference is a high-order table whose steps are doubled until two in turn agree, and how far the last two still
differ is what `reference_error` says. Where the velocity ends in a singularity (paths that preserve variance), steps
are short in log-SNR, else by the default table of the path.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, final

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fm_core.errors import DivergenceError
from fm_core.field import Field
from fm_core.pipeline import Pipeline
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import make_generator

__all__ = ["PipelineProblem", "in_float64"]

STEPS = (40, 80, 160, 320, 640, 1280)
PROBE = 8
"""Samples by which the reference's error is told."""


@final
@frozen(eq=False, slots=False, kw_only=True)
class PipelineProblem:
    """A pipeline without a closed form.

    Args:
        title: One line for tables.
        pipeline: The pipeline; its solver and grid do not matter.
        event_shape: Shape of one state.
        conditions: Draws conditions, `(n, generator) -> cond`; None for a network without.
        law: Draws of the law that samples shall have, `(n, generator) -> x1`; None where nothing is known.
        fine: The pipeline that the reference is found with: the same in float64, where the network allows it.
        agreed: Two references agree where they differ by less than this part of the ends' size, both in the root mean
            square over all samples.
    """

    title: str
    pipeline: Pipeline
    event_shape: tuple[int, ...]
    conditions: Callable[[int, torch.Generator], Any] | None = None
    law: Callable[[int, torch.Generator], Tensor] | None = None
    fine: Pipeline | None = None
    agreed: float = 1e-6

    exact = False

    def condition(self, n: int, generator: torch.Generator) -> Any:
        """Conditions of n samples."""
        return None if self.conditions is None else self.conditions(n, generator)

    def truth(self, n: int, generator: torch.Generator) -> Tensor | None:
        """n draws of the law that samples shall have."""
        return None if self.law is None else self.law(n, generator)

    def reference(self, x0: Tensor, cond: Any = None) -> Tensor:
        """Where the pipeline's own fine solution takes source samples `(n, *D)`: `(n, *D)`, float64."""
        return self._refined(x0, cond)[0]

    @cached_property
    def reference_error(self) -> float:
        """How far the last two references differ, on the worst of a few samples."""
        generator = make_generator(0)
        cond = self.condition(PROBE, generator)
        x0 = self.pipeline.path.sample_source((PROBE, *self.event_shape), generator=generator)
        ends, before = self._refined(x0, cond)
        return float((ends - before).flatten(1).square().mean(1).sqrt().max())

    def _refined(self, x0: Tensor, cond: Any) -> tuple[Tensor, Tensor]:
        """The ends by the last two numbers of steps, the finer first."""
        fine = self._solver(self.fine or self.pipeline)
        device, dtype = fine.placement
        x0 = x0.to(device, dtype)
        before: Tensor | None = None
        ends = x0.to(torch.float64)
        for steps in STEPS:
            before, ends = ends, fine.sample(x0=x0, cond=cond, steps=steps, seed=0).x.to(torch.float64)
            distance = float((ends - before).square().mean().sqrt())
            if not math.isfinite(distance):
                raise DivergenceError(f"the reference of {self.title!r} is not finite with {steps} steps")
            if distance <= self.agreed * float(ends.square().mean().sqrt()):
                break
        assert before is not None
        return ends, before

    @staticmethod
    def _solver(pipeline: Pipeline) -> Pipeline:
        field = Field(pipeline.model, pipeline.path, pipeline.guidance)
        if field.span({Prediction.VELOCITY})[1] < 1.0 or bool(declared(pipeline.path, "closing")):
            return pipeline.replace(solver={"name": "dpm_solver_pp", "order": 3}, grid="log_snr")
        return pipeline.replace(solver="auto", grid=None)


def in_float64(pipeline: Pipeline) -> Pipeline:
    """A copy of the pipeline whose network computes in float64."""
    model: Any = pipeline.model
    net: nn.Module = model.net
    return evolve(pipeline, model=evolve(model, net=copy.deepcopy(net).double()))
