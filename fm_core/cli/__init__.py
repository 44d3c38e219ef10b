"""The terminal command `fm`.

A command `fm NAME` is the function `NAME` of the module `fm_core.cli.NAME` (with `_` for `-`), or a group of commands
of that name, imported only when it is asked for. Such a module imports what is heavy inside its functions, so that
`fm --help` needs none of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

import fm_core
from fm_core.errors import FMError

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = ("plugins", "doctor", "check", "new-plugin", "demo", "bench", "recommend")
"""Names of the commands, in the order of `fm --help`."""


class _Commands(TyperGroup):
    """The commands by name, each imported on demand. (Typed by Any: the classes of click that typer uses vary.)"""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)  # typer suggests from the commands it has
            return None
        if cmd_name not in self.commands:
            name = cmd_name.replace("-", "_")
            module = importlib.import_module(f"fm_core.cli.{name}")
            found = getattr(module, name)
            if not isinstance(found, typer.Typer):
                single = typer.Typer(add_completion=False)
                single.command(cmd_name)(found)
                found = single
            self.add_command(typer.main.get_command(found), cmd_name)
        return self.commands[cmd_name]


app = typer.Typer(cls=_Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fm-core {fm_core.__version__}")
        raise typer.Exit


@app.callback()
def fm(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks (or set FM_TRACEBACK=1).")] = False,
) -> None:
    """Any path, any model, any objective, any solver, any guidance: compose, train and sample generative flows.

    Example: fm plugins
    """


def main() -> None:
    """Runs `fm` with the process's arguments; the library's own errors become plain messages and exit code 1."""
    try:
        app()
    except FMError as error:
        if "--verbose" in sys.argv or os.environ.get("FM_TRACEBACK", "") not in {"", "0"}:
            raise
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print("[bold red]error:[/]", end=" ")
        console.print(str(error), markup=False)
        raise SystemExit(1) from None
