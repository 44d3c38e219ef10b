"""The progress bar of a calibration: steps and the median error; nothing at all where nobody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from fm_core.fit.progress import someone_looks

__all__ = ["Tell", "shown"]


class Tell(Protocol):
    """Hears the median error after each step."""

    def __call__(self, loss: float) -> None: ...


@contextmanager
def shown(steps: int, progress: bool | None) -> Iterator[Tell]:
    """A bar on stderr while the block runs, moved on by what it yields.

    Args:
        steps: The most steps.
        progress: Whether to show it; None on a terminal, outside CI and tests.
    """
    if not (someone_looks() if progress is None else progress):
        yield lambda loss: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("calibrate"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("calibrate", total=steps, state="reference")
        yield lambda loss: bar.update(task, advance=1, state=f"median error {loss:.3g}")
