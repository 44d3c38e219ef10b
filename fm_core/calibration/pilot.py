"""Pilots: a few trajectories of a pipeline, by where they start and where a fine reference takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from fm_core.calibration.comparing import distances, median
from fm_core.errors import DataError
from fm_core.field import Field
from fm_core.guiding import of_rows
from fm_core.pipeline import Pipeline
from fm_core.prediction import Prediction
from fm_core.protocols import declared
from fm_core.randomness import BlockGenerator
from fm_core.shapes import map_tensors, time_dtype
from fm_core.straight import clock, straight_space, straight_velocity, times_of_clock

__all__ = [
    "Grids",
    "Pilot",
    "asked_times",
    "closes",
    "fine_ends",
    "needs_apart",
    "reference_ends",
    "source_states",
    "states_of",
]

REFERENCE = (80, 160, 320, 640, 1280)
"""Predictions of the reference, until two in turn agree."""

AGREED = 0.01
"""Two references agree where their distance is less than this part of the least error that is to be beaten: the finer
one, of third order or more, is nearer yet by an order of magnitude.
"""

ROOM = 2**18
"""Numbers in one batch for the network, unless said otherwise."""


@frozen(eq=False)
class Grids:
    """The times of V tables on a path, and what takes predictions there to straight velocities, float64.

    Args:
        kind: What is asked for.
        times: t, `(V, N+1)`.
        scale: κ, `(V, N+1)`.
        m, k: `u = m·x + k·p`, `(V, N)`.
    """

    kind: Prediction
    times: Tensor
    scale: Tensor
    m: Tensor
    k: Tensor


@frozen(eq=False)
class Pilot:
    """Trajectories of a pipeline.

    Args:
        pipeline: Whose field they follow, guidance included.
        x0: Source samples, `(B, *D)`, in the dtype of the network.
        ends: Where the reference takes them, `(B, E)`, float64.
        cond: Their condition, any pytree with the batch first.
        closing: Whether runs end at clean data, by the data prediction.
        apart: Whether tables are run one by one: a guidance holds something of each sample, or remembers.
        chunk: The most states in one batch for the network.
    """

    pipeline: Pipeline
    x0: Tensor
    ends: Tensor
    cond: Any
    closing: bool
    apart: bool
    chunk: int

    def __len__(self) -> int:
        return len(self.x0)

    @property
    def guidance(self) -> tuple[Any, ...]:
        """The pipeline's guidances."""
        return self.pipeline.guidance

    def field(self) -> Field:
        """A field of its own for one run."""
        return Field(self.pipeline.model, self.pipeline.path, self.guidance)

    def grids(self, clocks: Tensor) -> Grids:
        """The times of V tables, given in straight coordinates τ, `(V, N+1)`."""
        path, kind = self.pipeline.path, straight_space(self.pipeline.path)
        asked = asked_times(self.pipeline, clocks[:, :-1])
        last = torch.ones_like(asked[:, :1]) if self.closing else times_of_clock(path, clocks[:, -1:])
        times = torch.cat([asked, last], 1)
        scale = clock(path, times)[1]
        if self.closing:
            scale[:, -1] = 1.0
        m, k = straight_velocity(path, asked, kind)
        return Grids(kind, *(part.to(self.x0.device) for part in (times, scale, m, k)))

    def start(self, grids: Grids) -> Tensor:
        """First states y, `(B, E)`, float64."""
        sigma: Tensor = self.pipeline.path.sigma(grids.times[0, 0])  # type: ignore[attr-defined]
        return self.x0.flatten(1).to(torch.float64) * (sigma / grids.scale[0, 0])

    def velocity(self, field: Field, y: Tensor, grids: Grids, s: int) -> Tensor:
        """Straight velocities at states y `(V, B, E)` of the s-th times, `(V, B, E)`."""
        some = slice(len(y))
        x = grids.scale[some, s, None, None] * y
        answer = self._asked(field, x, grids.times[some, s], grids.times[some, s + 1], grids.kind)
        return grids.m[some, s, None, None] * x + grids.k[some, s, None, None] * answer

    def rows(self, rows: slice) -> Pilot:
        """These trajectories alone."""
        guidance: Any = [of_rows(guidance, rows) for guidance in self.guidance]
        same = all(one is other for one, other in zip(guidance, self.guidance, strict=True))
        pipeline = self.pipeline if same else evolve(self.pipeline, guidance=guidance)
        cond = map_tensors(lambda tensor: tensor[rows], self.cond)
        return evolve(self, pipeline=pipeline, x0=self.x0[rows], ends=self.ends[rows], cond=cond)

    def parts(self, tables: int, held: int) -> Iterator[tuple[slice, Pilot]]:
        """The pilot in parts, so that so many tables of it hold at most `held` numbers at once."""
        size = max(1, min(self.chunk, held // (tables * self.x0[0].numel())))
        for first in range(0, len(self), size):
            rows = slice(first, min(first + size, len(self)))
            yield rows, self if rows.stop - rows.start == len(self) else self.rows(rows)

    def _asked(self, field: Field, x: Tensor, t: Tensor, until: Tensor, kind: Prediction) -> Tensor:
        """Predictions at states x `(V, B, E)` and times `(V,)`, `(V, B, E)`, in batches of at most `chunk` states."""
        several = 1 if self.apart else max(1, self.chunk // len(self))
        answers = [
            self._ask(field, x[v : v + several], t[v : v + several], until[v : v + several], kind)
            for v in range(0, len(x), several)
        ]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _ask(self, field: Field, y: Tensor, t: Tensor, until: Tensor, kind: Prediction) -> Tensor:
        tables, count = len(y), len(self)
        x = y.reshape(tables * count, *self.x0.shape[1:]).to(self.x0.dtype)
        now, then = (time.to(x.device, time_dtype(x.dtype)).repeat_interleave(count) for time in (t, until))
        cond = self.cond
        if tables > 1:
            cond = map_tensors(lambda c: c.repeat(tables, *[1] * (c.ndim - 1)), cond)
        answer: Tensor = field.ask(x, now, cond, (kind,), then)
        return answer.reshape(tables, count, -1).to(torch.float64)


def asked_span(pipeline: Pipeline) -> tuple[float, float]:
    """Within which times tables ask the network."""
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    return field.span({straight_space(pipeline.path)})


def asked_times(pipeline: Pipeline, clocks: Tensor) -> Tensor:
    """The times where tables ask at τ, of any shape; what rounding takes beyond the span is its end."""
    return times_of_clock(pipeline.path, clocks).clamp(*asked_span(pipeline))


def source_states(pipeline: Pipeline, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """Source samples `(B, *D)` as `sample` draws them."""
    device = pipeline.placement[0]
    return BlockGenerator(seed, 0, shape[0], device).draw(
        lambda n, g: pipeline.path.sample_source((n, *shape[1:]), generator=g, dtype=dtype, device=device)
    )


def needs_apart(pipeline: Pipeline, x0: Tensor, cond: Any) -> bool:
    """Whether tables must be run one by one, as `Pilot.apart` says, found by asking for one sample."""
    first = slice(0, 1)
    if any(of_rows(guidance, first) is not guidance for guidance in pipeline.guidance):
        return True
    x0, cond = x0[first], map_tensors(lambda tensor: tensor[first], cond)
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    low, high = field.span({Prediction.DATA})
    until = x0.new_full((1,), high, dtype=torch.float64)
    field.predict(x0, (low + high) / 2, cond, Prediction.DATA, until=until)
    return field.remembers


def closes(pipeline: Pipeline, space: Prediction) -> bool:
    """Whether the data prediction closes the runs of a table of this space."""
    field = Field(pipeline.model, pipeline.path, pipeline.guidance)
    return field.span({space})[1] < 1.0 or bool(declared(pipeline.path, "closing"))


def reference_ends(
    pipeline: Pipeline, x0: Tensor, cond: Any, rough: list[Tensor], chunk: int | None = None
) -> tuple[Tensor, int]:
    """Where a fine reference takes source samples `(B, *D)`, `(B, E)`, float64, and its steps.

    Args:
        pipeline: Whose field is followed.
        x0: Source samples.
        cond: Their condition.
        rough: Where the tables to be beaten take them: two references agree where their median distance is small beside
            the least median error of these.
        chunk: The most states in one call of the network; all of them by default.

    Raises:
        DataError: If more than half of them end nowhere.
    """
    last: Tensor | None = None
    for steps in REFERENCE:
        ends = fine_ends(pipeline, x0, cond, steps, chunk)
        apart = math.inf if last is None else median(distances(ends, last))
        if math.isfinite(apart) and apart <= AGREED * min(median(distances(ends, other)) for other in rough):
            break
        last = ends
    if int(ends.isfinite().all(1).sum()) * 2 <= len(ends):
        raise DataError("most trajectories of the pilot do not end in finite numbers: look at the network's weights")
    return ends, steps


def fine_ends(pipeline: Pipeline, x0: Tensor, cond: Any, steps: int, chunk: int | None = None) -> Tensor:
    """Where the reference of so many steps takes source samples `(B, *D)`, `(B, E)`, float64."""
    fine = pipeline.replace(solver="auto", grid=None)
    return fine.sample(x0=x0, cond=cond, steps=steps, seed=0, throw=False, chunk=chunk).x.flatten(1).to(torch.float64)


def states_of(chunk: int | None, shape: tuple[int, ...]) -> int:
    """The most states in a batch: as asked, else the pilot's, or as many more as make up `ROOM` numbers."""
    return max(shape[0], ROOM // math.prod(shape[1:])) if chunk is None else chunk
