"""The progress bar of a training: steps, loss, steps per second, time left; nothing at all where nobody looks."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, SupportsFloat

from fm_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from rich.progress import Progress

    from fm_core.fit.result import FitResult

__all__ = ["ProgressBar", "someone_looks"]

REFRESH = 0.1
"""Seconds between two updates of the bar."""

SMOOTHING = 0.98
"""Weight of the past in the loss that is shown."""


def someone_looks() -> bool:
    """Whether stderr is a terminal, outside CI and tests."""
    return sys.stderr.isatty() and not os.environ.get("CI") and "PYTEST_CURRENT_TEST" not in os.environ


class ProgressBar:
    """An observer of one training that draws it on stderr.

    Args:
        done: Steps that an earlier run took.
    """

    def __init__(self, done: int = 0) -> None:
        self.done = done
        self.smooth = float("nan")
        self.bar: Progress | None = None

    @hookimpl
    def fm_fit_start(self, steps: int) -> None:
        """Draws the empty bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("fit"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TextColumn("{task.fields[rate]:.0f} steps/s"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task("fit", total=steps, completed=self.done, loss=self.smooth, rate=0.0)
        self.began = self.shown = time.monotonic()
        self.bar.start()

    @hookimpl
    def fm_fit_step(self, step: int, loss: SupportsFloat) -> None:
        """Moves it on, at most every `REFRESH` seconds."""
        value = float(loss)
        self.smooth = value if self.smooth != self.smooth else SMOOTHING * self.smooth + (1 - SMOOTHING) * value
        if time.monotonic() - self.shown >= REFRESH:
            self._show(step + 1)

    @hookimpl
    def fm_fit_end(self, result: FitResult) -> None:
        """Draws the whole of it."""
        self._show(result.steps)
        self.close()

    def close(self) -> None:
        """Leaves the terminal as it stands."""
        if self.bar is not None:
            self.bar.stop()

    def _show(self, completed: int) -> None:
        self.shown = time.monotonic()
        rate = (completed - self.done) / max(self.shown - self.began, 1e-9)
        if self.bar is not None:
            self.bar.update(self.task, completed=completed, loss=self.smooth, rate=rate)
