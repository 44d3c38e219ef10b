"""One training from its first step to its end: all steps taken, interrupted, or failed, keeping what it had."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from torch import nn

from fm_core import registry
from fm_core.errors import FitError, SavedFileError
from fm_core.field import Model, training_of
from fm_core.fit.batches import Batches, Preparation, prefetched
from fm_core.fit.checks import fingerprint
from fm_core.fit.data import Data, open_data
from fm_core.fit.global_rng import global_state, set_global_state
from fm_core.fit.progress import ProgressBar, someone_looks
from fm_core.fit.result import FitResult
from fm_core.fit.resume import write_state
from fm_core.fit.rows import Rows
from fm_core.fit.settings import Settings
from fm_core.fit.step import Stepper
from fm_core.fit.validation import Validation

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Run"]


class Run:
    """One training: what has been reached, and how it ends."""

    def __init__(
        self,
        pipeline: Pipeline,
        net: nn.Module,
        rows: Data,
        provenance: tuple[str, ...] | None,
        validation: Any,
        settings: Settings,
        saved: dict[str, Any] | None,
    ) -> None:
        prepare = Preparation(pipeline, *pipeline.placement)
        self.pipeline, self.settings, self.provenance = pipeline, settings, provenance
        self.expected = fingerprint(pipeline, rows, settings)
        self.batches = Batches(rows, prepare, settings.batch_size, settings.seed)
        self.validation = (
            None if validation is None else Validation(pipeline, open_data(validation), prepare, settings.batch_size)
        )
        self.stepper = Stepper(pipeline, deepcopy(net), settings)
        self.losses: list[float] = []
        self.curve: list[tuple[int, float]] = []
        self.skipped = self.bad = self.drawn = 0
        self.event_shape: tuple[int, ...] = ()
        if saved is not None:
            self._restore(saved)
        self.first = self.drawn = len(self.losses)
        self.began = time.perf_counter()

    def go(self) -> FitResult:
        """Trains to the end, or as far as it goes."""
        shown = someone_looks() if self.settings.progress is None else self.settings.progress
        with registry.observing(*([ProgressBar(self.first)] if shown else [])):
            return self._go()

    def _go(self) -> FitResult:
        settings, stopped = self.settings, None
        _tell("fm_fit_start", pipeline=self.pipeline, steps=settings.steps, batch_size=settings.batch_size)
        ahead = prefetched(self._draw, settings.steps - self.first, settings.prefetch)
        try:
            with ahead as take:
                self._loop(take)
        except KeyboardInterrupt:
            if self._nothing_reached():
                raise
            stopped = "interrupted"
        except FitError as error:
            error.result = self._result(str(error))
            raise
        except Exception as error:
            if self._nothing_reached():
                raise
            reason = f"training stopped at step {len(self.losses)} of {settings.steps}: {type(error).__name__}: {error}"
            raise FitError(f"{reason}. What it had reached is this error's `result`.", self._result(reason)) from error
        if not self.stepper.settle():
            reason = "the last optimizer step left weights that are not finite"
            raise FitError(f"{reason}; the average in this error's `result` is without them", self._result(reason))
        result = self._result(stopped)
        if stopped is not None:
            warnings.warn(
                f"fit was interrupted at step {result.steps} of {settings.steps} and gives what it had", stacklevel=4
            )
        return result

    def _loop(self, take: Callable[[], tuple[Rows, Any]]) -> None:
        settings, stepper, observers = self.settings, self.stepper, registry.observers("fm_fit_step")
        for done in range(self.first + 1, settings.steps + 1):
            batch, place = take()
            lr = stepper.lr if observers is not None else 0.0
            loss, good = stepper.step(batch)
            self.losses.append(loss)
            if good:
                self.bad = 0
                if observers is not None:
                    registry.notify(observers, step=done - 1, loss=loss, lr=lr)
            else:
                self._skip(loss)
            if self.validation is not None and settings.due_to_validate(done):
                self._validate(self.validation)
            if place is not None:
                self._save(place)

    def _draw(self) -> tuple[Rows, Any]:
        """The next batch; beside it, where the state is written after its step, how to go on with the one after."""
        batch = self.batches.draw()
        self.drawn += 1
        if self.drawn == self.first + 1:
            self._look_at(batch)
        return batch, self.batches.state() if self.settings.due_to_save(self.drawn) else None

    def _look_at(self, batch: Rows) -> None:
        self.event_shape = tuple(batch.x1.shape[1:])
        if self.validation is not None:
            self.validation.check(self.event_shape)

    def _nothing_reached(self) -> bool:
        return len(self.losses) == self.first

    def _skip(self, loss: float) -> None:
        self.skipped += 1
        self.bad += 1
        if self.bad < self.settings.max_bad:
            return
        t = self.stepper.t
        what = (
            f"the loss is {loss}"
            if loss != loss or abs(loss) == float("inf")
            else f"the gradient is not finite (loss {loss:.4g})"
        )
        raise FitError(
            f"{self.bad} steps in a row were skipped, up to step {len(self.losses)} of {self.settings.steps}: "
            f"{what}, at t from {float(t.min()):.4g} to {float(t.max()):.4g}. Likely causes: a learning rate that is "
            "too high (lower lr, add warmup, clip=1.0), data that are not of about unit size or hold NaN (scale and "
            "clean them), an objective that is singular at an end of the path (keep its times inside), float16 (use "
            "torch.bfloat16). What was reached before is this error's `result`."
        )

    def _validate(self, validation: Validation) -> None:
        self.stepper.settle()
        average = self.stepper.average
        self.curve.append((len(self.losses), validation(self.stepper.net if average is None else average.net)))

    def _save(self, place: dict[str, Any]) -> None:
        assert self.settings.checkpoint is not None
        if not self.stepper.settle():
            return  # the last healthy state stays
        state = {
            "step": self.stepper.state_dict(),
            "batches": place,
            "losses": self.losses,
            "validation": self.curve,
            "skipped": self.skipped,
            "bad": self.bad,
            "event_shape": self.event_shape,
            "torch": global_state(self.pipeline.placement[0]),
        }
        write_state(self.settings.checkpoint, state, self.expected)

    def _restore(self, saved: dict[str, Any]) -> None:
        if len(saved["losses"]) > self.settings.steps:
            raise SavedFileError(
                f"the checkpoint holds {len(saved['losses'])} steps, more than the {self.settings.steps} asked for; "
                "give at least as many, or another checkpoint directory"
            )
        try:
            self.stepper.load_state_dict(saved["step"])
            self.batches.restore(saved["batches"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise SavedFileError(f"the checkpoint is of another network, optimizer or data: {error}") from error
        self.losses = list(saved["losses"])
        self.curve = [(step, loss) for step, loss in saved["validation"]]
        self.skipped, self.bad, self.event_shape = saved["skipped"], saved["bad"], tuple(saved["event_shape"])
        set_global_state(saved["torch"], self.pipeline.placement[0])

    def _result(self, stopped: str | None) -> FitResult:
        self.stepper.settle()
        average = self.stepper.average
        raw = self._with_net(self.stepper.net)
        result = FitResult(
            pipeline=raw if average is None else self._with_net(average.net),
            raw=raw,
            losses=torch.tensor(self.losses, dtype=torch.float32),
            validation=tuple(self.curve),
            steps=len(self.losses),
            skipped=self.skipped,
            seed=self.settings.seed,
            seconds=time.perf_counter() - self.began,
            stopped=stopped,
        )
        _tell("fm_fit_end", result=result)
        return result

    def _with_net(self, net: nn.Module) -> Pipeline:
        """The pipeline with this network, which keeps the registry name of the one it is a copy of."""
        old = self.pipeline.model
        assert isinstance(old, Model)
        net.eval().zero_grad(set_to_none=True)
        model = evolve(old, net=net, trained=training_of(self.pipeline, self.event_shape, self.provenance))
        for before, after in ((old, model), (old.net, net)):
            spec = registry.origin(before)
            if spec is not None:
                registry.remember(after, spec)
        return self.pipeline.replace(model=model)


def _tell(hook: str, **event: Any) -> None:
    observers = registry.observers(hook)
    if observers is not None:
        registry.notify(observers, **event)
