"""The one construction behind every grid here: equally spaced u, warped.

t_i = w(u_i),   u_i = w⁻¹(a) + i/N·(w⁻¹(b) − w⁻¹(a)),   i = 0 … N
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fm_core.errors import TimeError

__all__ = ["check_span", "warped"]


def warped(
    warp: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor], steps: int, span: tuple[float, float]
) -> Tensor:
    """Times that are equally spaced before an increasing warp of [0, 1] onto itself.

    Args:
        warp: The map w, elementwise on float64.
        inverse: Its inverse.
        steps: Number of steps N.
        span: First and last time, in [0, 1]; falling to invert.

    Returns:
        Grid `(N + 1,)`, float64 on the CPU, whose ends are `span` exactly and which is strictly monotone.

    Raises:
        TimeError: If there is no step to take, the span is empty or leaves [0, 1], or steps are too short for float64.
    """
    low, high = check_span(steps, span)
    start, end = float(span[0]), float(span[1])
    u_low, u_high = inverse(torch.tensor([low, high], dtype=torch.float64, device="cpu")).tolist()
    times = warp(torch.linspace(u_low, u_high, steps + 1, dtype=torch.float64, device="cpu"))
    # w(w⁻¹(a)) is a only up to rounding, and the solver's state lives exactly at a.
    times[0], times[-1] = low, high
    if not times.diff().gt(0).all():
        raise TimeError(
            f"{steps} steps from {start:.17g} to {end:.17g} are not distinct in float64 on this grid: "
            "the shortest are below its resolution; take fewer steps, a longer span or a milder grid"
        )
    return times if start < end else times.flip(0)


def check_span(steps: int, span: tuple[float, float]) -> tuple[float, float]:
    """The span's lower and upper end.

    Raises:
        TimeError: If there is no step to take, or the span is empty or leaves [0, 1].
    """
    if not isinstance(steps, int) or steps < 1:
        raise TimeError(f"a grid has a whole number of steps, at least 1; got steps={steps!r}")
    start, end = float(span[0]), float(span[1])
    if not (0.0 <= start <= 1.0 and 0.0 <= end <= 1.0):
        raise TimeError(f"a grid's span lies in [0, 1], from source to data; got ({start:.6g}, {end:.6g})")
    if start == end:
        raise TimeError(f"a grid's span rises to sample or falls to invert; got ({start:.6g}, {end:.6g})")
    return min(start, end), max(start, end)
