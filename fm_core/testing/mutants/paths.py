"""Probability paths with one defect each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fm_core.gaussian import GaussianPath
from fm_core.prediction import GAUSSIAN_KINDS, Prediction
from fm_core.protocols import PathSample
from fm_core.randomness import make_generator
from fm_core.shapes import over
from fm_core.testing.mutants.conversions import CIRCLE, LINEAR, Bridge, converting
from fm_core.testing.mutants.planting import Changed, plant, right

__all__: list[str] = []

DATA, NOISE, SCORE, VELOCITY = Prediction.DATA, Prediction.NOISE, Prediction.SCORE, Prediction.VELOCITY


def _schedule(alpha: Any, sigma: Any, **others: Any) -> GaussianPath:
    return GaussianPath(SimpleNamespace(alpha=alpha, sigma=sigma, **others))


right("path", "linear", LINEAR)
right("path", "trigonometric", CIRCLE)
right("path", "autodiff", lambda: _schedule(lambda t: t, lambda t: (1 - t * t).sqrt()))
right("path", "bridge", Bridge)
right("path", "moons_to_data", lambda: GaussianPath(LINEAR.schedule, source=lambda n, g: torch.rand(n, 2, generator=g)))


def _interpolate(weigh: Any, path: Any = LINEAR) -> Any:
    """`interpolate` with the state `weigh(x0, x1, α, σ)`."""

    def interpolate(x0: Tensor, x1: Tensor, t: Tensor, *, generator: Any = None) -> PathSample:
        return PathSample(weigh(x0, x1, over(path.alpha(t), x0), over(path.sigma(t), x0)), t, x0, x1)

    return interpolate


@frozen
class _Mirrored:
    """(1 − t)·x0 − t·x1, without α and σ: it ends at −x1."""

    provides = frozenset({VELOCITY})
    sample_source = staticmethod(LINEAR.sample_source)

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor, *, generator: Any = None) -> PathSample:
        return PathSample(LINEAR.interpolate(x0, -x1, t).x_t, t, x0, x1)

    def target(self, sample: PathSample, kind: str) -> Tensor:
        return -sample.x1 - sample.x0

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, *, src: str, dst: str) -> Tensor:
        return value


plant("path", "builds", "an option that its example does not give", lambda schedule: GaussianPath(schedule))
plant("path", "builds", "no target at all", SimpleNamespace(provides=GAUSSIAN_KINDS, interpolate=LINEAR.interpolate))
plant("path", "ends", "a tenth of noise is left in the data", lambda: _schedule(lambda t: t, lambda t: 1.1 - t))
plant("path", "ends", "the source holds a fifth of data", lambda: _schedule(lambda t: 0.2 + 0.8 * t, lambda t: 1 - t))
plant("path", "ends", "half of the data at t = 1", lambda: _schedule(lambda t: t / 2, lambda t: 1 - t))
plant("path", "ends", "the data's mirror image at t = 1", _Mirrored)
plant(
    "path",
    "log_snr_is_of_the_schedule",
    "log(α/σ) taken for the log-SNR, and its inverse likewise",
    lambda: Changed(
        LINEAR,
        log_snr=lambda t: LINEAR.log_snr(t) / 2,
        t_of_log_snr=lambda log_snr: LINEAR.t_of_log_snr(2 * log_snr),
    ),
)
plant(
    "path",
    "log_snr_is_of_the_schedule",
    "log(σ/α), and its inverse likewise",
    lambda: Changed(
        LINEAR,
        log_snr=lambda t: -LINEAR.log_snr(t),
        t_of_log_snr=lambda log_snr: LINEAR.t_of_log_snr(-log_snr),
    ),
)
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
    plant("path", _check, "the drift of the SDE in place of the velocity of the flow", lambda: converting(_drift))
    plant(
        "path",
        _check,
        "a velocity that runs back",
        lambda: converting(lambda right, value, x, t, src, dst: -right if dst == VELOCITY != src else right),
    )

plant(
    "path",
    "randomness",
    "source samples from torch's global generator",
    lambda: Changed(
        LINEAR, sample_source=lambda shape, *, generator=None, dtype=None, device=None: torch.randn(shape, dtype=dtype)
    ),
)
plant(
    "path",
    "randomness",
    "one source sample for the whole batch",
    lambda: Changed(
        LINEAR,
        sample_source=lambda shape, **given: LINEAR.sample_source((1, *shape[1:]), **given).expand(shape),
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
