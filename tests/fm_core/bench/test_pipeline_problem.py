"""A pipeline's own fine solution: as fine as it pays, and right to what it says."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import Tensor

import fm_core as fm
from fm_core.bench.pipeline_problem import FEWEST_STEPS, MOST_STEPS, PipelineProblem
from fm_core.errors import DivergenceError


def driven(frequency: float, dtype: torch.dtype = torch.float64) -> PipelineProblem:
    """dx/dt = sin(ω·t) + cos(ω·t) in pictures: the end is known, and waves are resolved by steps of 1/ω."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return ((frequency * t).sin() + (frequency * t).cos()).to(dtype).reshape(-1, 1, 1, 1) + 0 * x

    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"))
    return PipelineProblem(title="driven", pipeline=pipe, event_shape=(1, 2, 2))


def end(frequency: float) -> float:
    return (1 - math.cos(frequency) + math.sin(frequency)) / frequency


def test_a_smooth_field_is_refined_until_two_solutions_agree() -> None:
    problem = driven(3.0)
    x0 = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    off = float((problem.reference(x0) - x0 - end(3.0)).abs().max())
    assert off <= 3 * problem.reference_error < 1e-5


@pytest.mark.parametrize("frequency", [1000.0, 3000.0, 20_000.0])
def test_waves_that_no_step_resolves_end_the_refining_and_are_its_error(frequency: float) -> None:
    """Not all steps are taken when more of them do not help, and the error that is left is said, not hidden."""
    problem = driven(frequency)
    last = list(problem.refinements())[-1]
    assert last.steps < MOST_STEPS or last.error < 1e-6
    x0 = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    off = float((problem.reference(x0) - end(frequency)).abs().max())
    assert off <= 3 * problem.reference_error


def test_the_floor_of_float32_ends_the_refining() -> None:
    """Where rounding is all that is left, two more doublings do not quarter the difference."""
    steps = [found.steps for found in evolve(driven(3.0, torch.float32), agreed=0.0).refinements()]
    assert steps[0] == 2 * FEWEST_STEPS
    assert steps[-1] < MOST_STEPS


def test_a_reference_does_not_depend_on_the_batch() -> None:
    problem = evolve(driven(40.0), agreed=1e-3)
    x0 = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(problem.reference(x0)[1:2], problem.reference(x0[1:2]), rtol=0, atol=1e-14)


def test_how_fine_it_is_may_be_given() -> None:
    problem = evolve(driven(40.0), agreed=1e-4)
    coarse = next(problem.refinements())
    given = evolve(problem, refined=coarse)
    assert given.reference_error == coarse.error > problem.reference_error
    torch.testing.assert_close(given.reference(problem.probe()[0]), coarse.ends)


def test_a_reference_that_is_not_finite_is_an_error() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return x * torch.where(t > 0.9, torch.inf, 1.0)[:, None]

    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"))
    with pytest.raises(DivergenceError, match="not finite"):
        _ = PipelineProblem(title="bad", pipeline=pipe, event_shape=(2,)).reference_error
