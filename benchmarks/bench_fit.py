"""A training step of `fit` beside hand-written loops, CFM and OT-CFM, and what its parts cost.

    python -m pytest benchmarks/bench_fit.py --benchmark-only -s

Ratios are medians over rounds in which all contestants run in turn on the same samples, so a busy machine slows all.
The hand-written loop is CFM as one writes it: random rows, fresh noise, squared error, `torch.optim.AdamW`; no average,
no guard, no seed. Its fused form has the same kernel as `fit`'s default.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.fit.ema import EMA
from fm_plugins.networks.mlp import MLP

ROUNDS, STEPS = 15, 40
SAMPLES = 10_000


def _by_hand(x1: Tensor, batch: int, *, fused: bool | None = None) -> float:
    net = MLP(2, seed=0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=fused)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(STEPS):
        data = x1[torch.randint(0, SAMPLES, (batch,), generator=generator)]
        noise, t = torch.randn(batch, 2, generator=generator), torch.rand(batch, generator=generator)
        x_t = t[:, None] * data + (1 - t[:, None]) * noise
        loss = (net(x_t, t) - (data - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def _by_fit(x1: Tensor, batch: int, coupling: str | None = None, **options: Any) -> float:
    model = fm.Model(MLP(2, seed=0), predicts="velocity")
    pipeline = fm.compose(path="linear", objective="cfm", coupling=coupling, model=model)
    return float(pipeline.fit(x1, steps=STEPS, batch_size=batch, seed=0, progress=False, **options).seconds)


def _ratios(contestants: dict[str, Callable[[], float]], base: str) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(ROUNDS + 1):
        for name, run in contestants.items():
            seconds = run()
            if turn:  # the first is a warm-up
                times[name].append(seconds)
    own = {name: statistics.median(a / b for a, b in zip(times[name], times[base])) for name in contestants}
    return {f"{name} / {base}": round(ratio, 3) for name, ratio in own.items() if name != base}


def _report(benchmark: Any, figures: dict[str, float]) -> None:
    benchmark.extra_info.update(figures)
    print("\n" + "\n".join(f"  {name}: {value}" for name, value in figures.items()))


@pytest.fixture
def x1() -> Tensor:
    return torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [256, 512])
def bench_cfm_step(benchmark: Any, x1: Tensor, batch: int) -> None:
    """A step of `fit`, with average and guard, over both hand-written ones; and without average, clipped."""
    contestants: dict[str, Callable[[], float]] = {
        "by hand": lambda: _by_hand(x1, batch),
        "by hand, fused": lambda: _by_hand(x1, batch, fused=True),
        "fit": lambda: _by_fit(x1, batch),
        "fit, no average": lambda: _by_fit(x1, batch, ema=None),
        "fit, clipped": lambda: _by_fit(x1, batch, clip=1.0),
    }
    figures = _ratios(contestants, "by hand")
    _report(
        benchmark,
        figures | {"fit / by hand, fused": round(figures["fit / by hand"] / figures["by hand, fused / by hand"], 3)},
    )
    benchmark(lambda: _by_fit(x1, batch))


@pytest.mark.parametrize("batch", [256, 512])
def bench_ot_cfm_step(benchmark: Any, x1: Tensor, batch: int) -> None:
    """A step of OT-CFM on N → N data, paired in place and two batches ahead, over the hand-written CFM step."""
    contestants: dict[str, Callable[[], float]] = {
        "by hand": lambda: _by_hand(x1, batch),
        "fit, minibatch_ot": lambda: _by_fit(x1, batch, "minibatch_ot"),
        "fit, minibatch_ot, prefetch=2": lambda: _by_fit(x1, batch, "minibatch_ot", prefetch=2),
    }
    _report(benchmark, _ratios(contestants, "by hand"))
    benchmark(lambda: _by_fit(x1, batch, "minibatch_ot"))


def bench_average(benchmark: Any) -> None:
    """An update of the average of the 3×64 network, over `AveragedModel`'s own with the fixed decay."""
    net = MLP(2, seed=0)
    ours, theirs = (
        EMA(net, 0.999),
        torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)),
    )

    def timed(update: Callable[[], None]) -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            update()
        return time.perf_counter() - began

    contestants: dict[str, Callable[[], float]] = {
        "AveragedModel": lambda: timed(lambda: theirs.update_parameters(net)),
        "EMA": lambda: timed(ours.update),
    }
    _report(benchmark, _ratios(contestants, "AveragedModel"))
    benchmark(ours.update)


def bench_data_set(benchmark: Any) -> None:
    """A step on the digits as a map-style data set over one on the same digits as tensors: what reading items costs."""
    digits = fm.build("dataset", "digits")
    rows = [digits[i] for i in range(len(digits))]
    tensors = torch.stack([x1 for x1, _ in rows]), torch.stack([label for _, label in rows])
    model = fm.Model(MLP((1, 8, 8), width=256, classes=10, seed=0), predicts="velocity")
    pipeline = fm.compose(path="linear", objective="cfm", model=model)

    def fitted(data: Any, **options: Any) -> Callable[[], float]:
        return lambda: float(pipeline.fit(data, steps=STEPS, batch_size=256, seed=0, **options).seconds)

    contestants = {
        "tensors": fitted(tensors),
        "data set": fitted(digits),
        "data set, prefetch=2": fitted(digits, prefetch=2),
    }
    _report(benchmark, _ratios(contestants, "tensors"))
    benchmark(fitted(tensors))
