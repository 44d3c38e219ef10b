"""One training step: loss, gradient, a guard against what is not finite, then optimizer, learning rate and average.

Nothing that is not finite passes the guard, which needs the loss and the gradient's norm on the CPU: one wait for the
device a step. The weights are averaged at the next step, once they have given a finite loss, so weights that an
optimizer spoils never reach the average.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from torch import Tensor, nn

from fm_core.errors import FitError, ShapeError
from fm_core.field import Field, Model
from fm_core.fit.dropout import drop_condition
from fm_core.fit.ema import EMA
from fm_core.fit.optim import make_optimizer, make_schedule
from fm_core.fit.rows import Rows
from fm_core.fit.settings import Settings
from fm_core.protocols import Objective, span_of
from fm_core.randomness import make_generator, spawn_seed
from fm_core.shapes import time_dtype

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Stepper", "point_losses"]

TIME = 2
"""Stream of the seed: times, and the noise of paths that have some of their own."""


def point_losses(
    field: Field, objective: Objective, batch: Rows, generator: torch.Generator, autocast: Any = None
) -> tuple[Tensor, Tensor]:
    """Times and losses of a batch, each `(B,)`.

    Args:
        field: The network on its path.
        objective: Draws the times and measures the loss.
        batch: Samples of both ends, on the network's device.
        generator: For times and the path's own noise.
        autocast: Context in which the network runs.
    """
    x0, x1, cond = batch
    assert x0 is not None
    t = objective.sample_time(field.path, x1.shape[0], generator=generator, device=x1.device).to(time_dtype(x1.dtype))
    low, high = span_of(field.path, field.native, objective.needs)
    if (low, high) != (0.0, 1.0):  # where the network's prediction does not give what the objective needs
        t = t.clamp(low, high)
    sample = field.path.interpolate(x0, x1, t, generator=generator)
    if autocast is None:
        return t, objective.loss(field, sample, cond)
    with autocast:
        return t, objective.loss(field, sample, cond)


class Stepper:
    """A network with its optimizer and average, advanced one batch at a time.

    Args:
        pipeline: What is trained; its objective must be there.
        net: The copy of the network that is trained, in place.
        settings: How it is trained.

    Attributes:
        t: The times of the last step, `(B,)`.
    """

    t: Tensor

    def __init__(self, pipeline: Pipeline, net: nn.Module, settings: Settings) -> None:
        assert isinstance(pipeline.model, Model)
        assert pipeline.objective is not None
        device, _ = pipeline.placement
        self.net = net.train()
        self.field = Field(evolve(pipeline.model, net=net), pipeline.path)
        self.average = None if settings.ema is None else EMA(net, settings.ema)
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.parameters, settings.lr, settings.optimizer)
        self.schedule = make_schedule(self.optimizer, settings.lr_schedule, settings.steps, settings.warmup)
        self._objective = pipeline.objective
        self._clip, self._dropout = settings.clip, settings.cond_dropout
        self._noise = make_generator(spawn_seed(settings.seed, TIME), device)
        self._autocast: Any = None
        self._scaler: torch.amp.GradScaler | None = None
        if settings.autocast is not None:
            self._autocast = torch.autocast(device.type, settings.autocast)
            if settings.autocast == torch.float16:
                self._scaler = torch.amp.GradScaler(device.type)
        self._checked = False
        self._owed = False

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, batch: Rows) -> tuple[float, bool]:
        """Takes one step, unless loss or gradient is not finite.

        Returns:
            The mean loss of the batch, and whether the step was taken.
        """
        if self._dropout:
            null = self.field.model.null  # type: ignore[attr-defined]  # `fit` has seen that it is there
            cond = drop_condition(batch.cond, null, self._dropout, batch.x1.shape[0], self._noise)
            batch = batch._replace(cond=cond)
        self.t, losses = point_losses(self.field, self._objective, batch, self._noise, self._autocast)
        if not self._checked:
            self._check(losses, batch.x1.shape[0])
        mean = losses.mean()
        for p in self.parameters:  # half the price of zero_grad, which is a twentieth of a small network's step
            p.grad = None
        (mean if self._scaler is None else self._scaler.scale(mean)).backward()  # type: ignore[no-untyped-call]
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        norm = _norm([p.grad for p in self.parameters if p.grad is not None])
        loss = mean.item()
        good = math.isfinite(loss) and math.isfinite(norm.item())
        if good:
            self._advance(norm)
        if self._scaler is not None:
            self._scaler.update()
        return loss, good

    def settle(self) -> bool:
        """Takes the present weights into the average, if that is owed.

        Returns:
            Whether the weights are finite; those that are not are never averaged.
        """
        with torch.no_grad():
            finite = all(bool(p.isfinite().all()) for p in self.parameters)
        if finite:
            self._average()
        return finite

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        parts = {
            "net": self.net,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self._scaler,
        }
        state = {name: part.state_dict() for name, part in parts.items() if part is not None}
        return {**state, "noise": self._noise.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        parts = {
            "net": self.net,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self._scaler,
        }
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state[name])
        self._noise.set_state(state["noise"].cpu())

    def _advance(self, norm: Tensor) -> None:
        self._average()
        if self._clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self._clip, norm)
        if self._scaler is None:
            self.optimizer.step()
        else:
            self._scaler.step(self.optimizer)
        if self.schedule is not None:
            self.schedule.step()
        self._owed = True

    def _average(self) -> None:
        if self.average is not None and self._owed:
            self.average.update()
        self._owed = False

    def _check(self, losses: Tensor, batch: int) -> None:
        if losses.shape != (batch,):
            raise ShapeError(
                f"{type(self._objective).__name__}.loss must return the loss of every sample, shape ({batch},), "
                f"unreduced; got {tuple(losses.shape)}"
            )
        if not losses.requires_grad:
            raise FitError(
                "the loss does not depend on the network's parameters: does the network detach its output, "
                "run under no_grad, or ignore them?"
            )
        self._checked = True


def _norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together: `torch.nn.utils.get_total_norm` of one device, at a third of its cost."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm
