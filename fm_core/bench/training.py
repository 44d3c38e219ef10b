"""Training by a method under a budget: data and source drawn by the seed, one network, AdamW, rounds of reflow.

All that is drawn comes from one seed in streams of its own, so all methods of a seed train the same first weights on
the same points.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fm_core import registry
from fm_core.bench.papers import Budget, Method, Task
from fm_core.drawing import whole_shape
from fm_core.errors import DivergenceError, FitError
from fm_core.field import Model
from fm_core.fit.data import Pairs
from fm_core.fit.result import FitResult
from fm_core.pipeline import Pipeline, recipe
from fm_core.prediction import Prediction
from fm_core.randomness import make_generator, spawn_seed

__all__ = ["network", "train"]

TRAINING_SET, SOURCE_SET, _, NETWORK, TRAINING, PAIRS = range(6)
"""Streams of a cell's seed; the third is the exam's."""

SAVED_EVERY = 500
"""The fewest steps between two savings: a second or two of training, beside which a saving costs little."""


def train(
    task: Task, method: Method, budget: Budget, seed: int, *, checkpoint: Path | None = None
) -> tuple[FitResult, float]:
    """A network trained by a method on a task.

    Args:
        task, method, budget: What is trained, and on what.
        seed: Of data, network and training.
        checkpoint: Folder in which the state of the training is kept.

    Returns:
        What the last training gave back, and the seconds of all (of this process, where an earlier one had begun).

    Raises:
        DivergenceError: If the loss was not finite for too long.
        KeyboardInterrupt: Ctrl-C; the state is kept.
    """
    net = network(task, method, budget, seed)
    pipeline = recipe(method.recipe, **{"solver": "euler", "model": net, **method.parts})
    if task.source is not None:
        pipeline = pipeline.replace(source=_fixed(task.source, budget, spawn_seed(seed, SOURCE_SET)))
    data: Any = _fixed(task.data, budget, spawn_seed(seed, TRAINING_SET))
    steps = max(1, budget.steps // (method.reflow + 1))
    fit: dict[str, Any] = {
        "steps": steps,
        "batch_size": budget.batch_size,
        "ema": budget.ema,
        "optimizer": partial(torch.optim.AdamW, lr=budget.lr, weight_decay=budget.weight_decay, fused=True),
        "progress": False,
        "checkpoint_every": max(SAVED_EVERY, steps // 20),
    }
    seconds, result = 0.0, None
    for stage in range(method.reflow + 1):
        if stage:
            data = _reflowed(pipeline, budget, spawn_seed(seed, PAIRS, stage))
        where = None if checkpoint is None else checkpoint / str(stage)
        result = _fitted(pipeline, data, seed=spawn_seed(seed, TRAINING, stage), checkpoint=where, **fit)
        pipeline, seconds = result.pipeline, seconds + result.seconds
    assert result is not None
    return result, seconds


def _fitted(pipeline: Pipeline, data: Any, **options: Any) -> FitResult:
    """`fit`, but for a Ctrl-C, which stops the suite, and without the message that half a training was given back."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit was interrupted")
        try:
            result = pipeline.fit(data, **options)
        except FitError as error:
            if error.__cause__ is not None:
                raise
            raise DivergenceError(str(error)) from error
    if result.stopped is not None:
        raise KeyboardInterrupt(result.stopped)
    return result


def network(task: Task, method: Method, budget: Budget, seed: int) -> Any:
    """The network of a method, of the task's event shape: the same weights whatever the method."""
    shape = registry.from_config("dataset", task.data)(1, make_generator(0)).shape[1:]
    size = {"shape": tuple(shape), "width": budget.width, "depth": budget.depth, "activation": "selu"}
    net = registry.build("model", "mlp", **size, seed=spawn_seed(seed, NETWORK))
    if not method.precondition:
        return net
    path = method.parts.get("path", registry.recipe(method.recipe)["path"])
    return Model(registry.build("model", "edm_precond", net=net, path=path), predicts=Prediction.DATA)


def _fixed(data: Mapping[str, Any], budget: Budget, seed: int) -> Any:
    """A set of the budget's size, or the data set itself where it draws without end."""
    drawn = registry.from_config("dataset", data)
    return drawn if budget.points is None else drawn(budget.points, make_generator(seed))


def _reflowed(pipeline: Pipeline, budget: Budget, seed: int) -> Pairs:
    """Source samples, and where the pipeline carries them."""
    x0 = pipeline.path.sample_source(whole_shape(pipeline, budget.pairs), generator=make_generator(seed))
    x1 = pipeline.sample(x0=x0, steps=budget.euler, chunk=10_000).x
    return Pairs(x0, x1, provenance=f"reflow: {budget.pairs} pairs, {budget.euler} Euler steps, seed {seed}")
