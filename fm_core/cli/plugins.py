"""`fm plugins`: what is installed, where it comes from, and what is broken."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from attrs import asdict, frozen
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fm_core import registry
from fm_core.discovery import Plugin
from fm_core.hookspecs import KINDS

__all__ = ["plugins"]

_STYLES = {"ok": "green", "broken": "bold red", "blocked": "yellow"}


@frozen
class _Row:
    """A component, or a plugin that gives none: then `kind` is "plugin", `name` its own and `summary` the reason."""

    kind: str
    name: str
    summary: str
    distribution: str
    version: str
    status: str
    plugin: str


def plugins(
    kind: Annotated[str | None, typer.Option(help=f"Only components of this kind: {', '.join(KINDS)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the tracebacks of broken plugins.")] = False,
) -> None:
    """List every component of every installed plugin, and the plugins that are broken or blocked.

    Example: fm plugins --kind solver
    """
    rows = _rows(kind)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    console = _console()
    table = Table("kind", "name", "summary", "distribution", "version", "status")
    for row in rows:
        style = _STYLES[row.status]
        cells = map(escape, (row.kind, row.name, row.summary, row.distribution, row.version))
        table.add_row(*cells, f"[{style}]{row.status}[/]")
    console.print(table)
    broken = [plugin for plugin in registry.plugins() if plugin.status == "broken"]
    for plugin in broken:
        console.print(_explained(plugin, verbose), markup=False, highlight=False, soft_wrap=True)


def _rows(kind: str | None) -> list[_Row]:
    found = registry.components(kind)
    names = [(item.kind, item.name) for item in found]
    rows = [
        _Row(
            item.kind,
            item.name if names.count((item.kind, item.name)) == 1 else item.qualified,
            item.component.summary,
            item.distribution,
            item.version,
            "ok",
            item.plugin,
        )
        for item in found
    ]
    # Whatever kind is asked for: nobody knows what a plugin that failed to load would have given.
    for plugin in registry.plugins():
        if plugin.status != "ok":
            source = plugin.source
            why = (source.name, plugin.reason, source.distribution, source.version, plugin.status, source.name)
            rows.append(_Row("plugin", *why))
    return rows


def _explained(plugin: Plugin, verbose: bool) -> str:
    if verbose:
        return f"\n{plugin.source.where} ({plugin.file or 'no file'}):\n{plugin.traceback}{plugin.remedy}"
    return f"{plugin.source.where} is broken. {plugin.remedy or 'See --verbose.'}"


def _console() -> Console:
    """As wide as the terminal; in a pipe wide enough that rows stay on their lines for `grep`."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=200)
