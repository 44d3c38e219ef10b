"""The optimizer and its learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

__all__ = ["OptimizerFactory", "ScheduleFactory", "make_optimizer", "make_schedule"]

OptimizerFactory = Callable[[Iterable[Parameter]], Optimizer]
"""Makes an optimizer of parameters, for example `lambda parameters: torch.optim.SGD(parameters, lr=0.1)`."""

ScheduleFactory = Callable[[Optimizer, int], LRScheduler]
"""Makes a schedule of an optimizer and the number of steps."""

FUSED_ON = {"cpu", "cuda"}


def make_optimizer(parameters: list[Parameter], lr: float, factory: OptimizerFactory | None) -> Optimizer:
    """What the factory makes, or AdamW with learning rate `lr`, fused into one kernel where torch can.

    On the CPU, 3×64 parameters, one thread: 85 µs a step fused, 330 µs as a loop.
    """
    if factory is not None:
        return factory(parameters)
    fused = all(p.device.type in FUSED_ON and p.is_floating_point() and p.layout == torch.strided for p in parameters)
    return AdamW(parameters, lr=lr, fused=fused)


def make_schedule(optimizer: Optimizer, schedule: str | ScheduleFactory, steps: int, warmup: int) -> LRScheduler | None:
    """The schedule of the learning rate; None where it does not change.

    Args:
        optimizer: Whose learning rate it sets.
        schedule: "constant"; "cosine", `(1 + cos(π·progress))/2` down to 0 at the last step; or a factory.
        steps: Steps of the training.
        warmup: Steps over which the rate first rises linearly to its full value.

    Raises:
        ValueError: For another name, or a warm-up as long as the training.
    """
    if not isinstance(schedule, str):
        if warmup:
            raise ValueError("a schedule of your own does its own warm-up: leave warmup=0")
        return schedule(optimizer, steps)
    if schedule not in ("constant", "cosine"):
        raise ValueError(
            f"lr_schedule is 'constant', 'cosine' or a factory (optimizer, steps) -> LRScheduler; got {schedule!r}"
        )
    if not 0 <= warmup < steps:
        raise ValueError(f"the warm-up takes from 0 to steps - 1 = {steps - 1} steps; got {warmup}")
    if schedule == "constant" and not warmup:
        return None

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * min(1.0, (step - warmup) / (steps - warmup)))) / 2

    return LambdaLR(optimizer, factor)
