"""What every recipe keeps: it composes, trains a step and samples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fm_core.pipeline import Pipeline, compose
from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Subject, check_of

__all__: list[str] = []


class _Net(nn.Module):
    """A linear map of state and time, with weights of its own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, generator=make_generator(0)) / 10)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return torch.cat([x_t, t[:, None].to(x_t)], 1) @ self.weight.T.to(x_t)


def _composed(subject: Subject) -> Pipeline:
    recipe: Any = subject.build()
    return compose(**{"model": _Net(), **recipe})


@check_of("recipe")
def names_parts_of_a_pipeline(subject: Subject) -> None:
    """It is a mapping of arguments of `compose`, names and options that a file can hold."""
    recipe = subject.build()
    known = set(inspect.signature(compose).parameters)
    if not isinstance(recipe, Mapping) or not set(recipe) <= known:
        raise Failed(f"a recipe maps arguments of compose, {', '.join(sorted(known))}; got {recipe!r}")
    if "path" not in recipe or "objective" not in recipe or "solver" not in recipe:
        raise Failed("a method has at least a path, an objective and a solver")


@check_of("recipe")
def composes_trains_and_samples(subject: Subject) -> float:
    """With a network it composes without a problem, takes a training step, and samples finite states."""
    pipe = _composed(subject)
    x1 = torch.randn(32, 2, generator=make_generator(1))
    result = pipe.fit(x1, steps=2, batch_size=16, seed=0, progress=False)
    samples = result.pipeline.sample((4, 2), seed=0, steps=None if hasattr(pipe.solver, "rtol") else 8)
    if not bool(result.losses.isfinite().all()) or not bool(samples.x.isfinite().all()):
        raise Failed("a loss or a sample is not finite")
    return float(result.losses[-1])
