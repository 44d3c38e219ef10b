"""Events as lines of JSON: a file that any tool reads, while the run goes on and after it broke off.

    {"event": "fit_start", "time": …, "steps": 1000, "batch_size": 256, "parts": {"path": "linear", …}}
    {"event": "fit_step", "time": …, "step": 0, "loss": 2.1, "lr": 0.001}
    {"event": "fit_end", "time": …, "steps": 1000, "skipped": 0, "seed": 7, "seconds": 9.3, "stopped": null, …}
    {"event": "sample_step", "time": …, "t": 0.25, "samples": 64, "finite": 64, "mean": 0.02, "std": 0.99}
    {"event": "bench_record", "time": …, …the figures…}

`time` is in seconds since 1970. Every line is written whole, by one write to a file opened for appending, so that
several threads and processes may share the file. What JSON has no number for, NaN and infinity, is null.

References:
    JSON Lines. https://jsonlines.org
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, final

from attrs import field, frozen, validators

from fm_core import hookimpl
from fm_core.building import name_of

if TYPE_CHECKING:
    from torch import Tensor

    from fm_core import FitResult, Pipeline

__all__ = ["JSONLogger"]

_PARTS = ("path", "objective", "coupling", "solver", "grid", "codec")


@final
@frozen
class JSONLogger:
    """Appends every event to a file, one JSON object a line.

    Args:
        path: The file; made with its folders if it is not there.
        every: Training steps between two that are written; the last step of a training is in its `fit_end`.
    """

    path: Path = field(converter=Path)
    every: int = field(default=1, validator=[validators.instance_of(int), validators.ge(1)], kw_only=True)

    @hookimpl
    def fm_fit_start(self, pipeline: Pipeline, steps: int, batch_size: int) -> None:
        """Writes what is trained, by the registry names of its parts."""
        parts = {name: name_of(part) for name in _PARTS if (part := getattr(pipeline, name)) is not None}
        parts["model"] = name_of(getattr(pipeline.model, "net", pipeline.model))
        self._write("fit_start", {"steps": steps, "batch_size": batch_size, "parts": parts})

    @hookimpl
    def fm_fit_step(self, step: int, loss: SupportsFloat, lr: float) -> None:
        """Writes the loss of a step."""
        if step % self.every == 0:
            self._write("fit_step", {"step": step, "loss": float(loss), "lr": lr})

    @hookimpl
    def fm_fit_end(self, result: FitResult) -> None:
        """Writes what was reached."""
        reached = {name: getattr(result, name) for name in ("steps", "skipped", "seed", "seconds", "stopped")}
        loss = float(result.losses[-1]) if len(result.losses) else math.nan
        self._write("fit_end", {**reached, "loss": loss, "validation": result.validation})

    @hookimpl
    def fm_sample_step(self, t: float, x: Tensor) -> None:
        """Writes how many of the states `(B, *D)` are finite, and the mean and standard deviation of their entries."""
        finite = int(x.isfinite().flatten(1).all(1).sum())
        mean, std = float(x.mean()), float(x.std(correction=0))
        self._write("sample_step", {"t": t, "samples": len(x), "finite": finite, "mean": mean, "std": std})

    @hookimpl
    def fm_bench_record(self, record: Mapping[str, Any]) -> None:
        """Writes the figures."""
        self._write("bench_record", record)

    def _write(self, event: str, facts: Mapping[str, Any]) -> None:
        line = json.dumps(_strict({"event": event, "time": time.time(), **facts}), ensure_ascii=False, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab", buffering=0) as file:
            file.write(f"{line}\n".encode())


def _strict(value: Any) -> Any:
    """The value with null in place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value
