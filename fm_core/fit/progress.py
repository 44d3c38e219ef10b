"""The progress bar of a training: steps, loss, steps per second, time left; nothing at all where nobody looks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar", "someone_looks"]

REFRESH = 0.1
"""Seconds between two updates of the bar."""

SMOOTHING = 0.98
"""Weight of the past in the loss that is shown."""


def someone_looks() -> bool:
    """Whether stderr is a terminal, outside CI and tests."""
    return sys.stderr.isatty() and not os.environ.get("CI") and "PYTEST_CURRENT_TEST" not in os.environ


@contextmanager
def progress_bar(show: bool | None, steps: int, done: int = 0) -> Iterator[Callable[[int, float], None] | None]:
    """A bar on stderr, told by `update(step, loss)` after each step; None where it is silent.

    Args:
        show: Whether to show it; None shows it on a terminal, outside CI and tests.
        steps: Steps in all.
        done: Steps that an earlier run took.
    """
    if not (someone_looks() if show is None else show):
        yield None
        return
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
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("fit", total=steps, completed=done, loss=float("nan"), rate=0.0)
        began = shown = time.monotonic()
        smooth = float("nan")

        def update(step: int, loss: float) -> None:
            nonlocal shown, smooth
            if loss == loss:  # a skipped step's NaN says nothing about the curve
                smooth = loss if smooth != smooth else SMOOTHING * smooth + (1 - SMOOTHING) * loss
            now = time.monotonic()
            if now - shown >= REFRESH or step + 1 == steps:
                shown = now
                bar.update(task, completed=step + 1, loss=smooth, rate=(step + 1 - done) / max(now - began, 1e-9))

        yield update
