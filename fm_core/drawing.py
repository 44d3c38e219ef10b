"""What a run starts from: the shape of its states, where and in what they live, and how the first ones come about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor, nn

from fm_core.course import Course
from fm_core.errors import ShapeError
from fm_core.protocols import ProbabilityPath
from fm_core.randomness import BlockGenerator

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Drawing", "state_kind", "state_of", "whole_shape"]


@frozen(eq=False)
class Drawing:
    """How the first states come about, for any rows of the run, again and again the same."""

    path: ProbabilityPath
    course: Course
    shape: tuple[int, ...]
    seed: int
    device: torch.device
    dtype: torch.dtype
    x0: Tensor | None
    x1: Tensor | None

    def draw(self, rows: slice) -> tuple[Tensor, BlockGenerator]:
        """The first states of these rows, and the generator that goes on to draw their noise."""
        generator = BlockGenerator(self.seed, rows.start, rows.stop, self.device)
        if self.x0 is None:
            event, path = self.shape[1:], self.path
            x0 = generator.draw(
                lambda n, g: path.sample_source((n, *event), generator=g, dtype=self.dtype, device=self.device)
            )
        else:
            x0 = self.x0[rows].to(self.device, self.dtype)
        if self.x1 is not None:
            x1 = self.x1[rows].to(self.device, self.dtype)
            t = self.course.times[0].to(self.device).expand(len(x1))
            return self.path.interpolate(x0, x1, t, generator=generator).x_t, generator
        return (x0 if self.course.scale == 1.0 else x0 * self.course.scale), generator


def state_of(
    pipeline: Pipeline,
    shape: int | Sequence[int] | None,
    x0: Tensor | None,
    x1: Tensor | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[tuple[int, ...], torch.device, torch.dtype]:
    """Shape, device and dtype of the states.

    Raises:
        ShapeError: For none or several of shape, x0 and x1, or for what cannot be states.
    """
    given = next((x for x in (x1, x0) if x is not None), None)
    if (shape is None) == (given is None):
        raise ShapeError("say what to sample by one of: a shape (B, *D), x0= source samples, or x1= data with start=")
    if x0 is not None and x1 is not None and x0.shape != x1.shape:
        raise ShapeError(f"x0 and x1 must have one shape; got {tuple(x0.shape)} and {tuple(x1.shape)}")
    whole = tuple(given.shape) if given is not None else whole_shape(pipeline, shape if shape is not None else ())
    if len(whole) < 2 or min(whole) < 1:
        raise ShapeError(f"states have the shape (B, *D) with B ≥ 1 and at least one dimension D; got {whole}")
    if given is not None and not given.is_floating_point():
        raise ShapeError(f"x0 and x1 must be floating point; got {given.dtype}")
    return whole, *state_kind(pipeline, given, device, dtype)


def state_kind(
    pipeline: Pipeline, given: Tensor | None, device: torch.device | str | None, dtype: torch.dtype | None
) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the states: the network's, or those of the given tensor for a function that has none.

    Raises:
        ShapeError: If others are asked for than the network's.
    """
    default_device, default_dtype = pipeline.placement
    module = isinstance(getattr(pipeline.model, "net", None), nn.Module)
    if given is not None and not module:
        default_dtype = given.dtype
    if module and (
        (dtype or default_dtype) != default_dtype or torch.device(device or default_device).type != default_device.type
    ):
        raise ShapeError(
            f"the network is {default_dtype} on {default_device}; got dtype={dtype}, device={device}. "
            "Move the network: pipe.to(device, dtype)"
        )
    return torch.device(device or default_device), dtype or default_dtype


def whole_shape(pipeline: Pipeline, shape: int | Sequence[int]) -> tuple[int, ...]:
    """The shape `(B, *D)`, with D from the network's training where only B is given.

    Raises:
        ShapeError: If the network does not remember D.
    """
    if not isinstance(shape, int):
        return tuple(shape)
    trained = getattr(pipeline.model, "trained", None)
    if trained is None or trained.event_shape is None:
        raise ShapeError(
            f"the network does not remember the shape of a sample; give it: ({shape}, *D) instead of {shape}"
        )
    return (shape, *trained.event_shape)
