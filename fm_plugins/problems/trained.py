"""Networks as problems: trained on first use, with a fixed seed, and kept in a folder.

They are what solvers meet in practice: fields with a network's errors and kinks. Nothing is downloaded; the digits come
with scikit-learn. The folder is `FM_CACHE`, else `fm-core` in the user's cache; a key of everything that the weights
depend on is in the names, so an old network is not taken for a new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fm_core
from fm_core import Model, Pipeline, load, recipe
from fm_core.bench.pipeline_problem import PipelineProblem, in_float64
from fm_core.building import OptionError
from fm_core.errors import DataError
from fm_core.fit.checkpoint import digest
from fm_core.floor import draw
from fm_core.registry import build, from_config

__all__ = [
    "cache_folder",
    "digits",
    "labelled_digits",
    "learned",
    "learned_eight_gaussians",
    "learned_moons",
    "learned_moons_to_gaussians",
    "learned_scurve",
    "saved",
]

CLASSES = 10
POINTS_STEPS, DIGITS_STEPS = 2000, 500
DIGITS_BATCH = 64


def cache_folder() -> Path:
    """Where trained problems are kept."""
    given = os.environ.get("FM_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm-core"


def _kept(name: str, train: Callable[[], Pipeline], **settings: Any) -> Pipeline:
    """The trained pipeline, from its folder if it is there."""
    asked = json.dumps({**settings, "version": fm_core.__version__, "torch": torch.__version__}, sort_keys=True)
    folder = cache_folder() / "problems" / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        trained = train()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:  # a folder that is there is whole
            trained.save(Path(scratch) / "whole")
            if not folder.is_dir():
                shutil.move(Path(scratch) / "whole", folder)
    return load(folder)


def learned(
    data: str, source: str | None = None, method: str = "cfm", steps: int = POINTS_STEPS, seed: int = 0
) -> PipelineProblem:
    """An MLP that learned points in the plane.

    Args:
        data: Registry name of the data set.
        source: That of the source; N(0, I) for None.
        method: Recipe by which it is trained.
        steps: Training steps of batch 256.
        seed: Of the weights and of the training.
    """
    law = build("dataset", data)
    pipe = recipe(method, model=build("model", "mlp", shape=2, seed=seed), source=source)

    def train() -> Pipeline:
        result = pipe.fit(law, steps=steps, batch_size=256, seed=seed, lr=5e-3, lr_schedule="cosine", progress=False)
        return result.pipeline

    settings = {"data": data, "source": source, "method": method, "steps": steps, "seed": seed}
    return PipelineProblem(
        title=f"{method} on {'' if source is None else f'{source} → '}{data}",
        pipeline=partial(_kept, f"{data}-{method}", train, **settings),
        event_shape=(2,),
        law=partial(_unlabelled, law),
        fine=in_float64,
    )


learned_eight_gaussians = partial(learned, data="eight_gaussians")
learned_moons = partial(learned, data="moons")
learned_scurve = partial(learned, data="scurve")
learned_moons_to_gaussians = partial(learned, data="wide_eight_gaussians", source="standardised_moons")


def digits(labels: bool = False, method: str = "cfm", steps: int = DIGITS_STEPS, seed: int = 0) -> PipelineProblem:
    """A U-Net that learned the 8 × 8 digits.

    Args:
        labels: Whether it learned them under their labels.
        method: Recipe by which it is trained.
        steps: Training steps of batch 64.
        seed: Of the weights and of the training.
    """
    data = build("dataset", "digits", split="train")
    net = build("model", "unet_tiny", shape=[1, 8, 8], seed=seed, **({"classes": CLASSES} if labels else {}))
    kind = recipe(method, model=net).model.predicts
    pipe = recipe(method, model=Model(net, predicts=kind, null=CLASSES if labels else None))

    def train() -> Pipeline:
        given = (data.x1, data.labels) if labels else data.x1
        result = pipe.fit(
            given,
            steps=steps,
            batch_size=DIGITS_BATCH,
            seed=seed,
            lr=2e-3,
            lr_schedule="cosine",
            cond_dropout=0.1 if labels else 0.0,
            progress=False,
        )
        return result.pipeline

    name = "labelled-digits" if labels else "digits"
    settings = {"labels": labels, "method": method, "steps": steps, "seed": seed}
    return PipelineProblem(
        title=f"{method} on {'labelled ' if labels else ''}digits",
        pipeline=partial(_kept, f"{name}-{method}", train, **settings),
        event_shape=(1, 8, 8),
        conditions=partial(_uniform, CLASSES) if labels else None,
        law=partial(_rows, data.x1),
        fine=in_float64,
        agreed=1e-3,  # it knows time by waves of t·1000, which finer steps go on to resolve, for minutes
    )


labelled_digits = partial(digits, labels=True)


def saved(
    folder: str,
    shape: Any = None,
    classes: int | None = None,
    data: str | Mapping[str, Any] | None = None,
) -> PipelineProblem:
    """A saved pipeline of one's own.

    Args:
        folder: Where `pipeline.save` wrote it.
        shape: Shape of one state; by default what it was trained on.
        classes: Number of labels 0, 1, …, drawn equally often as conditions; by default the label that means none, if
            that is how the network says it.
        data: Data set by name, whose law samples shall have; by default that of the pipeline's own fine solutions.
    """
    pipeline = load(folder)
    trained = getattr(pipeline.model, "trained", None)
    shape = shape or (trained.event_shape if trained is not None else None)
    if shape is None:
        raise DataError(f"the pipeline in {folder} does not remember the shape of a sample: give shape=[…]")
    null = getattr(pipeline.model, "null", None)
    count = classes or (null if isinstance(null, int) and not isinstance(null, bool) and null > 0 else None)
    if data is not None and not isinstance(data, str | Mapping):
        raise OptionError(f"data is a data set by its name; got {data!r}")
    law = None if data is None else from_config("dataset", data)
    return PipelineProblem(
        title=f"the pipeline in {folder}",
        pipeline=pipeline,
        event_shape=tuple(shape),
        conditions=partial(_uniform, count) if count else None,
        law=None if law is None else partial(_unlabelled, law),
        revision=digest(folder),
    )


def _uniform(count: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (n,), generator=generator)


def _unlabelled(law: Any, n: int, generator: torch.Generator) -> Tensor:
    return draw(law, n, generator)


def _rows(x1: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return x1[torch.randint(len(x1), (n,), generator=generator)]
