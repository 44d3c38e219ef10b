"""A pipeline as a problem: its own fine solution is the reference, since no closed form is known.

The reference is a table of order 3. Its steps are doubled on a few samples until two solutions in turn agree, or come
no longer closer as those of a method of any order do, in two doublings to a quarter. What is left then is rounding, or
a network that is rougher in time than the steps are short: one that knows time by waves of 1000·t, as most U-Nets do,
meets them at random below some 600 steps, and until then hardly any order shows. How far the last two differ is
`reference_error`.

Where the velocity ends in a singularity (paths that preserve variance), steps are Karras et al.'s; such waves disturb
them a third as much as steps that are even in log-SNR. Else they are those of the default table of the path.

References:
    Karras et al. 2022, eq. 5 (the steps). https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, final

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from fm_core.calibration.asking import require_one_field
from fm_core.field import Field
from fm_core.pipeline import Pipeline
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import make_generator

__all__ = ["MOST_STEPS", "PipelineProblem", "Refinement", "in_float64"]

MOST_STEPS = 1280
FEWEST_STEPS = 20
TINY = sys.float_info.min
PROBE = 8
"""Samples by which the steps of the reference are found, and its error is told."""


@frozen(eq=False)
class Refinement:
    """A fine solution of a few samples, held against the one of half its steps.

    Args:
        steps: Its steps.
        ends: Where it ends, `(n, *D)`, float64.
        error: How far the two differ, root mean square over the coordinates of the worst sample.
        relative: How far they differ, as a part of the ends' size, root mean squares over all samples.
    """

    steps: int
    ends: Tensor
    error: float
    relative: float


@final
@frozen(eq=False, slots=False, kw_only=True)
class PipelineProblem:
    """A pipeline without a closed form.

    Args:
        title: One line for tables.
        pipeline: The pipeline, whose solver and grid do not matter, or what makes it when it is first needed: training
            one takes its time.
        event_shape: Shape of one state.
        conditions: Draws conditions, `(n, generator) -> cond`; None for a network without.
        law: Draws of the law that samples shall have, `(n, generator) -> x1`; None for that of the pipeline's own fine
            solutions.
        fine: Makes of it the pipeline that the reference is found with, such as `in_float64`; the same for None.
        agreed: Two solutions agree where they differ by less than this part of the ends' size.
        refined: How fine the reference is; found by these rules for None.
        revision: What tells it from others that have its name, such as a digest of the network: rows of one revision
            are not taken for another's.
    """

    title: str
    _given: Pipeline | Callable[[], Pipeline] = field(alias="pipeline")
    event_shape: tuple[int, ...]
    conditions: Callable[[int, torch.Generator], Any] | None = None
    law: Callable[[int, torch.Generator], Tensor] | None = None
    fine: Callable[[Pipeline], Pipeline] | None = None
    agreed: float = 1e-6
    refined: Refinement | None = None
    revision: str = ""

    exact = False

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        return self._given if isinstance(self._given, Pipeline) else self._given()

    def condition(self, n: int, generator: torch.Generator) -> Any:
        """Conditions of n samples."""
        return None if self.conditions is None else self.conditions(n, generator)

    def truth(self, n: int, generator: torch.Generator) -> Tensor | None:
        """n draws of the law that samples shall have; None where it is that of the reference's ends."""
        return None if self.law is None else self.law(n, generator)

    def reference(self, x0: Tensor, cond: Any = None) -> Tensor:
        """Where the pipeline's own fine solution takes source samples `(n, *D)`: `(n, *D)`, float64."""
        return self._ends(x0, cond, self._refined.steps)

    @property
    def reference_error(self) -> float:
        """How far the last two fine solutions differ, on the worst of a few samples."""
        return self._refined.error

    def probe(self) -> tuple[Tensor, Any]:
        """The few source samples `(n, *D)` and conditions by which the reference is judged."""
        generator = make_generator(0)
        cond = self.condition(PROBE, generator)
        device, dtype = self.pipeline.placement
        shape = (PROBE, *self.event_shape)
        return self.pipeline.path.sample_source(shape, generator=generator).to(device, dtype), cond

    def refinements(self) -> Iterator[Refinement]:
        """Ever finer solutions of the probe, as long as they come closer to each other."""
        x0, cond = self.probe()
        before, steps = self._ends(x0, cond, FEWEST_STEPS), FEWEST_STEPS
        differences: list[float] = []
        while steps < MOST_STEPS:
            steps *= 2
            ends = self._ends(x0, cond, steps)
            squares = (ends - before).flatten(1).square().mean(1)
            differences.append(float(squares.mean().sqrt()))
            size = float(ends.square().mean().sqrt())
            yield Refinement(steps, ends, float(squares.max().sqrt()), differences[-1] / max(size, TINY))
            if len(differences) > 2 and differences[-1] >= differences[-3] / 4:
                return
            before = ends

    @cached_property
    def _refined(self) -> Refinement:
        found = self.refined
        if found is None:
            for found in self.refinements():
                if found.relative <= self.agreed:
                    break
        assert found is not None
        return found

    def _ends(self, x0: Tensor, cond: Any, steps: int) -> Tensor:
        device, dtype = self._fine.placement
        return self._fine.sample(x0=x0.to(device, dtype), cond=cond, steps=steps, seed=0).x.to(torch.float64)

    @cached_property
    def _fine(self) -> Pipeline:
        """The pipeline with the solver of the reference, whose tables are computed once."""
        require_one_field(self.pipeline)
        pipeline = self.pipeline if self.fine is None else self.fine(self.pipeline)
        velocity = Field(pipeline.model, pipeline.path, pipeline.guidance)
        if velocity.span({Prediction.VELOCITY})[1] < 1.0 or bool(declared(pipeline.path, "closing")):
            return pipeline.replace(solver={"name": "dpm_solver_pp", "order": 3}, grid="karras")
        return pipeline.replace(solver="auto", grid=None)


def in_float64(pipeline: Pipeline) -> Pipeline:
    """A copy of the pipeline whose network computes in float64."""
    model: Any = pipeline.model
    net: nn.Module = model.net
    return evolve(pipeline, model=evolve(model, net=copy.deepcopy(net).double()))
