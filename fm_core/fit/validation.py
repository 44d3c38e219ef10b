"""The loss on data that are not trained on, always on the same times and source samples, so that curves compare.

Sources and times come from a seed of their own, the same for every training: runs of different seeds are measured on
    the same draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from attrs import evolve
from torch import nn

from fm_core.errors import ShapeError
from fm_core.field import Field, Model
from fm_core.fit.batches import Preparation
from fm_core.fit.data import Data
from fm_core.fit.rows import Rows
from fm_core.fit.step import point_losses
from fm_core.randomness import make_generator, spawn_seed

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Validation"]

SEED = 0x5EED
"""Seed of every validation's draws."""


class Validation:
    """Measures the mean loss over one pass of data.

    Args:
        pipeline: Its path, objective, coupling and codec.
        data: What is measured on.
        prepare: Makes batches of it.
        batch_size: Samples at a time.
    """

    def __init__(self, pipeline: Pipeline, data: Data, prepare: Preparation, batch_size: int) -> None:
        self._pipeline = pipeline
        self._data = data
        self._prepare = prepare
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(self, net: nn.Module) -> float:
        """Mean loss of the network, in evaluation mode; it is left in the mode it was in."""
        model, objective = self._pipeline.model, self._pipeline.objective
        assert isinstance(model, Model)
        assert objective is not None
        field = Field(evolve(model, net=net), self._pipeline.path)
        device, _ = self._pipeline.placement
        noise = make_generator(spawn_seed(SEED, 2), device)
        training = net.training
        net.eval()
        total, count = 0.0, 0
        try:
            for batch in self._batches():
                losses = point_losses(field, objective, batch, noise)[1]
                total, count = total + float(losses.double().sum()), count + len(losses)
        finally:
            net.train(training)
        return total / count

    def check(self, event_shape: tuple[int, ...]) -> None:
        """Checks that states have the shape of the training's.

        Raises:
            ShapeError: If they have another.
        """
        first = next(self._batches())
        if first.x1.shape[1:] != torch.Size(event_shape):
            raise ShapeError(
                f"validation data have the event shape {tuple(first.x1.shape[1:])}, training data {event_shape}"
            )

    def _batches(self) -> Iterator[Rows]:
        order, source = make_generator(spawn_seed(SEED, 0)), make_generator(spawn_seed(SEED, 1), self._prepare.device)
        return (self._prepare(rows, source) for rows in self._data.once(self._batch_size, order))
