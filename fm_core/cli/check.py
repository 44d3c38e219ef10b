"""`fm check`: prove a plugin, or a component, by the conformance kit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import asdict

if TYPE_CHECKING:
    from rich.console import Console

    from fm_core.testing import Result

__all__ = ["check"]

_STYLES = {"PASS": "green", "FAIL": "bold red", "SKIP": "yellow"}
_SHOWN = ("component", "plugin", "check", "status", "figure", "why")


def check(
    name: Annotated[
        str | None, typer.Argument(help="A plugin by its entry-point name, or a component: solver/heun.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every component of every plugin.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line in place of text.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only what fails, and the count.")] = False,
) -> None:
    """Prove components by properties: one line a check, exit code 1 if one fails.

    Example: fm check solver/heun
    """
    from fm_core import registry
    from fm_core.testing import check, check_plugin

    if (name is None) == (not everything):
        raise typer.BadParameter("give a plugin, a component kind/name, or --all")
    found: list[Result] = []
    console = _console()
    for part in registry.components() if everything else [name]:
        results = check_plugin(part) if isinstance(part, str) and "/" not in part else check(part)
        found += results
        for result in results:
            if as_json:
                typer.echo(json.dumps({key: value for key, value in asdict(result).items() if key in _SHOWN}))
            elif result.status == "FAIL" or not quiet:
                _show(console, result)
    if not as_json:
        counts = {status: sum(result.status == status for result in found) for status in _STYLES}
        console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    if any(result.status == "FAIL" for result in found):
        raise typer.Exit(1)


def _show(console: Console, result: Result) -> None:
    from rich.markup import escape

    figure = "" if result.figure is None else f" {result.figure:.2g}"
    line = f"[{_STYLES[result.status]}]{result.status}[/] {escape(result.component)} {escape(result.check)}{figure}"
    detail = "" if result.status == "PASS" else f": {escape(result.why)}"
    more = f" ({result.read})" if result.status == "FAIL" else ""
    console.print(f"{line}{detail}{more}", soft_wrap=True, highlight=False)


def _console() -> Console:
    from rich.console import Console

    return Console()
