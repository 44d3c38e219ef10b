"""`fm plugins`: what is installed, where it comes from, and what is broken."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from typing import Annotated

import typer
from attrs import asdict, astuple, frozen

from fm_core import registry
from fm_core.cli.tables import console, print_table
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
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print is not the list
        rows = _rows(kind)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    to = console()
    heading = ("kind", "name", "summary", "distribution", "version", "status")
    print_table(to, heading, [astuple(row)[: len(heading)] for row in rows], _STYLES, heading.index("status"))
    broken = [plugin for plugin in registry.plugins() if plugin.status == "broken"]
    for plugin in broken:
        to.print(_explained(plugin, verbose), markup=False, highlight=False, soft_wrap=True)


def _rows(kind: str | None) -> list[_Row]:
    found = registry.components(kind)
    bearers = Counter((item.kind, item.name) for item in found)
    rows = [
        _Row(
            item.kind,
            item.name if bearers[item.kind, item.name] == 1 else item.qualified,
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
    return f"{plugin.source.where} is broken. {plugin.remedy or 'See fm doctor.'}"
