"""What is asked of a calibration, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fm_core.building import name_of
from fm_core.calibration.pilot import source_states
from fm_core.calibration.table import free_numbers
from fm_core.compat import Problem
from fm_core.drawing import whole_shape
from fm_core.errors import BudgetError, CompatError, DataError, ShapeError
from fm_core.pipeline import Pipeline
from fm_core.protocols import declared
from fm_core.shapes import check_batch

__all__ = ["at_least", "predictions_of", "require_determined", "require_gaussian", "require_one_field", "source_of"]

LEAST_PILOT = 16
"""Trajectories below which no median means anything."""


def require_gaussian(pipeline: Pipeline) -> None:
    """Refuses a path without α and σ.

    Raises:
        CompatError: For one.
    """
    if not all(hasattr(pipeline.path, name) for name in ("alpha", "sigma", "affine", "span")):
        raise CompatError(
            [
                Problem(
                    f"{name_of(pipeline.path)} cannot be calibrated",
                    "a calibrated table has the linear part of a Gaussian path, α and σ",
                    "use a Gaussian path, or an uncalibrated solver",
                )
            ]
        )


def require_one_field(pipeline: Pipeline) -> None:
    """Refuses a guidance that does another thing in short steps than in long ones: no fine solution has the true ends.

    Raises:
        CompatError: For such a one.
    """
    stepwise = [guidance for guidance in pipeline.guidance if declared(guidance, "per_step")]
    if stepwise:
        names = ", ".join(name_of(guidance) for guidance in stepwise)
        raise CompatError(
            [
                Problem(
                    f"under {names} there is no solution to compare with",
                    "what it does depends on how long a step is, so many short steps solve another field than few long "
                    "ones",
                    "leave it out, or take a guidance of the field itself, such as 'cfg'",
                )
            ]
        )


def at_least(least: int, name: str, value: int) -> int:
    """A whole number that was given by this name.

    Raises:
        BudgetError: For less.
    """
    if value < least:
        raise BudgetError(f"{name} is a whole number ≥ {least}; got {value}")
    return int(value)


def source_of(pipeline: Pipeline, shape: int | Sequence[int] | None, x0: Tensor | None, cond: Any, seed: int) -> Tensor:
    """The pilot's source samples, `(B, *D)`, where the network is and in its dtype.

    Args:
        pipeline: What is calibrated.
        shape: `(B, *D)`, or B where the network remembers D, to draw them.
        x0: Source samples.
        cond: Their condition.
        seed: Of the drawn ones.

    Raises:
        DataError: For neither or both of shape and x0; for numbers that are not finite.
        ShapeError: For what cannot be states, or another batch of the condition.
    """
    if (shape is None) == (x0 is None):
        raise DataError("say what to calibrate on by one of: a shape (B, *D), or x0= source samples")
    if shape is not None:
        whole = tuple(map(int, whole_shape(pipeline, shape)))
        x0 = source_states(pipeline, _states(whole), seed, pipeline.placement[1])
    elif x0 is not None:
        x0 = _given(pipeline, x0)
    assert x0 is not None
    check_batch(cond, len(x0), "cond")
    return x0


def _given(pipeline: Pipeline, x0: Tensor) -> Tensor:
    _states(tuple(x0.shape))
    if not x0.is_floating_point():
        raise ShapeError(f"x0 must be floating point; got {x0.dtype}: whole numbers are no draw from a source")
    if not bool(x0.isfinite().all()):
        raise DataError("x0 has numbers that are not finite, so the trajectories from there lead nowhere")
    module = isinstance(getattr(pipeline.model, "net", None), torch.nn.Module)
    return x0.to(*pipeline.placement) if module else x0


def _states(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 2 or min(shape) < 1:
        raise ShapeError(f"states have the shape (B, *D) with B ≥ 1 and at least one dimension D ≥ 1; got {shape}")
    return shape


def predictions_of(pipeline: Pipeline, nfe: int) -> int:
    """The predictions that so many calls afford.

    Raises:
        BudgetError: If these are fewer than two.
    """
    each = math.prod(
        int(declared(guidance, "evals")) for guidance in pipeline.guidance if not declared(guidance, "off")
    )
    if nfe // each < 2:
        raise BudgetError(f"a calibrated table takes at least 2 predictions, nfe={2 * each} here; got nfe={nfe}")
    return int(nfe) // each


def require_determined(x0: Tensor, steps: int) -> None:
    """Refuses a pilot that says less than the table has free numbers.

    Raises:
        DataError: For one.
    """
    size, free = x0[0].numel(), free_numbers(steps)
    least = max(LEAST_PILOT, math.ceil(free / size))
    if len(x0) < least:
        raise DataError(
            f"a table of {steps} predictions has {free} free numbers, and {len(x0)} trajectories of {size} numbers do "
            f"not determine them: the fit would learn this pilot by heart. Give at least {least} trajectories, better "
            f"{4 * least}, or a smaller nfe"
        )
