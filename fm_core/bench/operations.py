"""Operations that are raced against bare loops: what each does, what it is compared with, and the figures of it.

An operation and the *bare loop* that does the same by hand, same network, same samples, run in turn, round after round,
so that a busy machine slows both. A rate is that of the median round, and `over_bare` is the median over the rounds of
the ratio of times: 1 is free, 1.1 costs a tenth.

    sampling    `sample`, with a solver               over Euler's loop of as many network calls
    training    `fit`, with a coupling                over the hand-written loop of CFM on independent pairs
    matching    that loop with another's matcher      over the same
    pairing     a coupling alone                      over scipy's assignment of the matrix of squared distances
    startup     a fresh process that runs a program   over one that does nothing
    memory      the peak of a process that samples    over that of one that runs Euler's loop
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from attrs import evolve, frozen
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fm_core import registry
from fm_core.bench.running import NotHere
from fm_core.errors import PluginError, UnknownNameError
from fm_core.field import Model
from fm_core.pipeline import Pipeline, compose
from fm_core.protocols import declared
from fm_core.randomness import make_generator, spawn_seed

__all__ = [
    "Size",
    "bare_euler",
    "bare_training",
    "matching",
    "memory",
    "pairing",
    "raced",
    "sampling",
    "startup",
    "training",
]

S = TypeVar("S")
T = TypeVar("T")


Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Times, points and their flow, from source and data samples: what matchers of other libraries give a loop."""


@frozen(kw_only=True)
class Size:
    """What an operation works on.

    Args:
        batch: Samples at once.
        dimension: Coordinates of a sample.
        steps: Euler steps, or network calls, of sampling; training steps in a run.
    """

    batch: int = 256
    dimension: int = 2
    steps: int = 50


def raced(ours: Callable[[], object], bare: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Runs both in turn for about so many seconds, at least 5 rounds after a warm-up.

    Returns:
        The median time of ours, and the median ratio of ours to bare.
    """
    times: list[tuple[float, float]] = []
    ours(), bare()
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        began = time.perf_counter()
        ours()
        between = time.perf_counter()
        bare()
        times.append((between - began, time.perf_counter() - between))
    return statistics.median(own for own, _ in times), statistics.median(own / other for own, other in times)


def sampling(solver: str, size: Size, seed: int, seconds: float) -> dict[str, float]:
    """`sample` from given source samples, over the bare loop of as many network calls."""
    pipeline = _pipeline(size, seed, solver=solver)
    x0, net = _points(size, seed), pipeline.model.net  # type: ignore[attr-defined]
    out = pipeline.sample(x0=x0, nfe=size.steps, seed=seed)
    own, ratio = raced(
        lambda: pipeline.sample(x0=x0, nfe=size.steps, seed=seed),
        lambda: bare_euler(net, x0, out.nfe),
        seconds,
    )
    rates = {"samples_per_s": size.batch / own, "steps_per_s": out.nfe / own, "sample_s": own}
    return {**rates, "over_bare": ratio, "nfe": float(out.nfe)}


@torch.no_grad()
def bare_euler(net: nn.Module, x: Tensor, steps: int) -> Tensor:
    """Euler's method as one writes it: `steps` network calls."""
    times = torch.linspace(0, 1, steps + 1)
    for k in range(steps):
        x = x + (times[k + 1] - times[k]) * net(x, times[k].expand(len(x)))
    return x


def training(coupling: str | None, size: Size, seed: int, seconds: float) -> dict[str, float]:
    """A step of `fit`, over the hand-written one of CFM on the same data."""
    pipeline = _pipeline(size, seed, objective="cfm", coupling=coupling)
    x1 = _points(evolve(size, batch=max(4 * size.batch, 1024)), seed)
    own, ratio = raced(
        lambda: pipeline.fit(x1, steps=size.steps, batch_size=size.batch, seed=seed, progress=False),
        lambda: bare_training(_network(size, seed), x1, size, seed),
        seconds,
    )
    return {"training_steps_per_s": size.steps / own, "over_bare": ratio}


def bare_training(net: nn.Module, x1: Tensor, size: Size, seed: int) -> None:
    """CFM as one writes it: random rows, fresh noise, squared error, AdamW."""
    generator = make_generator(seed)

    def draw(noise: Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.rand(size.batch, generator=generator)
        return t, t[:, None] * data + (1 - t[:, None]) * noise, data - noise

    _trained(net, x1, size, generator, draw)


def _trained(net: nn.Module, x1: Tensor, size: Size, generator: torch.Generator, draw: Draw) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(size.steps):
        data = x1[torch.randint(len(x1), (size.batch,), generator=generator)]
        t, x_t, flow = draw(torch.randn(data.shape, generator=generator), data)
        loss = (net(x_t, t) - flow).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def matching(kind: str, name: str, size: Size, seed: int, seconds: float) -> dict[str, float]:
    """The hand-written loop with another library's matcher, over the one without, on the same data.

    Args:
        kind, name: A component of the plugin of peers that has `draw(x0, x1)`.
        size, seed, seconds: As of any operation.
    """
    matcher = _there(kind, name)
    x1 = _points(evolve(size, batch=max(4 * size.batch, 1024)), seed)

    def theirs() -> None:
        with torch.random.fork_rng([]):  # matchers draw from the global generator
            torch.manual_seed(seed)
            _trained(_network(size, seed), x1, size, make_generator(seed), matcher.draw)

    own, ratio = raced(theirs, lambda: bare_training(_network(size, seed), x1, size, seed), seconds)
    return {"training_steps_per_s": size.steps / own, "over_bare": ratio}


def _there(kind: str, name: str) -> Any:
    """A component that may be of a library that is not installed."""
    try:
        return registry.build(kind, name)
    except (PluginError, UnknownNameError) as error:
        raise NotHere(str(error)) from error


def pairing(size: Size, seed: int, seconds: float, coupling_name: str = "minibatch_ot") -> dict[str, float]:
    """Exact pairs of noise and a displaced cloud, over scipy on the squared distances; a bijection costs as much."""
    coupling, generator = _there("coupling", coupling_name), make_generator(seed)
    x0, x1 = _points(size, seed), 0.5 * _points(size, seed + 1) + 2

    def scipys() -> float:
        cost = torch.cdist(x0, x1).square().numpy()
        return float(cost[linear_sum_assignment(cost)].mean())

    i, j = coupling.pair(x0, x1, generator=generator)
    ours = float((x0[i] - x1[j]).square().sum(1).mean())
    if declared(coupling, "bijective") and abs(ours - scipys()) > 1e-4 * ours:
        raise ArithmeticError(f"the pairing costs {ours:.8g} where scipy finds {scipys():.8g}: it is not optimal")
    own, ratio = raced(lambda: coupling.pair(x0, x1, generator=generator), scipys, seconds)
    return {"pairs_per_s": size.batch / own, "over_bare": ratio}


def startup(program: str, processes: int) -> dict[str, float]:
    """A fresh process that runs a program, over one that does nothing."""
    own, ratio = raced_processes(program, "pass", processes)
    return {"startup_s": own, "over_bare": ratio}


def raced_processes(program: str, bare: str, rounds: int) -> tuple[float, float]:
    """Median time of a program in a fresh Python, and the median ratio to another's, run in turn after a warm-up."""
    times = [(_process(program), _process(bare)) for _ in range(rounds + 1)][1:]
    return statistics.median(own for own, _ in times), statistics.median(own / other for own, other in times)


def _process(program: str) -> float:
    """Seconds that a fresh Python takes to run a program."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"python -c {program!r} failed: {done.stderr.strip()[-500:]}")
    return seconds


def memory(size: Size) -> dict[str, float]:
    """Peak resident memory of a fresh process that samples, over that of one that runs Euler's bare loop."""
    own, bare = (_in_a_process(work, size) for work in (sampled_peak, bare_peak))
    return {"memory_mb": own, "over_bare": own / bare}


def sampled_peak(size: Size) -> float:
    """Samples; the process's peak resident memory, in MB."""
    _pipeline(size, 0, solver="euler").sample(x0=_points(size, 0), steps=size.steps, seed=0)
    return _peak()


def bare_peak(size: Size) -> float:
    """Runs Euler's bare loop; the process's peak resident memory, in MB."""
    bare_euler(_network(size, 0), _points(size, 0), size.steps)
    return _peak()


def _peak() -> float:
    try:
        import resource
    except ImportError as error:
        raise NotHere("the peak of a process's memory is read by the module `resource`, which Windows lacks") from error
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _in_a_process(work: Callable[[S], T], argument: S) -> T:
    # Spawned, not forked: a fork would start with this process's memory.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, argument).result()


def _network(size: Size, seed: int) -> nn.Module:
    """The 3 × 64 SELU network."""
    return registry.build("model", "mlp", shape=size.dimension, seed=spawn_seed(seed, 0))  # type: ignore[no-any-return]


def _pipeline(size: Size, seed: int, **parts: Any) -> Pipeline:
    return compose(path="linear", model=Model(_network(size, seed), predicts="velocity"), **parts)


def _points(size: Size, seed: int) -> Tensor:
    """Standard normal points, shape `(batch, dimension)`."""
    return torch.randn(size.batch, size.dimension, generator=make_generator(spawn_seed(seed, 1)))
