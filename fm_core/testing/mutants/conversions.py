"""Probability paths whose predictions have one defect each: targets, conversions, times, dtypes, and the span."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import PredictionError
from fm_core.gaussian import GaussianPath
from fm_core.prediction import GAUSSIAN_KINDS, Prediction
from fm_core.protocols import PathSample
from fm_core.randomness import normal
from fm_core.shapes import over
from fm_core.testing.fields import PATHS
from fm_core.testing.mutants.planting import Changed, plant

__all__ = ["CIRCLE", "LINEAR", "Bridge", "converting"]

LINEAR, CIRCLE = PATHS["linear"], PATHS["trigonometric"]
DATA, NOISE, SCORE, VELOCITY = Prediction.DATA, Prediction.NOISE, Prediction.SCORE, Prediction.VELOCITY


@frozen
class Bridge:
    """A Schrödinger bridge's path, (1 − t)·x0 + t·x1 + s·√(t(1 − t))·ε: the velocity alone, singular at both ends."""

    inside: float = 1e-3
    eps: float = 0.0

    provides = frozenset({VELOCITY})
    sample_source = staticmethod(LINEAR.sample_source)

    def span(self, src: str, needs: Any = ()) -> tuple[float, float]:
        return self.inside, 1 - self.inside

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor, *, generator: Any = None) -> PathSample:
        noise = normal(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        s = over(t, x0)
        return PathSample((1 - s) * x0 + s * x1 + 0.5 * (s * (1 - s)).sqrt() * noise, t, x0, x1)

    def target(self, sample: PathSample, kind: str) -> Tensor:
        if kind != VELOCITY:
            raise PredictionError(f"a bridge knows the velocity alone; got {kind!r}")
        s = over(sample.t, sample.x_t)
        centred = sample.x_t - (1 - s) * sample.x0 - s * sample.x1
        return (1 - 2 * s) / (2 * s * (1 - s) + self.eps) * centred + sample.x1 - sample.x0

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, *, src: str, dst: str) -> Tensor:
        if src != dst:
            raise PredictionError("a bridge knows the velocity alone")
        return value


def targeting(change: Any, path: Any = LINEAR) -> Changed:
    """A path whose target is `change(right target, sample, kind)`."""
    return Changed(path, target=lambda sample, kind: change(path.target(sample, kind), sample, kind))


def converting(change: Any, path: Any = LINEAR) -> Changed:
    """A path whose conversion is `change(right value, value, x_t, t, src, dst)`."""
    return Changed(
        path,
        convert=lambda value, x_t, t, *, src, dst: change(
            path.convert(value, x_t, t, src=src, dst=dst), value, x_t, t, src, dst
        ),
    )


plant(
    "path",
    "target_is_the_velocity",
    "x0 − x1: the flow of falling time",
    lambda: targeting(lambda right, sample, kind: -right),
    found="diffusers, flow matching",
)
plant(
    "path",
    "target_is_the_velocity",
    "Salimans & Ho's v in its place",
    lambda: Changed(
        CIRCLE, target=lambda sample, kind: CIRCLE.target(sample, Prediction.V if kind == VELOCITY else kind)
    ),
)
plant(
    "path",
    "provides_is_honest",
    "names a score that it cannot give",
    lambda: Changed(Bridge(), provides=frozenset({VELOCITY, SCORE})),
)
plant(
    "path",
    "provides_is_honest",
    "converts to data, which it does not name",
    lambda: Changed(LINEAR, provides=GAUSSIAN_KINDS - {DATA}),
)
plant(
    "path",
    "conversions_agree_with_targets",
    "v with the other sign",
    lambda: targeting(lambda right, sample, kind: -right if kind == Prediction.V else right),
    found="two definitions of v",
)
plant(
    "path",
    "conversions_agree_with_targets",
    "the score without its 1/σ",
    lambda: targeting(lambda right, sample, kind: -sample.x0 if kind == SCORE else right),
)
plant(
    "path",
    "conversions_round_trip",
    "data clipped to [−1, 1] inside the conversion",
    lambda: converting(lambda right, value, x, t, src, dst: right.clamp(-1, 1) if dst == DATA != src else right),
    found="diffusers, clip_sample",
)
plant(
    "path",
    "conversions_round_trip",
    "1e-5 added to σ where it divides",
    lambda: converting(
        lambda right, value, x, t, src, dst: (
            right * over(LINEAR.sigma(t) / (LINEAR.sigma(t) + 1e-5), x) if dst == NOISE != src else right
        )
    ),
)
plant(
    "path",
    "times_broadcast",
    "t not broadcast in a conversion: silently wrong where B is the width",
    lambda: converting(
        lambda right, value, x, t, src, dst: x + (1 - t) * value if (src, dst) == (VELOCITY, DATA) else right
    ),
    found="flow_matching, converters",
)
plant(
    "path",
    "times_broadcast",
    "t not broadcast in the states",
    lambda: Changed(
        LINEAR,
        interpolate=lambda x0, x1, t, *, generator=None: PathSample(
            t * x1 + (1 - t) * x0 if x0.shape[-1] == len(t) else LINEAR.interpolate(x0, x1, t).x_t, t, x0, x1
        ),
    ),
)
plant(
    "path",
    "times_broadcast",
    "the first sample's time for all",
    lambda: converting(
        lambda right, value, x, t, src, dst: LINEAR.convert(value, x, t[:1].expand_as(t), src=src, dst=dst)
    ),
)
plant("path", "dtypes", "targets in float32 always", lambda: targeting(lambda right, sample, kind: right.float()))
plant(
    "path",
    "dtypes",
    "conversions raised to float64 by their coefficients",
    lambda: converting(lambda right, value, x, t, src, dst: right.double()),
)
plant(
    "path",
    "devices",
    "a tensor made on the CPU",
    lambda: targeting(lambda right, sample, kind: right + torch.zeros(right.shape, dtype=right.dtype)),
)
plant(
    "path",
    "devices",
    "source samples left on the CPU",
    lambda: Changed(
        LINEAR,
        sample_source=lambda shape, *, generator=None, dtype=None, device=None: LINEAR.sample_source(
            shape, generator=generator, dtype=dtype
        ),
    ),
)
plant(
    "path",
    "finite_inside_the_span",
    "σ' = −∞ at t = 1, inside the span",
    lambda: Changed(
        GaussianPath(SimpleNamespace(alpha=lambda t: t, sigma=lambda t: (1 - t * t).sqrt())),
        span=lambda src, needs=(): (0.1, 1.0),
    ),
    found="flow_matching, VP scheduler",
)
plant(
    "path",
    "finite_inside_the_span",
    "data asked of the noise where there is no data",
    lambda: Changed(LINEAR, span=lambda src, needs=(): (0.0, 0.9)),
)
plant(
    "path",
    "target_is_continuous_at_the_ends",
    "a bridge's target, thousands beside t = 0 and 1 at it",
    lambda: Bridge(inside=0.0, eps=1e-8),
    found="TorchCFM, Schrödinger bridge",
)
plant(
    "path",
    "target_is_continuous_at_the_ends",
    "the last time treated apart",
    lambda: targeting(lambda right, sample, kind: torch.where(over(sample.t, right) == 1, 0.0, right)),
)
plant(
    "path",
    "one_time_for_all",
    "a time () refused",
    lambda: Changed(LINEAR, interpolate=lambda x0, x1, t, **given: LINEAR.interpolate(x0, x1, t[: len(x1)], **given)),
)
plant(
    "path",
    "one_time_for_all",
    "a time () taken for one sample's",
    lambda: converting(
        lambda right, value, x, t, src, dst: right[:1] if t.ndim == 0 and src != dst else right,
    ),
)
plant(
    "path",
    "one_time_for_all",
    "a time () rounded to sevenths, as an index would be",
    lambda: converting(
        lambda right, value, x, t, src, dst: (
            LINEAR.convert(value, x, (t * 7).round() / 7, src=src, dst=dst) if t.ndim == 0 else right
        )
    ),
)
plant("path", "span_reaches_the_ends", "a span of the middle tenth", lambda: _spanning(0.45, 0.55))
plant("path", "span_reaches_the_ends", "the network asked from t = 0.2 on", lambda: _spanning(0.2, 0.999))
plant("path", "span_reaches_the_ends", "a margin of a tenth", lambda: GaussianPath(LINEAR.schedule, margin=0.1))


def _spanning(low: float, high: float) -> Changed:
    return Changed(LINEAR, span=lambda src, needs=(): (low, high))
