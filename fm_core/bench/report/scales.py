"""Logarithmic axes: how far they reach, where they have ticks, and labels beside them that keep apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["log_span", "spread", "ticks"]

LEAST, MOST = 1e-260, 1e260
"""What an axis reaches at most, with room at both ends for what a float holds."""


def log_span(values: Sequence[float]) -> tuple[float, float]:
    """From below the least value to above the greatest, by a twentieth of their decades, at least a tenth of one.

    >>> log_span([1.0, 100.0]) == (10**-0.1, 10**2.1)
    True
    >>> log_span([0.1, math.inf]) < (0.1, math.inf)
    True
    """
    low, high = (math.log10(_reached(end)) for end in (min(values), max(values)))
    room = max(0.05 * (high - low), 0.1)
    return 10 ** (low - room), 10 ** (high + room)


def ticks(span: tuple[float, float]) -> list[float]:
    """Round numbers within a span, at least four where there are so many: as round as can be.

    >>> ticks((0.8, 30.0)), ticks((1e-5, 1.0)), ticks((0.07, 0.14))
    ([1.0, 3.0, 10.0, 30.0], [1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0], [0.08, 0.1, 0.12, 0.14])
    """
    low, high = map(_reached, span)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    coarse = [((1.0,), every) for every in range(len(decades), 0, -1)]
    found: list[float] = []
    for digits, every in (*coarse, *((digits, 1) for digits in _DIGITS)):
        found = [float(f"{digit}e{n}") for n in decades if n % every == 0 for digit in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 4:
            break
    return found


def _reached(end: float) -> float:
    return min(max(end, LEAST), MOST)


_DIGITS: tuple[tuple[float, ...], ...] = (
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8),
)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights as near to the wanted ones as can be, at least `gap` apart, between `low` and `high` where they fit.

    Heights that are too near form a block, which lies around the mean of what they want (pool adjacent violators: the
    least squares under the constraint).

    >>> spread([10.0, 10.0, 50.0], 10.0, 0.0, 100.0)
    [5.0, 15.0, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    blocks: list[tuple[float, int]] = []  # mean of the wanted heights less their offsets, and how many
    for rank, i in enumerate(order):
        mean, size = wanted[i] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        blocks.append((mean, size))
    flat = [mean for mean, size in blocks for _ in range(size)]
    last = high - (len(wanted) - 1) * gap
    places = [0.0] * len(wanted)
    for rank, (i, mean) in enumerate(zip(order, flat)):
        places[i] = min(max(mean, low), last) + rank * gap
    return places
