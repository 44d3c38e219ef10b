"""`fm recommend`: which solver to take for a saved pipeline, measured on the pipeline itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    seeds: Annotated[int, typer.Option(min=2, help="Replicates behind the intervals.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder to save the pipeline in, with the solver in it.")] = None,
) -> None:
    """Name the solver, grid and settings for a budget, measured on your own pipeline, with the evidence.

    Example: fm recommend --pipeline out/demo/moons_cfm --budget 10nfe
    """
    import torch
    from rich.markup import escape

    from fm_core import recommend as measured
    from fm_core.cli.tables import console
    from fm_core.cli.verdicts import show_recommendation
    from fm_core.randomness import make_generator
    from fm_core.registry import build

    torch.set_num_threads(1)
    problem = build("problem", "saved", folder=str(pipeline), **({} if classes is None else {"classes": classes}))
    cond = problem.condition(1024, make_generator(0))
    shape = (batch, *problem.event_shape)
    found = measured(problem.pipeline, shape, budget=budget, cond=cond, calibrate=calibrate, seeds=seeds)
    to = console()
    show_recommendation(to, found)
    if out is not None:
        found.pipeline.save(out)
        to.print(f"saved with this solver: {escape(str(out))}", highlight=False)
