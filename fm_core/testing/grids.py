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

COUNTS = (*range(1, 13), 20, 100, 1000)
"""Numbers of steps that are tried; of a grid which refuses them all, those between."""

ENDS = st.one_of(st.just((0.0, 1.0)), st.tuples(st.floats(0.0, 0.45), st.floats(0.55, 1.0)))
ON = st.sampled_from(list(PATHS))
"""Names of the paths on which grids are made."""


def _times(subject: Subject, steps: int, span: tuple[float, float], path: str) -> Tensor | None:
    """A grid, or None where it refuses so many steps over this span, as one of given noise levels does."""
    try:
        times: Any = subject.build().times(PATHS[path], steps, span)
    except TimeError:
        return None
    if not isinstance(times, Tensor) or times.shape != (steps + 1,) or times.dtype != torch.float64:
        got = f"{tuple(times.shape)} of {times.dtype}" if isinstance(times, Tensor) else type(times).__name__
        raise Failed(f"{steps} steps must give ({steps + 1},) float64; got {got}")
    return times


def _counts(subject: Subject) -> list[int]:
    """Numbers of steps that it takes over [0, 1] of the linear path: one alone where its noise levels are given."""
    for counts in (COUNTS, range(13, 100)):
        if taken := [n for n in counts if _times(subject, n, (0.0, 1.0), "linear") is not None]:
            return taken
    raise Failed("over [0, 1] of the linear path it refused every number of steps from 1 to 100, and 1000")


def _steps(subject: Subject) -> st.SearchStrategy[int]:
    return st.sampled_from(_counts(subject))


@check_of("grid")
def count_and_dtype(subject: Subject) -> float:
    """On every path N steps are N + 1 times, float64, on the CPU, all finite; some N is not refused."""

    def error(steps: int, span: tuple[float, float], path: str) -> float:
        times = _times(subject, steps, span, path)
        right = times is None or (times.device.type == "cpu" and bool(times.isfinite().all()))
        return 0.0 if right else 1.0

    what = "not finite, or not on the CPU"
    return worst_of(error, 0.0, what, examples=60, steps=_steps(subject), span=ENDS, path=ON)


@check_of("grid")
def strictly_monotone(subject: Subject) -> float:
    """Times rise strictly over a rising span and fall strictly over a falling one."""

    def error(steps: int, span: tuple[float, float], falling: bool, path: str) -> float:
        times = _times(subject, steps, span[::-1] if falling else span, path)
        if times is None:
            return 0.0
        gaps = times.diff() * (-1 if falling else 1)
        return 0.0 if bool((gaps > 0).all()) else float(-gaps.min()) + 1e-300

    what = "a step stands still, or goes the wrong way, by"
    return worst_of(error, 0.0, what, steps=_steps(subject), span=ENDS, falling=st.booleans(), path=ON, examples=40)


@check_of("grid")
def ends(subject: Subject) -> float:
    """The grid begins and ends where the span does, to the last bit: states live there."""

    def error(steps: int, span: tuple[float, float], path: str) -> float:
        times = _times(subject, steps, span, path)
        return 0.0 if times is None else max(abs(float(times[0]) - span[0]), abs(float(times[-1]) - span[1]))

    return worst_of(
        error, 0.0, "distance of an end from the span's", examples=30, steps=_steps(subject), span=ENDS, path=ON
    )


@check_of("grid")
def whole_interval(subject: Subject) -> float:
    """Over [0, 1], the span where none is given, it is a grid too: no step to a singular end is lost or infinite."""
    steps, worst = _counts(subject)[-1], 0.0
    for path in PATHS:
        times = _times(subject, steps, (0.0, 1.0), path)
        if times is None:
            raise Failed(f"over [0, 1] it takes {steps} steps on the linear path, and refuses them on the {path} one")
        if not torch.equal(times, subject.build().times(PATHS[path], steps)):
            raise Failed(f"on the {path} path it gives another grid without a span than over (0, 1)")
        if not bool((times.diff() > 0).all()):
            raise Failed(f"over [0, 1] of the {path} path it does not rise strictly")
        worst = max(worst, abs(float(times[0])), abs(float(times[-1]) - 1))
    return at_most(worst, 0.0, "distance of an end from 0 or 1")


@check_of("grid")
def falling_is_the_rising_one_reversed(subject: Subject) -> float:
    """Inversion meets the times of sampling: the grid of the falling span is that of the rising one, reversed."""

    def error(steps: int, span: tuple[float, float], path: str) -> float:
        there, back = _times(subject, steps, span, path), _times(subject, steps, span[::-1], path)
        if there is None or back is None:
            return 0.0 if there is back else math.inf
        return float((there.flip(0) - back).abs().max())

    return worst_of(error, 1e-9, "distance between the two", examples=30, steps=_steps(subject), span=ENDS, path=ON)


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
