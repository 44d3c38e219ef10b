"""How long `fm.calibrate` takes: seconds for an MLP, minutes for a U-Net.

    python -m pytest benchmarks/bench_calibrate.py --benchmark-only -s

The networks are trained before the clock starts, shortly: what a fit costs is the network's price for a call, the
number of calls in the plan and of trajectories in the pilot, hardly what the network has learned. Noted beside it is
`gain`, the median error of `auto` over that of the fitted table, on noise that it was not fitted to.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import fm_core as fm

PILOT = 128


@functools.cache
def _mlp() -> fm.Pipeline:
    net = fm.build("model", "mlp", shape=2, seed=0)
    pipeline = fm.recipe("cfm", model=net, solver="auto")
    return pipeline.fit(fm.build("dataset", "moons"), steps=500, batch_size=256, seed=0, progress=False).pipeline


@functools.cache
def _unet() -> fm.Pipeline:
    digits = fm.build("dataset", "digits")
    net = fm.build("model", "unet_tiny", shape=[1, 8, 8], seed=0)
    pipeline = fm.recipe("ddpm", model=fm.Model(net, predicts="noise"), solver="auto")
    return pipeline.fit(digits.x1, steps=100, batch_size=64, seed=0, progress=False).pipeline


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("nfe", [6, 10])
def bench_calibrating_an_mlp(benchmark: Any, nfe: int) -> None:
    _timed(benchmark, _mlp(), (PILOT, 2), nfe)


@pytest.mark.parametrize("nfe", [5, 10])
def bench_calibrating_a_unet(benchmark: Any, nfe: int) -> None:
    _timed(benchmark, _unet(), (PILOT, 1, 8, 8), nfe)


def _timed(benchmark: Any, pipeline: fm.Pipeline, shape: tuple[int, ...], nfe: int) -> None:
    fitted = benchmark.pedantic(fm.calibrate, (pipeline, shape), {"nfe": nfe, "seed": 0}, rounds=1, iterations=1)
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    truth = pipeline.replace(solver="rk4").sample(x0=x0, steps=250).x
    before, after = (_median(each.sample(x0=x0, nfe=nfe).x, truth) for each in (pipeline, fitted))
    benchmark.extra_info |= {"gain": round(before / after, 2), "error_before": before, "error_after": after}


def _median(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float((x - truth).flatten(1).square().mean(1).sqrt().median())
