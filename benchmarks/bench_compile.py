"""What compiling blocks of steps gains: `pipe.sample(…, compile=True)` over a bare eager Euler loop.

    fm bench micro --only bench_compile.py, or .venv/bin/pytest benchmarks/bench_compile.py -s

Aim on a 3 × 64 SELU network in 2-D, 100 network calls, one thread: at most 0.6 of the bare loop at B = 1, for every
table. The time that the first run takes to compile stands beside the ratio, with the number of graphs; `compile_cpu` is
the processor's time, which a busy machine does not stretch. Inductor keeps what it compiled on disk, so a second
process finds most of it: empty `TORCHINDUCTOR_CACHE_DIR` to see the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch._dynamo.utils import counters

import fm_core as fm

CALLS = 100
TABLES: dict[str, str | dict[str, object]] = {
    "euler": "euler",
    "heun": "heun",
    "adams_pc": "adams_pc",
    "unipc of order 3": {"name": "unipc", "order": 3},
}


def _bare_euler(net: torch.nn.Module, x: Tensor, ts: Tensor) -> Tensor:
    with torch.no_grad():
        for i in range(CALLS):
            x = x + (ts[i + 1] - ts[i]) * net(x, ts[i].expand(len(x)))
    return x


def _cpu() -> float:
    return sum(os.times()[:4])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("title", TABLES)
@pytest.mark.parametrize("batch", [1, 256])
def bench_compiled(
    benchmark: BenchmarkFixture, interleaved: Callable[..., dict[str, float]], one_thread: None, batch: int, title: str
) -> None:
    """Compiled and eager runs of a table at 100 calls, over the bare loop of 100."""
    net = fm.build("model", "mlp", shape=2, seed=0)
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver=TABLES[title])
    ts = torch.linspace(0, 1, CALLS + 1)
    before = counters["stats"]["unique_graphs"]
    began, cpu = time.perf_counter(), _cpu()
    compiled = pipe.sample((batch, 2), nfe=CALLS, seed=0, compile=True)
    cost = {"compile_s": round(time.perf_counter() - began, 1), "compile_cpu": round(_cpu() - cpu, 1)}
    cost["graphs"] = counters["stats"]["unique_graphs"] - before
    torch.testing.assert_close(compiled.x, pipe.sample((batch, 2), nfe=CALLS, seed=0).x, rtol=1e-4, atol=1e-5)
    assert compiled.nfe == CALLS
    ratios = interleaved(
        {
            "bare": lambda: _bare_euler(net, torch.randn(batch, 2), ts),
            "eager": lambda: pipe.sample((batch, 2), nfe=CALLS, seed=0),
            "compiled": lambda: pipe.sample((batch, 2), nfe=CALLS, seed=0, compile=True),
        },
        "bare",
        150 if batch == 1 else 60,
        clock=time.thread_time,
    )
    benchmark.extra_info.update(ratios, nfe=CALLS, **cost)
    print(f"\n{title}, B = {batch}, {CALLS} calls: {ratios}, {cost}")
    benchmark(lambda: pipe.sample((batch, 2), nfe=CALLS, seed=0, compile=True))
