"""How a training goes, checked before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from attrs import Attribute, field, frozen

from fm_core.errors import BudgetError
from fm_core.fit.optim import OptimizerFactory, ScheduleFactory

__all__ = ["Settings"]


def _at_least(low: int) -> Any:
    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise BudgetError(f"{attribute.name} is a whole number of at least {low}; got {value!r}")

    return check


def _positive(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not value > 0:
        raise BudgetError(f"{attribute.name} is a positive number; got {value!r}")


def _probability(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not 0 <= value <= 1:
        raise BudgetError(f"{attribute.name} is a probability in [0, 1]; got {value!r}")


@frozen(kw_only=True)
class Settings:
    """The arguments of `fit`, as it describes them, with their defaults resolved.

    Raises:
        BudgetError: For numbers that no training can have.
    """

    steps: int = field(validator=_at_least(1))
    batch_size: int = field(validator=_at_least(1))
    seed: int = field(validator=_at_least(0))
    lr: float = field(validator=_positive)
    optimizer: OptimizerFactory | None
    lr_schedule: str | ScheduleFactory
    warmup: int = field(validator=_at_least(0))
    ema: float | None
    clip: float | None = field(validator=_positive)
    validate_every: int | None = field(validator=_at_least(1))
    autocast: torch.dtype | None
    prefetch: int = field(validator=_at_least(0))
    cond_dropout: float = field(validator=_probability)
    max_bad: int = field(validator=_at_least(1))
    progress: bool | None
    checkpoint: Path | None
    checkpoint_every: int = field(validator=_at_least(1))

    def due_to_save(self, done: int) -> bool:
        """Whether the state is to be written once `done` steps are taken."""
        return self.checkpoint is not None and (done % self.checkpoint_every == 0 or done == self.steps)

    def due_to_validate(self, done: int) -> bool:
        """Whether the validation loss is to be measured once `done` steps are taken."""
        every = self.validate_every or max(1, self.steps // 10)
        return done % every == 0 or done == self.steps

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same when a training is taken up again, JSON-able.

        `steps` may grow where the learning rate does not depend on it.
        """
        named = isinstance(self.lr_schedule, str)
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "lr": self.lr if self.optimizer is None else None,
            "lr_schedule": self.lr_schedule if named else "a factory",
            "steps": None if self.lr_schedule == "constant" else self.steps,
            "warmup": self.warmup,
            "ema": self.ema,
            "clip": self.clip,
            "cond_dropout": self.cond_dropout,
            "autocast": None if self.autocast is None else str(self.autocast),
        }
