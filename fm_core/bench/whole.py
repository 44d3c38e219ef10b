"""Runs of solvers that place times of their own, from noise to the data, as other libraries' schedulers do.

Such a solver has `run(field, x0, nfe, *, cond, generator)`: it carries source samples `(B, *D)` to the data in at most
`nfe` network calls. Neither a grid nor a closing data prediction of the pipeline's comes in.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from attrs import frozen
from torch import Tensor

from fm_core.evaluating import evaluating
from fm_core.field import Field
from fm_core.pipeline import Pipeline
from fm_core.randomness import make_generator
from fm_core.samples import Samples

__all__ = ["RunsWhole", "WholeRuns"]


@runtime_checkable
class RunsWhole(Protocol):
    """A solver that places its own times."""

    def run(
        self, field: Field, x0: Tensor, nfe: int, *, cond: Any = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Carries source samples x0 `(B, *D)`, unscaled, to the data in at most so many network calls."""
        ...


@frozen(eq=False)
class WholeRuns:
    """A pipeline whose solver places its own times.

    Args:
        pipeline: Path, network and guidance.
        solver: What carries.
    """

    pipeline: Pipeline
    solver: RunsWhole

    @torch.no_grad()
    def sample(self, *, x0: Tensor, nfe: int, cond: Any = None, seed: int = 0) -> Samples:
        """Samples from source samples, with the network calls that were made.

        Args:
            x0: Source samples, unscaled, shape `(B, *D)`.
            nfe: The most network calls.
            cond: Condition, any pytree with the batch first, or None.
            seed: Of what the solver draws.

        Raises:
            BudgetError: If so many calls do not suffice.
        """
        pipeline = self.pipeline
        field = Field(pipeline.model, pipeline.path, pipeline.guidance)
        with evaluating(pipeline.model):
            x = self.solver.run(field, x0.clone(), nfe, cond=cond, generator=make_generator(seed))
        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return Samples(x, field.calls, seed, times, x.isfinite().flatten(1).all(1))
