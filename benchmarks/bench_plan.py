"""What sampling costs beside the network: `pipe.sample` over a bare Euler loop, and the solvers over each other.

    make bench, or .venv/bin/pytest benchmarks/bench_plan.py -s

Aims on a 3 × 64 SELU network in 2-D, 100 steps, one thread: with Euler at most 0.95 of the bare loop at B = 1 and 1.0
at B = 256, with any deterministic table at most 1.15 at B = 1. Large states: a sum of k of them at most 1.3 times what
reading each operand once and writing the sum once costs, by the bandwidth of `torch.add`. That is kept by sums of two,
and by all sums of a compiled run; eager sums of three to nine miss it, at 1.4 to 1.7. `nfe` stands beside every ratio;
the ratios of solvers are per network call. Times are the processor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import fm_core as fm
from fm_core.bench.contenders import contenders, missing
from fm_core.blocks import blocks
from fm_core.combining import combine
from fm_core.graphs import compiled

STEPS = 100
ROUNDS = {1: 150, 256: 60}


def _bare_euler(net: torch.nn.Module, x: Tensor, ts: Tensor) -> Tensor:
    with torch.no_grad():
        for i in range(STEPS):
            x = x + (ts[i + 1] - ts[i]) * net(x, ts[i].expand(len(x)))
    return x


def _pipeline(solver: str) -> fm.Pipeline:
    net = fm.build("model", "mlp", shape=2, seed=0)
    return fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver=solver)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.quick), 256])
def bench_euler(
    benchmark: BenchmarkFixture, interleaved: Callable[..., dict[str, float]], one_thread: None, batch: int
) -> None:
    """`pipe.sample` with Euler over the bare loop, from the same source samples and from a seed."""
    pipe = _pipeline("euler")
    net = pipe.model.net
    x0, ts = torch.randn(batch, 2, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, STEPS + 1)
    with torch.no_grad():
        torch.testing.assert_close(pipe.sample(x0=x0, steps=STEPS).x, _bare_euler(net, x0, ts), rtol=1e-4, atol=1e-5)
    ratios = interleaved(
        {
            "bare": lambda: _bare_euler(net, torch.randn(batch, 2), ts),
            "from x0": lambda: pipe.sample(x0=x0, steps=STEPS, seed=0),
            "from a seed": lambda: pipe.sample((batch, 2), steps=STEPS, seed=0),
        },
        "bare",
        ROUNDS[batch],
        clock=time.thread_time,
    )
    benchmark.extra_info.update(ratios, nfe=STEPS)
    print(f"\nB = {batch}: {ratios}")
    benchmark(lambda: pipe.sample((batch, 2), steps=STEPS, seed=0))


@pytest.mark.parametrize("batch", [1, 256])
def bench_solvers(
    benchmark: BenchmarkFixture, interleaved: Callable[..., dict[str, float]], one_thread: None, batch: int
) -> None:
    """Every Runge–Kutta table at the same number of network calls, over Euler."""
    pipes = {solver: _pipeline(solver) for solver in ("euler", "midpoint", "heun", "rk4")}
    ratios = interleaved(
        {solver: lambda pipe=pipe: pipe.sample((batch, 2), nfe=STEPS, seed=0) for solver, pipe in pipes.items()},
        "euler",
        ROUNDS[batch],
        clock=time.thread_time,
    )
    benchmark.extra_info.update(ratios, nfe=STEPS)
    print(f"\nB = {batch}, {STEPS} calls each: {ratios}")
    benchmark(lambda: pipes["rk4"].sample((batch, 2), nfe=STEPS, seed=0))


TABLES = (
    *("euler", "heun", "rk4", "ddim", "edm", "adams_bashforth(order=3)", "adams_pc", "adams_pc(order=5)", "auto"),
    *("dpm_solver(order=2)", "dpm_solver_multistep", "dpm_solver_pp", "dpm_solver_pp(order=3)", "deis", "ipndm"),
    *("pndm", "unipc", "unipc(order=3)"),
)
"""Every deterministic family."""

PEERS = ("diffusers_flow_euler", "diffusers_dpmpp(order=2)", "diffusers_unipc(order=3)", "azula_ddim")
"""Other libraries' solvers in the same race, where they are installed."""


@pytest.mark.parametrize("batch", [1, 256])
def bench_tables(
    benchmark: BenchmarkFixture, interleaved: Callable[..., dict[str, float]], one_thread: None, batch: int
) -> None:
    """Deterministic tables, and other libraries' solvers, at 100 network calls, over the bare Euler loop of 100."""
    pipes = {solver: _pipeline(solver) for solver in TABLES}
    peers = {one.name: one.on(pipes["euler"]) for one in contenders(PEERS) if not missing(one)}
    x0 = torch.randn(batch, 2, generator=torch.Generator().manual_seed(0))
    net, ts = pipes["euler"].model.net, torch.linspace(0, 1, STEPS + 1)
    made = {pipe.sample((batch, 2), nfe=STEPS, seed=0).nfe for pipe in pipes.values()}
    assert made <= {STEPS - 1, STEPS}, "a solver of two stages asks but once in a last step to the data"
    assert {pipe.sample(x0=x0, nfe=STEPS, seed=0).nfe for pipe in peers.values()} <= {STEPS}
    ratios = interleaved(
        {"bare": lambda: _bare_euler(net, torch.randn(batch, 2), ts)}
        | {title: lambda pipe=pipe: pipe.sample((batch, 2), nfe=STEPS, seed=0) for title, pipe in pipes.items()}
        | {title: lambda pipe=pipe: pipe.sample(x0=x0, nfe=STEPS, seed=0) for title, pipe in peers.items()},
        "bare",
        ROUNDS[batch],
        clock=time.thread_time,
    )
    benchmark.extra_info.update(ratios, nfe=STEPS)
    print(f"\nB = {batch}, {STEPS} calls each: {ratios}")
    benchmark(lambda: pipes["unipc(order=3)"].sample((batch, 2), nfe=STEPS, seed=0))


def _compiled_sum(operands: int) -> Callable[[Tensor, list[Tensor]], Tensor]:
    """The last row of a table, a sum of so many states, as `compile=True` compiles it."""
    halved = [fm.Row((i + 1) / operands, ((i, 0.5),), ()) for i in range(operands - 1)]
    last = fm.Row(1.0, tuple((i, 0.5) for i in range(operands)), ())
    *_, block = blocks(fm.Plan("velocity", 0.0, [*halved, last]), 1, watched=True)
    graph = compiled(block.text, captured=False, differentiated=False)
    return lambda weights, terms: graph(None, None, (), None, weights, (), *terms)[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("operands", [2, 3, 5, 9])
def bench_large_states(
    benchmark: BenchmarkFixture, interleaved: Callable[..., dict[str, float]], one_thread: None, operands: int
) -> None:
    """A weighted sum of states of 2²² floats over reading each operand once and writing the sum once."""
    generator = torch.Generator().manual_seed(0)
    terms = list(torch.randn(operands, 64, 2**16, generator=generator))
    other, out = torch.randn(64, 2**16, generator=generator), torch.empty(64, 2**16)
    first, any_ = ([weight] + [0.1] * (operands - 1) for weight in (1.0, 0.7))
    fused, weights = _compiled_sum(operands), torch.tensor(any_)
    torch.testing.assert_close(fused(weights, terms), combine(any_, terms))
    ratios = interleaved(
        {
            "torch.add": lambda: torch.add(terms[0], other, out=out),
            "first weight 1": lambda: combine(first, terms),
            "any weights": lambda: combine(any_, terms),
            "compiled": lambda: fused(weights, terms),
        },
        "torch.add",
        40,
        clock=time.thread_time,
    )
    once = {name: round(ratio * 3 / (operands + 1), 3) for name, ratio in ratios.items() if name != "torch.add"}
    benchmark.extra_info.update(once)
    print(f"\n{operands} operands of 2^22 floats, over reading each once: {once}")
    benchmark(lambda: combine(any_, terms))
