"""Probability paths with one defect each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import PredictionError
from fm_core.gaussian import GaussianPath
from fm_core.prediction import GAUSSIAN_KINDS, Prediction
from fm_core.protocols import PathSample
from fm_core.randomness import make_generator, normal
from fm_core.shapes import over
from fm_core.testing.fields import PATHS
from fm_core.testing.mutants.planting import Changed, plant, right

__all__: list[str] = []

LINEAR, CIRCLE = PATHS["linear"], PATHS["trigonometric"]
DATA, NOISE, SCORE, VELOCITY = Prediction.DATA, Prediction.NOISE, Prediction.SCORE, Prediction.VELOCITY


def _schedule(alpha: Any, sigma: Any, **others: Any) -> GaussianPath:
    return GaussianPath(SimpleNamespace(alpha=alpha, sigma=sigma, **others))


@frozen
class _Bridge:
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


right("path", "linear", LINEAR)
right("path", "trigonometric", CIRCLE)
right("path", "autodiff", lambda: _schedule(lambda t: t, lambda t: (1 - t * t).sqrt()))
right("path", "bridge", _Bridge)
right("path", "moons_to_data", lambda: GaussianPath(LINEAR.schedule, source=lambda n, g: torch.rand(n, 2, generator=g)))


def _interpolate(weigh: Any, path: Any = LINEAR) -> Any:
    """`interpolate` with the state `weigh(x0, x1, α, σ)`."""

    def interpolate(x0: Tensor, x1: Tensor, t: Tensor, *, generator: Any = None) -> PathSample:
        return PathSample(weigh(x0, x1, over(path.alpha(t), x0), over(path.sigma(t), x0)), t, x0, x1)

    return interpolate


def _target(change: Any, path: Any = LINEAR) -> Changed:
    """A path whose target is `change(right target, sample, kind)`."""
    return Changed(path, target=lambda sample, kind: change(path.target(sample, kind), sample, kind))


def _convert(change: Any, path: Any = LINEAR) -> Changed:
    """A path whose conversion is `change(right value, value, x_t, t, src, dst)`."""
    return Changed(
        path,
        convert=lambda value, x_t, t, *, src, dst: change(
            path.convert(value, x_t, t, src=src, dst=dst), value, x_t, t, src, dst
        ),
    )


plant("path", "builds", "an option that its example does not give", lambda schedule: GaussianPath(schedule))
plant("path", "builds", "no target at all", SimpleNamespace(provides=GAUSSIAN_KINDS, interpolate=LINEAR.interpolate))
plant("path", "ends", "a tenth of noise is left in the data", lambda: _schedule(lambda t: t, lambda t: 1.1 - t))
plant("path", "ends", "the source holds a fifth of data", lambda: _schedule(lambda t: 0.2 + 0.8 * t, lambda t: 1 - t))
plant(
    "path",
    "states_are_of_the_schedule",
    "x0 and x1 swapped",
    lambda: Changed(LINEAR, interpolate=_interpolate(lambda x0, x1, a, s: a * x0 + s * x1)),
)
plant(
    "path",
    "states_are_of_the_schedule",
    "the variance σ² in place of σ",
    lambda: Changed(LINEAR, interpolate=_interpolate(lambda x0, x1, a, s: a * x1 + s * s * x0)),
)
plant(
    "path",
    "log_snr_rises",
    "time runs from the data to the noise",
    lambda: _schedule(lambda t: 1 - t, lambda t: t),
    found="most diffusion code",
)
plant(
    "path",
    "log_snr_rises",
    "the noise stands still from t = 0.9 on",
    lambda: _schedule(lambda t: t.clamp(max=0.9), lambda t: 1 - t.clamp(max=0.9)),
)
plant("path", "derivatives", "the sign of σ'", lambda: Changed(LINEAR, d_sigma=lambda t: -LINEAR.d_sigma(t)))
plant(
    "path",
    "derivatives",
    "the factor π/2 of a sine forgotten",
    lambda: Changed(CIRCLE, d_alpha=lambda t: CIRCLE.sigma(t), d_sigma=lambda t: -CIRCLE.alpha(t)),
)
plant(
    "path",
    "target_is_the_velocity",
    "x0 − x1: the flow of falling time",
    lambda: _target(lambda right, sample, kind: -right),
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
    lambda: Changed(_Bridge(), provides=frozenset({VELOCITY, SCORE})),
)
plant(
    "path",
    "provides_is_honest",
    "converts to data, which it does not name",
    lambda: Changed(LINEAR, provides=GAUSSIAN_KINDS - {DATA}),
)
plant(
    "path",
    "score_needs_a_gaussian_source",
    "the score, with a uniform source",
    lambda: Changed(
        LINEAR,
        sample_source=lambda shape, *, generator=None, dtype=None, device=None: (
            3**0.5 * (2 * torch.rand(*shape, generator=generator, dtype=dtype) - 1)
        ),
    ),
    found="TorchCFM, TargetConditionalFlowMatcher (issue 126)",
)
plant(
    "path",
    "score_needs_a_gaussian_source",
    "the score, with a source of standard deviation 2",
    lambda: Changed(LINEAR, sample_source=lambda *shape, **given: 2 * LINEAR.sample_source(*shape, **given)),
)
plant(
    "path",
    "conversions_agree_with_targets",
    "v with the other sign",
    lambda: _target(lambda right, sample, kind: -right if kind == Prediction.V else right),
    found="two definitions of v",
)
plant(
    "path",
    "conversions_agree_with_targets",
    "the score without its 1/σ",
    lambda: _target(lambda right, sample, kind: -sample.x0 if kind == SCORE else right),
)
plant(
    "path",
    "conversions_round_trip",
    "data clipped to [−1, 1] inside the conversion",
    lambda: _convert(lambda right, value, x, t, src, dst: right.clamp(-1, 1) if dst == DATA != src else right),
    found="diffusers, clip_sample",
)
plant(
    "path",
    "conversions_round_trip",
    "1e-5 added to σ where it divides",
    lambda: _convert(
        lambda right, value, x, t, src, dst: (
            right * over(LINEAR.sigma(t) / (LINEAR.sigma(t) + 1e-5), x) if dst == NOISE != src else right
        )
    ),
)
plant(
    "path",
    "times_broadcast",
    "t not broadcast in a conversion: silently wrong where B is the width",
    lambda: _convert(
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
    lambda: _convert(
        lambda right, value, x, t, src, dst: LINEAR.convert(value, x, t[:1].expand_as(t), src=src, dst=dst)
    ),
)
plant("path", "dtypes", "targets in float32 always", lambda: _target(lambda right, sample, kind: right.float()))
plant(
    "path",
    "dtypes",
    "conversions raised to float64 by their coefficients",
    lambda: _convert(lambda right, value, x, t, src, dst: right.double()),
)
plant(
    "path",
    "devices",
    "a tensor made on the CPU",
    lambda: _target(lambda right, sample, kind: right + torch.zeros(right.shape, dtype=right.dtype)),
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
    lambda: Changed(_schedule(lambda t: t, lambda t: (1 - t * t).sqrt()), span=lambda src, needs=(): (0.1, 1.0)),
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
    lambda: _Bridge(inside=0.0, eps=1e-8),
    found="TorchCFM, Schrödinger bridge",
)
plant(
    "path",
    "target_is_continuous_at_the_ends",
    "the last time treated apart",
    lambda: _target(lambda right, sample, kind: torch.where(over(sample.t, right) == 1, 0.0, right)),
)
plant(
    "path",
    "inverse_of_the_log_snr",
    "log α/σ taken for twice that",
    lambda: Changed(LINEAR, t_of_log_snr=lambda log_snr: LINEAR.t_of_log_snr(2 * log_snr)),
)
plant(
    "path",
    "inverse_of_the_log_snr",
    "the noise-to-signal ratio taken for its inverse",
    lambda: Changed(LINEAR, t_of_log_snr=lambda log_snr: LINEAR.t_of_log_snr(-log_snr)),
)


def _numpys(x0: Tensor, x1: Tensor, t: Tensor, *, generator: Any = None) -> PathSample:
    noise = np.random.randn(*x0.shape)  # noqa: NPY002
    return PathSample(LINEAR.interpolate(x0, x1, t).x_t + 0.1 * torch.from_numpy(noise), t, x0, x1)


def _drift(right: Tensor, value: Tensor, x: Tensor, t: Tensor, src: str, dst: str) -> Tensor:
    if dst != VELOCITY:
        return right
    strength = over(LINEAR.sigma(t).square() * (1 / t + 1 / (1 - t)), x)
    return right + strength * LINEAR.convert(value, x, t, src=Prediction(src), dst=SCORE)


for _check in ("continuity_equation_of_a_conditional", "continuity_equation_of_a_mixture"):
    plant("path", _check, "the drift of the SDE in place of the velocity of the flow", lambda: _convert(_drift))
    plant(
        "path",
        _check,
        "a velocity that runs back",
        lambda: _convert(lambda right, value, x, t, src, dst: -right if dst == VELOCITY != src else right),
    )

plant(
    "path",
    "randomness",
    "source samples from torch's global generator",
    lambda: Changed(
        LINEAR, sample_source=lambda shape, *, generator=None, dtype=None, device=None: torch.randn(shape, dtype=dtype)
    ),
)
plant("path", "randomness", "noise from numpy's global generator", lambda: Changed(LINEAR, interpolate=_numpys))
plant(
    "path",
    "randomness",
    "a seed of its own in place of the generator",
    lambda: Changed(
        LINEAR,
        sample_source=lambda shape, *, generator=None, dtype=None, device=None: LINEAR.sample_source(
            shape, generator=make_generator(0), dtype=dtype
        ),
    ),
)
