"""Objectives with one defect each: of the regression on the conditional velocity."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.prediction import Prediction
from fm_core.protocols import PathSample
from fm_core.randomness import make_generator
from fm_core.shapes import map_tensors
from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []

VELOCITY, DATA, SCORE = Prediction.VELOCITY, Prediction.DATA, Prediction.SCORE


def _mean(errors: Tensor) -> Tensor:
    return errors.flatten(1).mean(1)


def _squared(answer: Tensor, target: Tensor, sample: PathSample) -> Tensor:
    return _mean((answer - target).square())


def _uniform(path: Any, batch: int, generator: Any, device: Any) -> Tensor:
    return 0.02 + 0.96 * torch.rand(batch, generator=generator, device=device)


def _as_it_is(cond: Any) -> Any:
    return cond


@frozen
class _Matching:
    """The loss `compare(answer, target, sample)` of a kind, at times `draw(path, batch, generator, device)`; the
    network is told `tell(cond)`.
    """

    compare: Any = _squared
    draw: Any = _uniform
    kind: Prediction = VELOCITY
    needs: frozenset[Prediction] = frozenset({VELOCITY})
    tell: Any = _as_it_is

    def sample_time(self, path: Any, batch: int, *, generator: Any = None, device: Any = None) -> Tensor:
        times: Tensor = self.draw(path, batch, generator, device)
        return times

    def loss(self, field: Any, sample: PathSample, cond: Any = None) -> Tensor:
        answer = field.predict(sample.x_t, sample.t, self.tell(cond), self.kind)
        loss: Tensor = self.compare(answer, field.path.target(sample, self.kind), sample)
        return loss


def _loss(compare: Any) -> Any:
    return lambda: _Matching(compare)


def _times(draw: Any) -> Any:
    return lambda: _Matching(draw=draw)


def _telling(tell: Any) -> Any:
    return lambda: _Matching(tell=tell)


class _Both:
    """Data and velocity at once: an objective that needs two kinds."""

    needs = frozenset({VELOCITY, DATA})
    sample_time = staticmethod(_Matching().sample_time)

    def loss(self, field: Any, sample: PathSample, cond: Any = None) -> Tensor:
        u, d = field.predict(sample.x_t, sample.t, cond, VELOCITY, DATA)
        return _squared(u, field.path.target(sample, VELOCITY), sample) + _squared(d, sample.x1, sample)


right("objective", "velocity", _Matching)
right("objective", "data", lambda: _Matching(kind=DATA, needs=frozenset({DATA})))
right("objective", "both", _Both)
right("objective", "weighted", _loss(lambda a, b, s: (1 + s.t) * _squared(a, b, s)))

plant("objective", "builds", "no method loss", lambda: type("Half", (), {"needs": {VELOCITY}, "sample_time": print})())
plant("objective", "builds", "its factory raises", lambda: 1 / 0)
plant("objective", "times", "times up to 1.2", _times(lambda p, n, g, d: 1.2 * torch.rand(n, generator=g)))
plant("objective", "times", "whole indices 0 … 999", _times(lambda p, n, g, d: torch.randint(1000, (n,), generator=g)))
plant(
    "objective",
    "times",
    "one time for the whole batch, of shape ()",
    _times(lambda p, n, g, d: torch.rand((), generator=g)),
)
plant("objective", "one_loss_a_sample", "the mean over the batch", _loss(lambda a, b, s: (a - b).square().mean()))
plant("objective", "one_loss_a_sample", "one loss for every coordinate", _loss(lambda a, b, s: (a - b).square()))
plant("objective", "one_loss_a_sample", "a log-likelihood, negative", _loss(lambda a, b, s: -_squared(a, b, s)))
plant(
    "objective",
    "samples_are_independent",
    "scaled by the batch's largest error",
    _loss(lambda a, b, s: _squared(a, b, s) / (a - b).abs().max()),
)
plant(
    "objective",
    "samples_are_independent",
    "t not broadcast in a weight: wrong where B is the width",
    _loss(lambda a, b, s: _mean((a - b).square() * (1 + s.t[: a.shape[1]] if len(s.t) > 1 else 1))),
)
plant(
    "objective",
    "images_are_rows_of_numbers",
    "the first pixel of images alone",
    _loss(lambda a, b, s: _squared(a, b, s) if a.ndim == 2 else (a - b).flatten(1)[:, 0].square()),
)
plant(
    "objective",
    "images_are_rows_of_numbers",
    "the mean over channels, summed over pixels",
    _loss(lambda a, b, s: (a - b).square().mean(1).reshape(len(a), -1).sum(1)),
)
plant("objective", "condition_reaches_the_network", "the condition dropped", _telling(lambda cond: None))
plant(
    "objective",
    "condition_reaches_the_network",
    "conditions of the neighbours",
    _telling(lambda cond: map_tensors(lambda c: c.roll(1, 0), cond)),
)
plant(
    "objective",
    "condition_reaches_the_network",
    "conditions dropped that are no tensors",
    _telling(lambda cond: cond if isinstance(cond, Tensor) else None),
)
plant(
    "objective", "weights_are_not_negative", "a weight 1 − 2t", _loss(lambda a, b, s: (1 - 2 * s.t) * _squared(a, b, s))
)
plant(
    "objective",
    "weights_are_not_negative",
    "a weight of 0 everywhere",
    _loss(lambda a, b, s: 0 * s.t * _squared(a, b, s)),
)
plant(
    "objective",
    "minimiser_is_the_exact_field",
    "absolute errors: the median",
    _loss(lambda a, b, s: _mean((a - b).abs())),
)
plant(
    "objective",
    "minimiser_is_the_exact_field",
    "a target that is 10 % long",
    _loss(lambda a, b, s: _mean((a - 1.1 * b).square())),
)
plant(
    "objective",
    "minimiser_is_the_exact_field",
    "the flow of falling time, x0 − x1",
    _loss(lambda a, b, s: _mean((a + b).square())),
)
plant(
    "objective",
    "gradient_is_the_marginals",
    "errors weighted by their own size",
    _loss(lambda a, b, s: _squared(a, b, s) * _squared(a, b, s)),
)
plant(
    "objective",
    "gradient_is_the_marginals",
    "weighted by the data's size, which the state does not tell",
    _loss(lambda a, b, s: s.x1.square().sum(1).to(a) * _squared(a, b, s)),
)
plant(
    "objective",
    "exact_field_is_better",
    "maximised in place of minimised",
    _loss(lambda a, b, s: 50 - _squared(a, b, s)),
)
plant(
    "objective",
    "exact_field_is_better",
    "no error along the state",
    _loss(
        lambda a, b, s: _mean(
            (a - b).square() * 0 + (a - b).mean(1, keepdim=True).square() * (s.t > 0.5)[:, None] * (s.t < 0.4)[:, None]
        )
    ),
)
plant(
    "objective",
    "half_precision_is_finite",
    "a sum of squares in float16",
    _loss(lambda a, b, s: (100 * (a - b).half()).square().sum(1)),
)
plant(
    "objective",
    "half_precision_is_finite",
    "divided by 1 − t in the state's dtype",
    _loss(lambda a, b, s: _squared(a, b, s) / (1 - s.t.to(a.dtype)) ** 3 + (1 - s.t.to(a.dtype) ** 100).reciprocal()),
)
plant(
    "objective",
    "gradients_reach_the_prediction",
    "the prediction detached",
    _loss(lambda a, b, s: _squared(a.detach(), b, s)),
)
plant(
    "objective",
    "gradients_reach_the_prediction",
    "an error rounded",
    _loss(lambda a, b, s: _mean((a - b).round().square())),
)
plant("objective", "randomness", "times from torch's global generator", _times(lambda p, n, g, d: torch.rand(n)))
plant(
    "objective",
    "randomness",
    "times from a seed of its own",
    _times(lambda p, n, g, d: torch.rand(n, generator=make_generator(0))),
)
plant(
    "objective",
    "randomness",
    "noise drawn inside the loss",
    _loss(lambda a, b, s: _squared(a + torch.randn(a.shape).to(a), b, s)),
)
