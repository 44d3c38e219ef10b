"""`fm recommend`: which solver to take for a saved pipeline, measured on the pipeline itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fm_core.cli.bench import Seeds

if TYPE_CHECKING:
    from rich.console import Console

    from fm_core.bench.recommendation import Recommendation

__all__ = ["recommend"]


def recommend(
    pipeline: Annotated[Path, typer.Option(help="Folder of a saved pipeline.")],
    budget: Annotated[str, typer.Option(help="Network calls or time of one batch: 10nfe, 50ms, 0.2s.")],
    batch: Annotated[int, typer.Option(min=1, help="Samples drawn at a time: what a time is measured for.")] = 64,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Labels to draw as conditions; by default as many as the network has.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Let a table fitted to this pipeline compete.")
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=2, help="Samples of a seed to judge errors by; 64, of images 16, if not given.")
    ] = None,
    seeds: Seeds = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads to compute on; times are for so many. As torch has it if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to save the pipeline in, with the solver in it.")] = None,
) -> None:
    """Name the solver, grid and settings for a budget, measured on your own pipeline, with the evidence.

    Errors are against the pipeline's own fine solution. A time is met by runs timed on this machine, the least of
    several, on the threads that torch is set to (OMP_NUM_THREADS, or --threads): the answer says on how many.

    Example: fm recommend --pipeline out/demo/moons_cfm --budget 10nfe
    """
    import torch
    from rich.markup import escape

    from fm_core import recommend as measured
    from fm_core.bench.recommending import SEEDS
    from fm_core.cli.tables import console
    from fm_core.randomness import make_generator
    from fm_core.registry import build

    if threads is not None:
        torch.set_num_threads(threads)
    problem = build("problem", "saved", folder=str(pipeline), **({} if classes is None else {"classes": classes}))
    cond = problem.condition(1024, make_generator(0))
    found = measured(
        problem.pipeline,
        (batch, *problem.event_shape),
        budget=budget,
        cond=cond,
        calibrate=calibrate,
        samples=samples,
        seeds=seeds or SEEDS,
    )
    to = console()
    _show(to, found)
    if out is not None:
        found.pipeline.save(out)
        to.print(f"saved with this solver: {escape(str(out))}", highlight=False)


def _show(to: Console, found: Recommendation) -> None:
    """Prints the contenders within the budget, which to take, and by what they were measured."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from fm_core.bench.report.quantities import number

    table = Table(title=f"Median error within {found.budget}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("solver@grid", no_wrap=True)
    for heading in ("NFE", "error", "95 % interval", "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row in found.rows:
        took = "" if row.seconds is None else number(1000 * row.seconds, 3)
        if row.error is None:
            table.add_row(escape(row.name), "", "", "", took, escape(row.verdict.splitlines()[0]), style="dim")
            continue
        low, high = row.error.low, row.error.high
        interval = "" if low is None or high is None else f"{number(low, 2)} – {number(high, 2)}"
        style = "bold" if row.verdict == "best" else None
        error = number(row.error.median, 3)
        table.add_row(escape(row.name), str(row.nfe), error, interval, took, row.verdict, style=style)
    to.print(table)
    for line in found.conclusions:
        to.print(escape(line), highlight=False, soft_wrap=True)
