"""Training of a classifier on the noisy states of a path, by cross-entropy at times uniform over the path.

    L = −E log p(c | x_t, t),   x_t = path.interpolate(x0, x1, t),   t uniform

Its minimiser is the posterior p(c | x_t), the one classifier guidance needs. Without a path the states are the data
themselves, at t = 1: a classifier of clean data, for features.

References:
    Dhariwal & Nichol 2021, section 4. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_core.errors import ConditionError, DivergenceError, ShapeError
from fm_core.fit.global_rng import own_randomness
from fm_core.fit.optim import make_optimizer, make_schedule
from fm_core.prediction import Prediction
from fm_core.protocols import ProbabilityPath, span_of
from fm_core.randomness import make_generator, spawn_seed
from fm_core.shapes import time_dtype

__all__ = ["train_classifier"]

ORDER, NOISE, DROPOUT = 0, 1, 2
"""Streams of the seed."""


def train_classifier(
    net: nn.Module,
    path: ProbabilityPath | None,
    x1: Tensor,
    labels: Tensor,
    *,
    steps: int,
    seed: int,
    batch_size: int = 128,
    lr: float = 2e-3,
    on_step: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Trains a classifier in place, by AdamW whose rate falls to 0 as half a cosine; it is left in evaluation mode.

    The data are gone through epoch by epoch, in an order of the seed; what draws from torch's global generator
    (dropout) finds it seeded, and it is given back as it was.

    Args:
        net: Called as `net(x_t, t)`, gives logits `(B, K)`.
        path: Path of the noisy states; None for clean data at t = 1.
        x1: Data, shape `(N, *D)`.
        labels: Their classes, `(N,)`, int64, in 0 … K − 1.
        steps: Number of steps.
        seed: Of the order, the noise, the times and dropout.
        batch_size: Samples of a step; all N if there are fewer.
        lr: Learning rate of the first step.
        on_step: Called with the step, from 0, and its loss.

    Returns:
        The loss of every step, float32 on the CPU, shape `(steps,)`.

    Raises:
        ShapeError: If labels and data do not fit each other.
        ConditionError: For a label the network has no logit for.
        DivergenceError: If a loss is not finite.
    """
    _check_data(x1, labels)
    p = next(net.parameters())
    optimizer = make_optimizer(list(net.parameters()), lr, None)
    schedule = make_schedule(optimizer, "cosine", steps, 0)
    batches = _batches(path, x1.to(p), labels.to(p.device), min(batch_size, x1.shape[0]), seed)
    losses = torch.empty(steps)
    with own_randomness(spawn_seed(seed, DROPOUT), p.device):
        net.train()
        for step, (x_t, t, classes) in zip(range(steps), batches):
            logits = net(x_t, t)
            if step == 0:
                _check_logits(logits, labels)
            loss = F.cross_entropy(logits, classes)
            losses[step] = loss.item()
            if not losses[step].isfinite():
                raise DivergenceError(f"the loss of step {step} is {losses[step]}; lower lr (it was {lr})")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule is not None:
                schedule.step()
            if on_step is not None:
                on_step(step, float(losses[step]))
    net.eval()
    return losses


def _batches(
    path: ProbabilityPath | None, x1: Tensor, labels: Tensor, batch: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Noisy states, their times and classes, without end."""
    generator = make_generator(spawn_seed(seed, NOISE), x1.device)
    for index in _rows(x1.shape[0], batch, make_generator(spawn_seed(seed, ORDER))):
        rows = index.to(x1.device)
        yield *_noisy(path, x1[rows], generator), labels[rows]


def _noisy(path: ProbabilityPath | None, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """States and their times, `(B, *D)` and `(B,)`."""
    dtype = time_dtype(x1.dtype)
    if path is None:
        return x1, torch.ones(x1.shape[0], dtype=dtype, device=x1.device)
    # A classifier predicts nothing that stops being known at either end: from where data, to where noise can be asked.
    low, high = span_of(path, Prediction.DATA, ())[0], span_of(path, Prediction.NOISE, ())[1]
    t = low + (high - low) * torch.rand(x1.shape[0], generator=generator, dtype=dtype, device=x1.device)
    x0 = path.sample_source(x1.shape, generator=generator, dtype=x1.dtype, device=x1.device)
    return path.interpolate(x0, x1, t, generator=generator).x_t, t


def _rows(size: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices without end, each epoch in an order of its own; a batch may begin in one and end in the next."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while order.numel() < batch:
            order = torch.cat([order, torch.randperm(size, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def _check_data(x1: Tensor, labels: Tensor) -> None:
    if labels.shape != x1.shape[:1] or x1.shape[0] == 0 or labels.dtype != torch.int64:
        raise ShapeError(
            f"x1 (N, *D) needs int64 labels (N,), N at least 1; got {tuple(x1.shape)} and {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    low, high = int(labels.min()), int(labels.max())
    if logits.ndim != 2 or low < 0 or high >= logits.shape[1]:
        raise ConditionError(
            f"labels are in 0 … K − 1, with a logit each; got labels from {low} to {high} and logits "
            f"{tuple(logits.shape)}; build the classifier with classes={high + 1}"
        )
