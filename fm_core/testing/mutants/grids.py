"""Time grids with one defect each."""

from __future__ import annotations

import math
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []


@frozen
class _Grid:
    """Times w(u) of equal steps in u, over any span, changed by `after(times, low, high)`."""

    w: Any = None
    after: Any = None
    dtype: torch.dtype = torch.float64

    def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        low, high = sorted(span)
        u = torch.linspace(0, 1, steps + 1, dtype=self.dtype)
        times = low + (high - low) * (u if self.w is None else self.w(u))
        times[0], times[-1] = low, high
        if self.after is not None:
            times = self.after(times, low, high)
        return times if span[0] < span[1] else times.flip(0)


def _shift(shift: float) -> Any:
    return lambda u: u / (u + shift * (1 - u))


def _twice(shift: float) -> Any:
    return lambda u: _shift(shift)(_shift(shift)(u))


def _moved(index: int, by: float) -> Any:
    def after(times: Tensor, low: float, high: float) -> Tensor:
        times = times.clone()
        times[index] += by
        return times

    return after


@frozen
class _LinearAlone:
    """A grid that is right on the linear path, and spoiled by `elsewhere(times)` on others."""

    elsewhere: Any

    def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        times = _Grid().times(path, steps, span)
        linear = abs(float(path.alpha(torch.tensor(0.5))) - 0.5) < 1e-6
        spoiled: Tensor = times if linear else self.elsewhere(times)
        return spoiled


@frozen
class _Falling:
    """A grid that does not know of falling spans: `times(path, steps, span)` by `rule(low, high, steps)`."""

    rule: Any
    default: tuple[float, float] = (0.0, 1.0)

    def times(self, path: Any, steps: int, span: tuple[float, float] | None = None) -> Tensor:
        made: Tensor = self.rule(*(self.default if span is None else span), torch.linspace(0, 1, steps + 1).double())
        return made


right("grid", "uniform", _Grid)
right("grid", "quadratic", lambda: _Grid(lambda u: 1 - (1 - u).square()))
right("grid", "shift", lambda shift=3.0: _Grid(_shift(shift)))

plant("grid", "builds", "no method times", lambda: object())
plant("grid", "builds", "its factory raises", lambda: 1 / 0)
plant("grid", "count_and_dtype", "N times for N steps", lambda: _Grid(after=lambda t, low, high: t[:-1]))
plant("grid", "count_and_dtype", "times in float32", lambda: _Grid(dtype=torch.float32))
plant(
    "grid",
    "count_and_dtype",
    "not a number but on the linear path",
    lambda: _LinearAlone(lambda times: times * math.nan),
)
plant("grid", "ends", "off by 1e-7 but on the linear path", lambda: _LinearAlone(lambda times: times + 1e-7))
plant(
    "grid",
    "strictly_monotone",
    "rounded to hundredths: of 1000 steps most stand still",
    lambda: _Grid(
        after=lambda t, low, high: t if len(t) < 150 else torch.cat([t[:1], t[1:-1].round(decimals=2), t[-1:]])
    ),
)
plant(
    "grid",
    "strictly_monotone",
    "the first two times are one",
    lambda: _Grid(after=lambda t, low, high: torch.cat([t[:1], t[:1], t[2:]]) if len(t) > 2 else t),
)
plant(
    "grid",
    "strictly_monotone",
    "times rounded to whole steps of 20",
    lambda: _Grid(after=lambda t, low, high: (t * 20).round() / 20),
    found="whole timesteps",
)
plant("grid", "ends", "the last time is a step before the end", lambda: _Grid(lambda u: u, _moved(-1, -1e-3)))
plant(
    "grid",
    "ends",
    "times 1e-5 inside [0, 1], wherever the span is",
    lambda: _Grid(after=lambda t, low, high: t.clamp(1e-5, 1 - 1e-5)),
)
plant(
    "grid",
    "whole_interval",
    "another span by default",
    lambda: _Falling(lambda a, b, u: a + (b - a) * u, default=(1e-3, 1.0)),
)
plant(
    "grid",
    "whole_interval",
    "equal steps of log t: none from t = 0",
    lambda: _Falling(lambda a, b, u: (b / a) ** u * a if a else u * 0),
)
plant(
    "grid",
    "falling_is_the_rising_one_reversed",
    "a falling span warped from its own start",
    lambda: _Falling(lambda a, b, u: a + (b - a) * u.square()),
)
plant(
    "grid",
    "falling_is_the_rising_one_reversed",
    "a falling span refused by a rising grid",
    lambda: _Falling(lambda a, b, u: min(a, b) + abs(b - a) * u),
)
plant(
    "grid",
    "shift_is_applied_once",
    "the shift applied twice",
    lambda shift=3.0: _Grid(_twice(shift)),
    found="diffusers, flow-match Euler (issue 13243)",
)
plant(
    "grid",
    "shift_is_applied_once",
    "equal steps to a thousandth before the end, the last one wasted",
    lambda shift=3.0: _Grid(lambda u: _shift(shift)(torch.cat([torch.linspace(0, 0.999, len(u) - 1).to(u), u[-1:]]))),
    found="diffusers, flow-match Euler",
)
plant("grid", "shift_is_applied_once", "the shift by the inverse factor", lambda shift=3.0: _Grid(_shift(1 / shift)))
