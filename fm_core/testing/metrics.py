"""What every distance between two sets of samples keeps. A metric of other things says `of_samples = False`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fm_core.errors import FMError
from fm_core.floor import floor
from fm_core.randomness import make_generator
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


def _metric(subject: Subject) -> Callable[[Tensor, Tensor], float]:
    metric = subject.build()
    if not getattr(metric, "of_samples", True):
        raise Skipped("it says that it is not called with two sets of samples, metric(x, y)")
    return metric  # type: ignore[no-any-return]


def _unbiased(metric: object) -> bool:
    """Whether it says that it is right on average, and so below 0 at times."""
    return bool(getattr(metric, "unbiased", False))


def _normal(n: int, *event: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *event, generator=make_generator(seed), dtype=torch.float64)


@check_of("metric")
def zero_on_equal_sets(subject: Subject) -> float:
    """A set is at distance 0 from itself, in any order of its samples."""
    metric, x = _metric(subject), _normal(40, 3)
    order = torch.randperm(40, generator=make_generator(1))
    return at_most(max(abs(metric(x, x)), abs(metric(x, x[order]))), 1e-6, "distance of a set from itself")


@check_of("metric")
def a_float_that_is_not_negative(subject: Subject) -> float:
    """It gives a finite float, ≥ 0 unless it says `unbiased`, for sets of other sizes, images, float32 and float64."""
    metric, least = _metric(subject), math.inf
    for event in ((3,), (1, 2, 2)):
        for dtype in (torch.float32, torch.float64):
            value = metric(_normal(30, *event).to(dtype), _normal(20, *event, seed=1).to(dtype))
            if not isinstance(value, float) or not math.isfinite(value):
                raise Failed(f"on events {event} of {dtype} it gave {value!r}: a finite float is expected")
            least = min(least, value)
    if least < 0 and not _unbiased(metric):
        raise Failed(f"a distance is {least:.3g}", least)
    return least


@check_of("metric")
def symmetric(subject: Subject) -> float:
    """The distance from x to y is that from y to x, unless the metric says `symmetric = False`."""
    if not getattr(subject.build(), "symmetric", True):
        raise Skipped("it says that it is not symmetric")
    metric, x, y = _metric(subject), _normal(30, 2), _normal(25, 2, seed=1) + 1
    one, other = metric(x, y), metric(y, x)
    return at_most(abs(one - other) / (abs(one) + abs(other)), 1e-6, "relative difference between the two directions")


@check_of("metric")
def grows_with_the_shift(subject: Subject) -> float:
    """Sets that are moved further apart along any axis are at a larger distance: 0, 1, 2 and 4 standard deviations."""
    metric, x, y = _metric(subject), _normal(60, 2), _normal(60, 2, seed=1)
    least = math.inf
    for axis in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        values = [metric(x, y + shift * torch.tensor(axis)) for shift in (0.0, 1.0, 2.0, 4.0)]
        if values != sorted(values) or values[-1] <= values[0]:
            shown = ", ".join(f"{value:.3g}" for value in values)
            raise Failed(f"shifts of 0, 1, 2 and 4 times {axis} are at the distances {shown}")
        least = min(least, values[-1] - values[0])
    return least


@check_of("metric")
def order_of_samples(subject: Subject) -> float:
    """The order of the samples does not matter."""
    metric, x, y = _metric(subject), _normal(30, 2), _normal(30, 2, seed=1)
    order = torch.randperm(30, generator=make_generator(2))
    return at_most(abs(metric(x[order], y) - metric(x, y)), 1e-9, "another order changes it by")


@check_of("metric")
def has_a_floor(subject: Subject) -> float:
    """Between independent draws of one law it is well below the distance to another law, and falls with n."""
    metric = _metric(subject)
    few, many = (
        floor(metric, lambda n, g: torch.randn(n, 2, generator=g), n, draws=6, generator=make_generator(0)).mean
        for n in (40, 400)
    )
    apart = metric(_normal(400, 2), 2 * _normal(400, 2, seed=1) + 2)
    if not many < few and not _unbiased(metric):
        raise Failed(f"the floor is {few:.3g} with 40 samples and {many:.3g} with 400", many)
    return at_most(many / apart, 0.5, "the floor over the distance of two laws")


@check_of("metric")
def shapes_that_differ_are_refused(subject: Subject) -> None:
    """Sets of different event shapes are refused with one of this library's errors, not broadcast."""
    metric = _metric(subject)
    try:
        metric(_normal(5, 3), _normal(5, 2))
    except FMError:
        return
    raise Failed("samples of 3 and of 2 numbers were compared")


@check_of("metric")
def randomness(subject: Subject) -> None:
    """Equal samples give an equal figure, and no global random state is touched."""
    metric, x, y = _metric(subject), _normal(30, 2), _normal(30, 2, seed=1)
    global_randomness(lambda: torch.tensor(metric(x, y)))
    if metric(x, y) != metric(x, y):
        raise Failed("two calls on the same samples differ")
