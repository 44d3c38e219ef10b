"""Training: `fit` takes a composed pipeline and data of any kind, and gives the pipeline back with a trained network.

All randomness comes from one seed, in streams: the order of the data, source samples and their coupling, times and the
path's own noise. What cannot take a generator (dropout, a DataLoader's shuffling) finds torch's global generator seeded
for the training, and given back as it was afterwards. So equal seeds give equal weights, bit for bit on one CPU,
whatever the global seed is and whether batches are prepared ahead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve

from fm_core.fit.checks import batch_size_of, fingerprint, net_of, provenance_of
from fm_core.fit.data import open_data
from fm_core.fit.dropout import require_null
from fm_core.fit.global_rng import own_randomness
from fm_core.fit.optim import OptimizerFactory, ScheduleFactory
from fm_core.fit.result import FitResult
from fm_core.fit.resume import read_state
from fm_core.fit.run import Run
from fm_core.fit.settings import Settings
from fm_core.randomness import fresh_seed, spawn_seed

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["FitResult", "fit"]

NETWORK = 3
"""Stream of the seed that torch's global generator is given for the time of the training."""


def fit(
    pipeline: Pipeline,
    data: Any,
    *,
    steps: int,
    batch_size: int | None = None,
    seed: int | None = None,
    lr: float = 1e-3,
    optimizer: OptimizerFactory | None = None,
    lr_schedule: str | ScheduleFactory = "constant",
    warmup: int = 0,
    ema: float | None = 0.999,
    clip: float | None = None,
    cond_dropout: float = 0.0,
    validation: Any = None,
    validate_every: int | None = None,
    autocast: torch.dtype | None = None,
    prefetch: int = 0,
    max_bad: int = 10,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1000,
) -> FitResult:
    """Trains a copy of the pipeline's network; the pipeline and its network stay as they are.

    A step whose loss or gradient is not finite is skipped and counted before it reaches optimizer, average or saved
    state. Ctrl-C ends the training with a warning and gives what was reached.

    Args:
        pipeline: Has an objective, and a `Model` of a module.
        data: A tensor x1 `(N, *D)`, a pair `(x1, cond)`, a Dataset, a DataLoader, a callable `(n, generator) -> x1 |
            (x1, cond)`, or `Pairs(x0, x1)`. Conditions are pytrees with the batch first. Batches are moved to the
            network's device and dtype.
        steps: Training steps, ≥ 1.
        batch_size: Samples in a step; None is 256, or the batch size of a DataLoader.
        seed: Repeats a training; fresh for None, or that of the checkpoint.
        lr: Learning rate of the default optimizer, AdamW.
        optimizer: Another one, `(parameters) -> Optimizer`.
        lr_schedule: "constant"; "cosine", down to 0 at the last step; or `(optimizer, steps) -> LRScheduler`.
        warmup: Steps over which the learning rate first rises linearly.
        ema: Decay of the average of the weights (it warms up), None for no average.
        clip: Largest norm of the gradient; larger ones are scaled down to it.
        cond_dropout: Probability with which a sample is trained under the model's `null` condition in place of its own,
            as classifier-free guidance needs it.
        validation: Data of any of the kinds above, whose loss is measured with the averaged weights on draws that never
            change.
        validate_every: Steps between two measurements; None measures ten times.
        autocast: Lower precision in which the network runs, torch.bfloat16 or torch.float16 (then with a scaled loss).
        prefetch: Batches that a background thread prepares ahead: hides an expensive coupling behind the step.
        max_bad: Skipped steps in a row after which training stops.
        progress: Whether to show a bar; None shows it on a terminal, outside CI and tests.
        checkpoint: Directory in which the state of the training is kept, and from which it goes on if one is there: to
            the bit, for data other than a DataLoader, whose place in its epoch is lost.
        checkpoint_every: Steps between two writings of it; it is also written at the end.

    Returns:
        The trained pipeline, with averaged and with raw weights, and the curves.

    Raises:
        DataError, ShapeError, BudgetError, CompatError: Before the first step, for what cannot be trained.
        SavedFileError: For a checkpoint of another training.
        FitError: For a training that had to stop; its `result` has what was reached.
    """
    net = net_of(pipeline)
    require_null(pipeline.model, cond_dropout)
    rows = open_data(data)
    provenance = provenance_of(pipeline, data)
    where = None if checkpoint is None else Path(checkpoint)
    settings = Settings(
        steps=steps,
        batch_size=batch_size_of(batch_size, rows),
        seed=fresh_seed() if seed is None else seed,
        lr=lr,
        optimizer=optimizer,
        lr_schedule=lr_schedule,
        warmup=warmup,
        ema=ema,
        clip=clip,
        cond_dropout=cond_dropout,
        validate_every=validate_every,
        autocast=autocast,
        prefetch=prefetch,
        max_bad=max_bad,
        progress=progress,
        checkpoint=where,
        checkpoint_every=checkpoint_every,
    )
    saved = None
    if where is not None:
        expected = fingerprint(pipeline, rows, settings)
        if seed is None:
            del expected["seed"]
        saved = read_state(where, expected, pipeline.placement[0])
        settings = settings if saved is None else evolve(settings, seed=saved["seed"])
    with own_randomness(spawn_seed(settings.seed, NETWORK), pipeline.placement[0]):
        return Run(pipeline, net, rows, provenance, validation, settings, saved).go()
