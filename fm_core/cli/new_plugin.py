"""`fm new-plugin`: a complete package with a component of each kind that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fm_core.scaffold import SCAFFOLDED, scaffold

__all__ = ["new_plugin"]


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of module, plugin and components, in snake_case.")],
    kind: Annotated[
        list[str], typer.Option(help=f"What it offers, one or more times: {', '.join(SCAFFOLDED)}.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder in which the package's folder is made.")] = Path(),
) -> None:
    """Make a package that installs, passes its tests and is right, to be changed into your own.

    Example: fm new-plugin flow_zoo --kind solver --kind path
    """
    made = scaffold(name, kind, out)
    typer.echo(f"Made {made}. Next: cd {made} && pip install -e '.[dev]' && fm check {name} && pytest")
