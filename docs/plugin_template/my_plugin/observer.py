"""An observer: writes the loss of every training step into a CSV file.

It observes in a block,

    with fm_core.observing({"name": "my_plugin", "path": "losses.csv"}):
        pipe.fit(x1, steps=1_000)

A failing observer is reported once and never stops a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import SupportsFloat, final

from attrs import field as attribute, frozen
from fm_core import hookimpl

__all__ = ["LossFile"]


@final
@frozen
class LossFile:
    """A file of lines `step,loss,lr`, one a step, begun anew with every training.

    Args:
        path: The file.
    """

    path: Path = attribute(converter=Path)

    @hookimpl
    def fm_fit_start(self) -> None:
        """Begins the file. A hook takes only those of its arguments that it names."""
        self.path.write_text("step,loss,lr\n", encoding="utf-8")

    @hookimpl
    def fm_fit_step(self, step: int, loss: SupportsFloat, lr: float) -> None:
        """Adds a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{step},{float(loss):.6g},{lr:.6g}\n")
