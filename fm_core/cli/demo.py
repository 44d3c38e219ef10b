"""`fm demo`: train pipelines composed from plugins, compare solvers on them, and leave pictures that explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for pictures, weights and figures.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")] = 0,
    effort: Annotated[
        float, typer.Option(min=0.001, help="Factor on the training steps: 0.1 gives a glimpse, 4 finer samples.")
    ] = 1.0,
) -> None:
    """Train CFM, OT-CFM and rectified flow on two moons, OT-CFM on handwritten digits; sample all with four solvers.

    Prints one table of method, solver, network calls, metric with its floor and time, and writes pictures, weights
    (safetensors) and a JSON of all figures. Takes about two minutes on two cores.

    Example: fm demo --out out/demo
    """
    from fm_core.cli.showcase import run

    run(out, seed=seed, effort=effort)
