"""`fm check`: prove a plugin, or a component, by the conformance kit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    mutations: Annotated[
        bool, typer.Option("--mutations", help="The table of planted defects and the checks that catch them.")
    ] = False,
) -> None:
    """Prove components by properties: one line a check, exit code 1 if one fails.

    Example: fm check solver/heun
    """
    if sum((name is not None, everything, mutations)) != 1:
        raise typer.BadParameter("give one of: a plugin, a component kind/name, --all, --mutations")
    if mutations:
        from fm_core.testing.mutants import table

        typer.echo(table(), nl=False)
        return
    console, counts = _console(), Counter[tuple[str, str]]()
    for result in _watched(console, _targets(name), shown=not as_json):
        counts[result.component.partition("/")[0], result.status] += 1
        if as_json:
            typer.echo(json.dumps({key: getattr(result, key) for key in _SHOWN}))
        elif result.status == "FAIL" or not quiet:
            _show(console, result)
    if not as_json:
        _summary(console, counts, table=everything)
    if any(status == "FAIL" for _, status in counts):
        raise typer.Exit(1)


def _targets(name: str | None) -> list[Any]:
    from fm_core import registry
    from fm_core.testing import components_of

    if name is None:
        return registry.components()
    return [name] if "/" in name else components_of(name)


def _watched(console: Console, targets: list[Any], *, shown: bool) -> Iterator[Result]:
    """The results of every target; what is being examined stands at the foot of a terminal."""
    from fm_core.testing import check

    with console.status("") if shown and console.is_terminal else nullcontext() as status:
        for i, target in enumerate(targets, 1):
            key = target if isinstance(target, str) else target.component.key
            if status is not None:
                status.update(f"{key} ({i} of {len(targets)})")
            yield from check(target)


def _show(console: Console, result: Result) -> None:
    from rich.markup import escape

    figure = "" if result.figure is None else f" {result.figure:.2g}"
    line = f"[{_STYLES[result.status]}]{result.status}[/] {escape(result.component)} {escape(result.check)}{figure}"
    detail = "" if result.status == "PASS" else f": {escape(result.why)}"
    more = f" ({result.read})" if result.status == "FAIL" else ""
    console.print(f"{line}{detail}{more}", soft_wrap=True, highlight=False)


def _summary(console: Console, counts: Counter[tuple[str, str]], *, table: bool) -> None:
    from rich.table import Table

    if table:
        grid = Table("kind", *_STYLES)
        for kind in dict.fromkeys(kind for kind, _ in counts):
            grid.add_row(kind, *(str(counts[kind, status]) for status in _STYLES))
        console.print(grid)
    totals = {status: sum(count for (_, of), count in counts.items() if of == status) for status in _STYLES}
    console.print(", ".join(f"{count} {status}" for status, count in totals.items()), highlight=False)


def _console() -> Console:
    from rich.console import Console

    return Console()
