"""What a training gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from torch import Tensor

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["FitResult"]


@frozen(eq=False)
class FitResult:
    """What a training reached.

    Args:
        pipeline: The pipeline with the averaged weights, or the raw ones if nothing was averaged; in evaluation mode.
        raw: The pipeline with the weights of the last step.
        losses: Mean loss of every step, float32 on the CPU, shape `(steps,)`; not finite at some of the skipped steps.
        validation: Pairs of steps taken and validation loss.
        steps: Steps gone through, skipped ones and those of earlier runs included.
        skipped: Steps whose loss or gradient was not finite.
        seed: Seed that repeats the training.
        seconds: Time spent, in this run.
        stopped: None, or why it ended early.
    """

    pipeline: Pipeline
    raw: Pipeline
    losses: Tensor
    validation: tuple[tuple[int, float], ...]
    steps: int
    skipped: int
    seed: int
    seconds: float
    stopped: str | None = None
