"""Metrics with one defect each: of the energy distance 2·E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fm_core.errors import ShapeError
from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []


def _energy(x: Tensor, y: Tensor) -> float:
    if x.shape[1:] != y.shape[1:]:
        raise ShapeError(f"samples of one shape; got {tuple(x.shape[1:])} and {tuple(y.shape[1:])}")
    x, y = x.double().flatten(1), y.double().flatten(1)
    value = 2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()
    return max(0.0, float(value))


def _metric(change: Any) -> Any:
    """A metric `change(x, y, energy distance)`."""

    def metric(x: Tensor, y: Tensor) -> Any:
        return change(x, y, _energy(x, y))

    return lambda: metric


right("metric", "energy", lambda: _energy)

plant("metric", "builds", "cannot be called", lambda: object())
plant("metric", "builds", "an option that its example does not give", lambda bandwidth: _energy)
plant("metric", "zero_on_equal_sets", "a distance to itself left in", _metric(lambda x, y, d: d + 1 / len(x)))
plant(
    "metric",
    "zero_on_equal_sets",
    "rows compared in their order",
    _metric(lambda x, y, d: float((x[: len(y)] - y[: len(x)]).square().mean())),
)
plant("metric", "a_float_that_is_not_negative", "a tensor", _metric(lambda x, y, d: torch.tensor(d)))
plant(
    "metric",
    "a_float_that_is_not_negative",
    "below 0, with arguments of other names",
    lambda: lambda samples, reference: -_energy(samples, reference) - 1,
)
plant("metric", "a_float_that_is_not_negative", "called with one set", lambda: lambda x: float(x.mean()))
plant("metric", "a_float_that_is_not_negative", "the logarithm", _metric(lambda x, y, d: math.log(d + 1e-3)))
plant(
    "metric",
    "a_float_that_is_not_negative",
    "flat states only",
    _metric(lambda x, y, d: float((x.mean(0) @ y.mean(0)) ** 0 * d)),
)
plant("metric", "symmetric", "relative to the spread of x", _metric(lambda x, y, d: d / float(x.std())))
plant(
    "metric",
    "symmetric",
    "from every x to its nearest y",
    _metric(lambda x, y, d: float(torch.cdist(x.flatten(1), y.flatten(1)).amin(1).mean())),
)
plant(
    "metric",
    "grows_with_the_shift",
    "samples centred first",
    _metric(lambda x, y, d: _energy(x - x.mean(0), y - y.mean(0))),
)
plant(
    "metric", "grows_with_the_shift", "the first coordinate alone", _metric(lambda x, y, d: _energy(x[:, :1], y[:, :1]))
)
plant("metric", "grows_with_the_shift", "cut off at 1", _metric(lambda x, y, d: d * math.exp(-d)))
plant(
    "metric",
    "order_of_samples",
    "later samples weigh more",
    _metric(lambda x, y, d: d + float((x[:, 0].double() * torch.arange(len(x))).mean()) ** 2),
)
plant("metric", "order_of_samples", "the first ten samples only", _metric(lambda x, y, d: _energy(x[:10], y[:10])))
plant(
    "metric",
    "has_a_floor",
    "the means' squared lengths, not their distance",
    _metric(lambda x, y, d: float(x.mean(0).norm() + 1)),
)
plant("metric", "has_a_floor", "a sum over samples in place of the mean", _metric(lambda x, y, d: d * len(x) ** 2))
plant(
    "metric",
    "shapes_that_differ_are_refused",
    "broadcast over shapes that differ",
    lambda: lambda x, y: float((x.mean() - y.mean()).abs()),
)
plant(
    "metric",
    "shapes_that_differ_are_refused",
    "torch's own error",
    lambda: lambda x, y: float((x.mean(0) - y.mean(0)).norm()),
)
plant(
    "metric",
    "randomness",
    "a random half of the samples",
    _metric(lambda x, y, d: _energy(x[torch.randperm(len(x))[: len(x) // 2]], y)),
)
plant(
    "metric",
    "randomness",
    "seeds the global generator",
    _metric(lambda x, y, d: d + 0 * torch.manual_seed(0).initial_seed()),
)
