"""Exact optimal-transport pairing: its own time, and a whole training step, beside plain scipy and TorchCFM.

    python -m pytest benchmarks/bench_coupling.py -o python_files='bench_*.py' -o python_functions='bench_*'
    --benchmark-only -s

Every figure is the median over rounds in which all contestants run in turn on the same samples, so that a busy machine
slows all of them. Ratios of training steps are over the hand-written CFM loop: independent pairs, the same network,
AdamW.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits, make_moons, make_s_curve
from torch import Tensor, nn

from fm_core.randomness import make_generator
from fm_plugins.ot_cfm.coupling import MinibatchOT

POOL = 16_384
ROUNDS = 40
DATA = ("N-N", "N-8gaussians", "moons-8gaussians", "N-moons", "N-scurve", "N-digits")


def _ring(rng: np.random.Generator, radius: float, std: float) -> np.ndarray:
    angle = rng.integers(0, 8, POOL) * (math.pi / 4)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1) + std * rng.standard_normal((POOL, 2))


def _pools(name: str) -> tuple[Tensor, Tensor]:
    """Many samples of source and data, float32, as the [SF]²M runner defines them (moons-8gaussians: its hard pair)."""
    rng = np.random.default_rng(0)
    source, target = name.split("-")
    match target:
        case "N":
            x1 = rng.standard_normal((POOL, 2))
        case "8gaussians":
            x1 = _ring(rng, 12, 1.5) if source == "moons" else _ring(rng, 5, math.sqrt(0.1))
        case "moons":
            x1 = make_moons(POOL, noise=0.05, random_state=0)[0] * 2 - 1
        case "scurve":
            x1 = make_s_curve(POOL, noise=0.05, random_state=0)[0][:, [0, 2]] * 1.5
        case _:
            images = load_digits().data
            x1 = images[rng.integers(0, len(images), POOL)] / 8 - 1
    x0 = rng.standard_normal(x1.shape)
    if source == "moons":
        x0 = make_moons(POOL, noise=0.1, random_state=1)[0]
        x0 = (x0 - x0.mean()) / x0.std() * 7
    return torch.as_tensor(x0, dtype=torch.float32), torch.as_tensor(x1, dtype=torch.float32)


def _net(d: int) -> nn.Sequential:
    widths = (d + 1, 64, 64, 64)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.SELU())]
    return nn.Sequential(*layers, nn.Linear(64, d))


def _medians(contestants: dict[str, Callable[[int], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each contestant, run in turn; the first rounds only warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for k in range(rounds + 5):
        for name, run in contestants.items():
            start = time.perf_counter()
            run(k)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[5:]) for name, values in seconds.items()}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _peer() -> Any:
    """TorchCFM's exact matcher, or None with a note: the other ratios stand without it."""
    if importlib.util.find_spec("torchcfm") is None or importlib.util.find_spec("ot") is None:
        print("\n  torchcfm or POT is not installed: no TorchCFM column")
        return None
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

    return ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)


def _steps(name: str, batch: int) -> dict[str, Callable[[int], None]]:
    """One training step of the hand-written loop, of the same with our pairing, and of TorchCFM's loop."""
    pool0, pool1 = _pools(name)
    coupling, generator, peer = MinibatchOT(), make_generator(0), _peer()

    def draw(k: int) -> tuple[Tensor, Tensor]:
        at = torch.randint(POOL, (batch,), generator=generator)
        x1 = pool1[at]
        if name.startswith("N-"):
            return torch.randn(x1.shape, generator=generator), x1
        return pool0[torch.randint(POOL, (batch,), generator=generator)], x1

    def learner() -> Callable[[Tensor, Tensor, Tensor], None]:
        net = _net(pool1.shape[1])
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3)

        def learn(x_t: Tensor, t: Tensor, velocity: Tensor) -> None:
            loss = (net(torch.cat([x_t, t[:, None]], 1)) - velocity).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return learn

    by_hand, ours, theirs = learner(), learner(), learner()

    def hand(k: int) -> None:
        x0, x1 = draw(k)
        t = torch.rand(batch, generator=generator)
        by_hand(torch.lerp(x0, x1, t[:, None]), t, x1 - x0)

    def paired(k: int) -> None:
        x0, x1 = draw(k)
        i, j = coupling.pair(x0, x1, generator=generator)
        x0, x1 = x0[i], x1[j]
        t = torch.rand(batch, generator=generator)
        ours(torch.lerp(x0, x1, t[:, None]), t, x1 - x0)

    def torchcfm(k: int) -> None:
        x0, x1 = draw(k)
        t, x_t, velocity = peer.sample_location_and_conditional_flow(x0, x1)
        theirs(x_t, t, velocity)

    return {"by hand": hand, "fm_core": paired} | ({} if peer is None else {"torchcfm": torchcfm})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [256, 512])
@pytest.mark.parametrize("name", DATA)
def bench_training_step(benchmark: Any, name: str, batch: int, threads: int) -> None:
    """A training step with exact pairs, over the hand-written step without, and over TorchCFM's."""
    with _threads(threads):
        steps = _steps(name, batch)
        medians = _medians(steps, ROUNDS if batch < 512 else ROUNDS // 2)
        benchmark.pedantic(steps["fm_core"], args=(0,), rounds=3)
    ratios = {f"{who} / by hand": medians[who] / medians["by hand"] for who in medians if who != "by hand"}
    if "torchcfm" in medians:
        ratios["fm_core / torchcfm"] = medians["fm_core"] / medians["torchcfm"]
    benchmark.extra_info.update(ratios | {"milliseconds by hand": 1e3 * medians["by hand"]})
    print(f"\n  step {name:17s} B={batch} threads={threads} {_line(ratios)}")


@pytest.mark.parametrize("batch", [64, 256, 512, 1024])
@pytest.mark.parametrize("name", DATA)
def bench_pairing(benchmark: Any, name: str, batch: int) -> None:
    """The pairing alone, over plain scipy and over POT's network simplex (TorchCFM's solver), on the same samples."""
    pool0, pool1 = _pools(name)
    coupling, generator = MinibatchOT(), make_generator(0)
    batches = [torch.randint(POOL, (2, batch), generator=generator) for _ in range(8)]

    def cost(k: int) -> np.ndarray:
        i, j = batches[k % 8]
        return torch.cdist(pool0[i], pool1[j]).square().double().numpy()

    def ours(k: int) -> None:
        i, j = batches[k % 8]
        coupling.pair(pool0[i], pool1[j], generator=generator)

    contestants: dict[str, Callable[[int], Any]] = {
        "fm_core": ours,
        "scipy": lambda k: linear_sum_assignment(cost(k)),
    }
    if importlib.util.find_spec("ot") is not None:
        import ot

        weights = np.full(batch, 1 / batch)
        contestants["emd"] = lambda k: ot.emd(weights, weights, cost(k))
    with _threads(1):
        medians = _medians(contestants, 8 if batch > 512 else 16)
        benchmark.pedantic(ours, args=(0,), rounds=3)
    ratios = {f"fm_core / {who}": medians["fm_core"] / medians[who] for who in medians if who != "fm_core"}
    benchmark.extra_info.update(ratios)
    times = "  ".join(f"{who} {1e3 * seconds:.2f} ms" for who, seconds in medians.items())
    print(f"\n  pair {name:17s} B={batch} {_line(ratios)}   ({times})")


def _line(ratios: dict[str, float]) -> str:
    return "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
