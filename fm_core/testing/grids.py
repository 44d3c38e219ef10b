"""What every time grid keeps: its count, its ends, its order, and its way back."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from fm_core.errors import TimeError
from fm_core.testing.fields import PATHS
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of, worst_of

__all__: list[str] = []

STEPS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 100])
ENDS = st.one_of(st.just((0.0, 1.0)), st.tuples(st.floats(0.0, 0.45), st.floats(0.55, 1.0)))


def _times(subject: Subject, steps: int, span: tuple[float, float]) -> Tensor | None:
    """A grid, or None where it refuses so many steps over this span, as one of given noise levels does."""
    try:
        times: Any = subject.build().times(PATHS["linear"], steps, span)
    except TimeError:
        return None
    if not isinstance(times, Tensor) or times.shape != (steps + 1,) or times.dtype != torch.float64:
        got = f"{tuple(times.shape)} of {times.dtype}" if isinstance(times, Tensor) else type(times).__name__
        raise Failed(f"{steps} steps must give ({steps + 1},) float64; got {got}")
    return times


@check_of("grid")
def count_and_dtype(subject: Subject) -> float:
    """N steps are N + 1 times, float64, on the CPU, all finite; some N is not refused."""
    made = 0

    def error(steps: int, span: tuple[float, float]) -> float:
        nonlocal made
        times = _times(subject, steps, span)
        if times is None:
            return 0.0
        made += 1
        return 0.0 if times.device.type == "cpu" and bool(times.isfinite().all()) else 1.0

    worst = worst_of(error, 0.0, "not finite, or not on the CPU", examples=60, steps=STEPS, span=ENDS)
    if not made:
        raise Failed("it refused every number of steps from 1 to 12, and 20 and 100, over many spans")
    return worst


@check_of("grid")
def strictly_monotone(subject: Subject) -> float:
    """Times rise strictly over a rising span and fall strictly over a falling one."""

    def error(steps: int, span: tuple[float, float], falling: bool) -> float:
        times = _times(subject, steps, span[::-1] if falling else span)
        if times is None:
            return 0.0
        gaps = times.diff() * (-1 if falling else 1)
        return 0.0 if bool((gaps > 0).all()) else float(-gaps.min()) + 1e-300

    what = "a step stands still, or goes the wrong way, by"
    return worst_of(error, 0.0, what, steps=STEPS, span=ENDS, falling=st.booleans(), examples=40)


@check_of("grid")
def ends(subject: Subject) -> float:
    """The grid begins and ends where the span does, to the last bit: states live there."""

    def error(steps: int, span: tuple[float, float]) -> float:
        times = _times(subject, steps, span)
        return 0.0 if times is None else max(abs(float(times[0]) - span[0]), abs(float(times[-1]) - span[1]))

    return worst_of(error, 0.0, "distance of an end from the span's", steps=STEPS, span=ENDS)


@check_of("grid")
def whole_interval(subject: Subject) -> float:
    """Over [0, 1], the span where none is given, it is a grid too: no step to a singular end is lost or infinite."""
    steps = next((n for n in (10, *range(1, 13)) if _times(subject, n, (0.0, 1.0)) is not None), None)
    if steps is None:
        raise Failed("over [0, 1] it refused every number of steps from 1 to 12")
    times, default = _times(subject, steps, (0.0, 1.0)), subject.build().times(PATHS["linear"], steps)
    if times is None or not torch.equal(times, default):
        raise Failed("without a span it gives another grid than over (0, 1)")
    if not bool((times.diff() > 0).all()):
        raise Failed("over [0, 1] it does not rise strictly")
    return at_most(max(abs(float(times[0])), abs(float(times[-1]) - 1)), 0.0, "distance of an end from 0 or 1")


@check_of("grid")
def falling_is_the_rising_one_reversed(subject: Subject) -> float:
    """Inversion meets the times of sampling: the grid of the falling span is that of the rising one, reversed."""

    def error(steps: int, span: tuple[float, float]) -> float:
        there, back = _times(subject, steps, span), _times(subject, steps, span[::-1])
        if there is None or back is None:
            return 0.0 if there is back else math.inf
        return float((there.flip(0) - back).abs().max())

    return worst_of(error, 1e-9, "distance between the two", steps=STEPS, span=ENDS)


@check_of("grid")
def shift_is_applied_once(subject: Subject) -> float:
    """With an option `shift` the noise levels 1 − t are k·s/(1 + (k − 1)·s) of N equal steps in s, for shift = k.

    Applied twice it would be the grid of shift = k², with a last step nearly wasted.
    """
    if not subject.takes("shift"):
        raise Skipped("it is not built with an option shift")
    worst = 0.0
    for k in (1.0, 3.0, 0.5):
        s = torch.linspace(1, 0, 11, dtype=torch.float64)
        times = subject.build(shift=k).times(PATHS["linear"], 10, (0.0, 1.0))
        worst = max(worst, float((1 - times - k * s / (1 + (k - 1) * s)).abs().max()))
    return at_most(worst, 1e-9, "a noise level is off from the shifted one by")
