"""`fm doctor`: the state of every plugin, with what is wrong and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from typing import Annotated

import typer
from attrs import asdict
from rich.console import Console
from rich.markup import escape

from fm_core.cli.tables import console, print_table
from fm_core.diagnosis import Diagnosis, Finding, diagnose
from fm_core.discovery import Plugin, is_set

__all__ = ["doctor"]

_STYLES = {"ok": "green", "broken": "bold red", "blocked": "yellow", "warning": "yellow", "note": "dim"}


def doctor(
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if anything is broken, as FM_PLUGINS_STRICT=1 does.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what plugins declare: do not import components (nor torch).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of tables.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks and optional extras.")] = False,
) -> None:
    """Look at every installed plugin and say what is wrong with it, and what to do.

    Example: fm doctor --strict
    """
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print is not the report
        diagnosis = diagnose(deep=not quick)
    if as_json:
        typer.echo(json.dumps(_as_json(diagnosis), indent=2))
    else:
        _show(diagnosis, verbose)
    if not diagnosis.healthy and (strict or is_set(os.environ, "FM_PLUGINS_STRICT")):
        raise typer.Exit(1)


def _as_json(diagnosis: Diagnosis) -> dict[str, object]:
    plugins = [
        {
            "plugin": plugin.source.name,
            "distribution": plugin.source.distribution,
            "version": plugin.source.version,
            "file": plugin.file,
            "status": plugin.status,
            "components": [component.key for component in plugin.components],
        }
        for plugin in diagnosis.plugins
    ]
    findings = [asdict(finding) for finding in diagnosis.findings]
    return {
        "healthy": diagnosis.healthy,
        "environment": dict(diagnosis.environment),
        "plugins": plugins,
        "findings": findings,
    }


def _show(diagnosis: Diagnosis, verbose: bool) -> None:
    to = console()
    for name, value in diagnosis.environment.items():
        to.print(f"{name:<10} {value}", markup=False, highlight=False, soft_wrap=True)
    heading = ("plugin", "distribution", "version", "components", "status", "file")
    print_table(to, heading, [_row(plugin) for plugin in diagnosis.plugins], _STYLES, heading.index("status"))
    for finding in diagnosis.findings:
        if verbose or finding.severity != "note":
            _tell(to, finding, verbose)
    counts = Counter(finding.severity for finding in diagnosis.findings)
    extras = "" if verbose or not counts["note"] else f", {counts['note']} notes (--verbose)"
    verdict = f"{counts['broken']} broken, {counts['warning']} warnings{extras}"
    to.print("Nothing is broken." if diagnosis.healthy else "Something is broken:", verdict, highlight=False)


def _row(plugin: Plugin) -> tuple[str, ...]:
    source = plugin.source
    count = str(len(plugin.components)) if plugin.status == "ok" else ""
    return (source.name, source.distribution, source.version, count, plugin.status, _short(plugin.file))


def _tell(to: Console, finding: Finding, verbose: bool) -> None:
    to.print(f"\n[{_STYLES[finding.severity]}]{finding.severity}[/] {escape(finding.subject)}", highlight=False)
    home = f"plugin {finding.plugin!r} of {finding.distribution} {finding.version}".rstrip() if finding.plugin else ""
    for line in (home, finding.file, finding.what, finding.fix):
        if line:
            to.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if verbose and finding.traceback:
        to.print(finding.traceback, markup=False, highlight=False, soft_wrap=True)


def _short(file: str) -> str:
    """A path as seen from here, where it lies below."""
    seen = os.path.relpath(file) if file else ""
    return file if seen.startswith("..") else seen
