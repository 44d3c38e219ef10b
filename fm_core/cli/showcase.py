"""The demonstration behind `fm demo`: four trainings, every solver at several budgets, one table, pictures.

Everything is composed by registry name, as a user would; results are written as soon as they are there.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from attrs import asdict, frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import fm_core
from fm_core import Pipeline, build, recipe
from fm_core.cli import pictures
from fm_core.fit.files import replacing
from fm_core.floor import Floor, Sampler, draw, floor
from fm_core.randomness import make_generator, spawn_seed

__all__ = ["Figure", "run"]

METHODS = ("cfm", "ot_cfm", "rectified_flow")
SOLVERS = ("euler", "heun", "rk4", "dopri5")
BUDGETS = (4, 8, 16, 32)
"""Network calls given to the solvers with a fixed grid."""

TOLERANCE = 1e-3
"""rtol and atol of dopri5: finer ones cost more calls and change no picture."""

SHORT = {"wasserstein2": "W2", "energy_distance": "energy"}
"""Metrics as the table names them."""

MOONS_STEPS, DIGITS_STEPS = 4000, 4000
MOONS_LR, DIGITS_LR = 1e-2, 3e-3
DRAWS = 3
"""Draws behind every figure: single ones scatter."""

THREADS = 1
"""The networks are small: on more threads they wait for each other."""


@frozen
class Task:
    """Data to learn, and how samples of it are judged.

    Args:
        name: Its name in the table.
        real: Real samples, or what draws them.
        n: Samples in a draw.
        shape: Shape of one sample.
        metric: Registry name of the metric.
        floor: The metric between two draws of real samples.
    """

    name: str
    real: Sampler
    n: int
    shape: tuple[int, ...]
    metric: str
    floor: Floor


@frozen
class Figure:
    """One line of the table: a method and a solver at a budget.

    Args:
        data, method, solver: Names.
        nfe: Network calls that each sample went through.
        metric: Name of the metric.
        value, std: Its mean and standard deviation over draws of samples.
        floor, floor_std: The same between real samples.
        seconds: Time of one draw.
    """

    data: str
    method: str
    solver: str
    nfe: int
    metric: str
    value: float
    std: float
    floor: float
    floor_std: float
    seconds: float


def run(out: Path, *, seed: int, effort: float) -> None:
    """Trains, samples, prints and writes.

    Args:
        out: Folder for everything written; made if it is not there.
        seed: Seed of everything drawn.
        effort: Factor on the training steps.
    """
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    torch.set_num_threads(THREADS)
    figures: list[Figure] = []
    for demonstration in (_moons, _digits):
        figures += demonstration(out, console, seed, effort)
        _write_figures(out / "figures.json", figures, seed, effort)
    console.print(_table(figures))
    console.print(f"Pictures, weights and figures are in {out}:", highlight=False)
    for path in sorted(out.iterdir()):
        console.print(f"  {path.name}", highlight=False)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.", highlight=False)


def _moons(out: Path, console: Console, seed: int, effort: float) -> list[Figure]:
    moons = build("dataset", "moons")
    task = _task("moons", moons, 1000, (2,), "wasserstein2", seed)
    pipes = {}
    for number, method in enumerate(METHODS):
        network = build("model", "mlp", shape=2, seed=spawn_seed(seed, number))
        pipe = recipe(method, model=network)
        pipes[method] = _fit(console, f"{method} on moons", pipe, moons, MOONS_STEPS * effort, MOONS_LR, 256, seed)
        pipes[method].save(out / f"moons_{method}")
    figures = [*_compared(task, pipes, seed)]
    with pictures.style():
        pictures.trajectories(pipes, out / "trajectories.png", seed)
        pictures.densities(pipes, moons(20_000, make_generator(seed)), out / "density.png", seed)
        pictures.quality(figures, out / "quality_moons.png")
        pictures.animation(pipes["ot_cfm"], out / "moons.gif", seed)
    return figures


def _digits(out: Path, console: Console, seed: int, effort: float) -> list[Figure]:
    images: Tensor = build("dataset", "digits", labels=False).x1
    shape = tuple(images.shape[1:])
    task = _task("digits", images, len(images) // 2, shape, "energy_distance", seed)
    network = build("model", "mlp", shape=shape, width=384, depth=3, time="fourier", seed=spawn_seed(seed, 9))
    pipe = recipe("ot_cfm", model=network)
    pipe = _fit(console, "ot_cfm on digits", pipe, images, DIGITS_STEPS * effort, DIGITS_LR, 128, seed)
    pipe.save(out / "digits_ot_cfm")
    figures = [*_compared(task, {"ot_cfm": pipe}, seed)]
    with pictures.style():
        pictures.digits(images, pipe, out / "digits.png", seed)
        pictures.quality(figures, out / "quality_digits.png")
    return figures


def _task(name: str, real: Sampler, n: int, shape: tuple[int, ...], metric: str, seed: int) -> Task:
    least = floor(build("metric", metric), real, n, draws=2 * DRAWS, generator=make_generator(spawn_seed(seed, 100)))
    return Task(name, real, n, shape, metric, least)


def _fit(
    console: Console, title: str, pipe: Pipeline, data: Any, steps: float, lr: float, batch_size: int, seed: int
) -> Pipeline:
    console.print(f"training [bold]{title}[/]")
    steps = max(1, round(steps))
    result = pipe.fit(
        data,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        lr=lr,
        lr_schedule="cosine",
        warmup=min(100, steps - 1),
        prefetch=2,
    )
    rate = result.steps / result.seconds
    console.print(f"  {result.steps} steps in {result.seconds:.1f} s ({rate:.0f} a second)", highlight=False)
    return result.pipeline


def _compared(task: Task, pipes: dict[str, Pipeline], seed: int) -> Iterator[Figure]:
    """A figure for every method, solver and budget."""
    cells = [
        (method, solver, budget)
        for method in pipes
        for solver in SOLVERS
        for budget in (BUDGETS if solver != "dopri5" else (None,))
    ]
    for method, solver, budget in track(cells, description=f"sampling {task.name}", transient=True):
        yield _measured(task, method, pipes[method].replace(solver=solver), solver, budget, seed)


def _measured(task: Task, method: str, pipe: Pipeline, solver: str, budget: int | None, seed: int) -> Figure:
    metric: Callable[[Tensor, Tensor], float] = build("metric", task.metric)
    values, seconds, nfe = [], [], 0
    for number in range(DRAWS):
        start = time.perf_counter()
        tolerance = TOLERANCE if budget is None else None
        samples = pipe.sample(
            (task.n, *task.shape), nfe=budget, rtol=tolerance, atol=tolerance, seed=spawn_seed(seed, 200, number)
        )
        seconds.append(time.perf_counter() - start)
        nfe = max(nfe, samples.nfe)
        values.append(metric(samples.x, draw(task.real, task.n, make_generator(spawn_seed(seed, 300, number)))))
    return Figure(
        data=task.name,
        method=method,
        solver=solver,
        nfe=nfe,
        metric=task.metric,
        value=fmean(values),
        std=stdev(values),
        floor=task.floor.mean,
        floor_std=task.floor.std,
        seconds=min(seconds),
    )


def _table(figures: list[Figure]) -> Table:
    table = Table(title="Samples against real data", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("data", "method", "solver"):
        table.add_column(heading, no_wrap=True)
    for heading in ("NFE", "metric", "value", "±", "floor", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    before: tuple[str, str] | None = None
    for figure in figures:
        if before not in (None, (figure.data, figure.method)):
            table.add_section()
        before = (figure.data, figure.method)
        table.add_row(
            figure.data,
            figure.method,
            figure.solver,
            str(figure.nfe),
            SHORT[figure.metric],
            f"{figure.value:.3f}",
            f"{figure.std:.3f}",
            f"{figure.floor:.3f}",
            f"{1e3 * figure.seconds:.0f}",
        )
    table.caption = f"mean ± std over {DRAWS} draws; floor: the metric between draws of real data"
    return table


def _write_figures(path: Path, figures: list[Figure], seed: int, effort: float) -> None:
    whole = {
        "command": f"fm demo --seed {seed} --effort {effort}",
        "fm_core": fm_core.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {THREADS} thread(s)",
        "figures": [asdict(figure) for figure in figures],
    }
    with replacing(path) as (temporary,):
        temporary.write_text(json.dumps(whole, indent=2), encoding="utf-8")
