"""What diffusion's samplers and guidances cost beside the network.

    .venv/bin/pytest benchmarks/bench_diffusion.py -s

Aims on a 3 × 64 SELU network in 2-D, 100 steps, one thread: DDIM and DDPM at most 1.0 of a loop of the same method
written by hand at B = 1, also of one whose coefficients were computed beforehand. A guidance stands beside what it asks
for: the network on twice the batch, and a forward and a backward pass of the classifier.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

import fm_core as fm

STEPS, TRAINED = 100, 1000
ROUNDS = {1: 150, 256: 60}
Ratios = Callable[..., dict[str, float]]


def _alphas_bar() -> Tensor:
    """ᾱ at every index of the linear betas, and 1 behind the last step."""
    bar = (1 - torch.linspace(1e-4, 0.02, TRAINED, dtype=torch.float64)).cumprod(0)
    return torch.cat([bar.new_ones(1), bar]).float()


def _by_hand(net: nn.Module, x: Tensor, eta: float, generator: torch.Generator) -> Tensor:
    """DDIM as its paper writes it, with a noise network asked at k = 999, 989, …: what one writes without a library."""
    bar = _alphas_bar()
    indices = torch.arange(TRAINED - 1, -1, -TRAINED // STEPS)
    times = 1 - (indices + 1) / TRAINED
    with torch.no_grad():
        for i in range(STEPS):
            k, previous = int(indices[i]), int(indices[i]) - TRAINED // STEPS
            a, b = bar[k + 1], bar[max(previous, -1) + 1]
            eps = net(x, times[i].expand(len(x)))
            x1 = (x - (1 - a).sqrt() * eps) / a.sqrt()
            sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
            x = b.sqrt() * x1 + (1 - b - sigma**2).sqrt() * eps
            if eta:
                x = x + sigma * torch.randn(x.shape, generator=generator)
    return x


def _tuned(
    net: nn.Module, x: Tensor, times: Tensor, rows: list[tuple[float, float, float]], generator: torch.Generator
) -> Tensor:
    """The same method as `x ← a·x + b·ε + c·z` with numbers for a, b and c."""
    with torch.no_grad():
        for t, (a, b, c) in zip(times, rows):
            x = torch.add(x * a, net(x, t.expand(len(x))), alpha=b)
            if c:
                x = x.add_(torch.randn(x.shape, generator=generator), alpha=c)
    return x


def _rows(eta: float) -> list[tuple[float, float, float]]:
    """What `_tuned` multiplies by."""
    bar, stride = _alphas_bar().double(), TRAINED // STEPS
    rows = []
    for k in range(TRAINED - 1, -1, -stride):
        a, b = float(bar[k + 1]), float(bar[max(k - stride, -1) + 1])
        sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        rows.append(((b / a) ** 0.5, (1 - b - sigma**2) ** 0.5 - (b * (1 - a) / a) ** 0.5, sigma))
    return rows


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def bench_step(benchmark: BenchmarkFixture, interleaved: Ratios, one_thread: None, solver: str, batch: int) -> None:
    """`pipe.sample` over the hand-written loop of the same method."""
    net = fm.build("model", "mlp", shape=2, seed=0)
    pipe = fm.compose(path="ddpm", model=fm.Model(net, predicts="noise"), solver=solver)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(batch, 2, generator=generator)
    eta = 0.0 if solver == "ddim" else 1.0
    rows = _rows(eta)
    times = torch.tensor([1 - (k + 1) / TRAINED for k in range(TRAINED - 1, -1, -TRAINED // STEPS)])
    if not eta:
        torch.testing.assert_close(
            _tuned(net, x0, times, rows, generator), _by_hand(net, x0, eta, generator), rtol=1e-3, atol=1e-3
        )
    ratios = interleaved(
        {
            "by hand": lambda: _by_hand(net, torch.randn(batch, 2, generator=generator), eta, generator),
            "tuned": lambda: _tuned(net, torch.randn(batch, 2, generator=generator), times, rows, generator),
            "pipe.sample": lambda: pipe.sample((batch, 2), nfe=STEPS, seed=0),
        },
        "by hand",
        ROUNDS[batch],
    )
    benchmark.extra_info.update(ratios, nfe=STEPS)
    print(f"\n{solver}, B = {batch}: {ratios}")
    benchmark(lambda: pipe.sample((batch, 2), nfe=STEPS, seed=0))


@pytest.mark.parametrize("batch", [1, 256])
def bench_guidance(benchmark: BenchmarkFixture, interleaved: Ratios, one_thread: None, batch: int) -> None:
    """Guided sampling over unguided, beside what the network itself costs on twice the batch, and the classifier."""
    net = fm.build("model", "mlp", shape=2, classes=4, seed=0)
    judge = fm.build("model", "noisy_classifier", shape=2, classes=4, width=16, seed=0).eval()
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity", null=4), solver="euler")
    cfg = pipe.replace(guidance={"name": "cfg", "scale": 3.0})
    classifier = pipe.replace(guidance=fm.build("guidance", "classifier", classifier=judge, scale=2.0))
    labels, twice = torch.arange(batch) % 4, torch.arange(2 * batch) % 4

    def backward() -> None:
        x, t = torch.randn(batch, 2, requires_grad=True), torch.full((batch,), 0.5)
        for _ in range(STEPS):
            torch.autograd.grad(judge(x, t).log_softmax(1).gather(1, labels[:, None]).sum(), x)

    ratios = interleaved(
        {
            "unguided": lambda: pipe.sample((batch, 2), cond=labels, nfe=STEPS, seed=0),
            "unguided, 2B": lambda: pipe.sample((2 * batch, 2), cond=twice, nfe=STEPS, seed=0),
            "cfg": lambda: cfg.sample((batch, 2), cond=labels, nfe=STEPS, seed=0),
            "classifier": lambda: classifier.sample((batch, 2), cond=labels, nfe=STEPS, seed=0),
            "the classifier alone": backward,
        },
        "unguided",
        ROUNDS[batch] // 3,
    )
    benchmark.extra_info.update(ratios, nfe=STEPS)
    print(f"\nB = {batch}: {ratios}")
    benchmark(lambda: cfg.sample((batch, 2), cond=labels, nfe=STEPS, seed=0))
