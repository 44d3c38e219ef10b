"""Weights of a loss over time, by name, and stated once for all kinds of prediction.

One network on one path errs in proportion: seen as a prediction of kind K its error is `Δ_K = det_K·δ`, with the
determinant `det_K = α·b − σ·a` of the row (a, b) and one δ for all kinds: ∓σ for data, α for noise, −α/σ for score,
α² + σ² for v. So a weight stated for kind X is one for kind K,

    w_K = (det_X/det_K)²·w_X,

the k² rule of `fm_core.prediction`, and every weighting is one function of time, `W = w_K·det_K²`:

    simple           1 on the noise                          W = α²
    snr              α²/σ² on the data: the same             W = α²
    truncated_snr    max(SNR, 1) on the data                 W = max(α², σ²)
    snr_plus_one     SNR + 1 on the data                     W = α² + σ²
    min_snr          min(SNR, γ) on the data                 W = min(α², γσ²)
    edm              (s² + s_d²)/(s·s_d)² on the data        W = α² + σ²/s_d²,   s = σ/α
    sigmoid          sigmoid(b − λ)·dλ/dt on the noise       W = α²·sigmoid(b − λ)·λ',   λ = 2·log(α/σ)
    likelihood       g² on the score                         W = α²·λ',   g² = σ²·λ'

and `uniform`, 1 on whatever is matched. The first six do not depend on the speed of the path; how often a noise level
is seen is decided by the times. `sigmoid` is Kingma & Gao's weight *per log-SNR* and so has the density dλ/dt of
uniform times in it; `per="time"` leaves it out, for times drawn uniformly in log-SNR and for codes that leave it out.

References:
    Salimans & Ho 2022, section 4 (snr, truncated, plus one). https://arxiv.org/abs/2202.00512
    Hang et al. 2023 (min-SNR-γ). https://arxiv.org/abs/2303.09556
    Karras et al. 2022, Table 1 (EDM). https://arxiv.org/abs/2206.00364
    Kingma & Gao 2023, equation 3 and section 5 (sigmoid). https://arxiv.org/abs/2303.00848
    Song et al. 2021, Maximum likelihood training of score-based models. https://arxiv.org/abs/2101.09258
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fm_core.errors import PredictionError
from fm_core.named import by_name
from fm_core.prediction import Prediction, as_prediction, det, require_gaussian

__all__ = ["Weighting", "WeightingLike", "as_weighting"]


def _kind(kind: str | None) -> Prediction | None:
    return None if kind is None else as_prediction(kind)


@frozen
class Weighting:
    """A weight stated for the squared error of one kind of prediction.

    Args:
        kind: The kind; None: whatever is matched.
        function: The weight, `function(path, t) -> (B,)`, ≥ 0, finite inside the span.
        exists: Predictions that must exist at the times in which it is finite: training stays in their span.
    """

    kind: Prediction | None = field(converter=_kind)
    function: Callable[[Any, Tensor], Tensor]
    exists: frozenset[Prediction] = frozenset()

    def __call__(self, path: Any, t: Tensor, kind: Prediction) -> Tensor:
        """The weight on the squared error of `kind` at times t `(B,)`, `(det_X/det_K)²·w_X`, shape `(B,)`, in float64
        where the weight was stated for another kind.

        Raises:
            PredictionError: If the weight must be converted, and the path or the kind is not Gaussian.
        """
        if self.kind is None or self.kind == kind:
            return self.function(path, t)
        if not hasattr(path, "alpha") or not hasattr(path, "sigma"):
            raise PredictionError(
                f"a weight stated for {str(self.kind)!r} is one for {str(kind)!r} on Gaussian paths alone, and "
                f"{type(path).__name__} has no α and σ. Use such a path, the weight 'uniform', or a function of t"
            )
        t = t.to(torch.float64)
        return (_det(path, t, self.kind) / _det(path, t, kind)).square() * self.function(path, t)


def _det(path: Any, t: Tensor, kind: Prediction) -> Tensor:
    """How large an error is in this kind."""
    kind, alpha, sigma = require_gaussian(kind), path.alpha(t), path.sigma(t)
    if kind is Prediction.VELOCITY:
        return det(kind, alpha, sigma, path.d_alpha(t), path.d_sigma(t))
    return det(kind, alpha, sigma, alpha, sigma)  # the others do not look at the derivatives


def simple() -> Weighting:
    """1 on the noise: DDPM's simple loss, λ = σ² on the score, the SNR on the data."""
    return Weighting(Prediction.NOISE, _one)


def truncated_snr() -> Weighting:
    """max(SNR, 1) on the data: the larger of the errors of data and noise (Salimans & Ho 2022)."""
    return Weighting(Prediction.V, _truncated_snr)


def snr_plus_one() -> Weighting:
    """SNR + 1 on the data: 1 on v where α² + σ² = 1 (Salimans & Ho 2022)."""
    return Weighting(Prediction.V, _snr_plus_one)


def min_snr(gamma: float = 5.0) -> Weighting:
    """min(SNR, γ) on the data (Hang et al. 2023).

    Args:
        gamma: γ > 0, a signal-to-noise ratio α²/σ².
    """
    return Weighting(Prediction.V, partial(_min_snr, gamma=_positive("gamma", gamma)))


def edm(sigma_data: float = 0.5) -> Weighting:
    """`(s² + s_d²)/(s·s_d)²` on the data, s = σ/α: 1 on the output of the preconditioned network (Karras et al. 2022).

    Args:
        sigma_data: Standard deviation s_d of the data.
    """
    return Weighting(Prediction.V, partial(_edm, sigma_data=_positive("sigma_data", sigma_data)))


def sigmoid(bias: float = 0.0, per: str = "log_snr") -> Weighting:
    """`sigmoid(b − λ)` on the noise, λ the log-SNR (Kingma & Gao 2023).

    Args:
        bias: b: noise levels with λ > b count less and less.
        per: `"log_snr"`: the loss is `∫ sigmoid(b − λ)·E‖Δε‖² dλ` at uniform times, the paper's, so the weight has the
            factor dλ/dt; other times multiply it by their density. `"time"`: without the factor.
    """
    if per not in {"log_snr", "time"}:
        raise ValueError(f"per must be 'log_snr' or 'time', the measure that the weight presumes; got {per!r}")
    exists = frozenset({Prediction.VELOCITY} if per == "log_snr" else ())
    return Weighting(Prediction.V, partial(_sigmoid, bias=float(bias), per_log_snr=per == "log_snr"), exists)


def likelihood() -> Weighting:
    """g² = σ²·dλ/dt on the score, dλ/dt on the noise: at uniform times a bound on the likelihood (Song et al. 2021).

    It grows without bound where σ → 0, so the times stay where the score exists.
    """
    return Weighting(Prediction.V, _likelihood, frozenset({Prediction.SCORE, Prediction.VELOCITY}))


def _one(path: Any, t: Tensor) -> Tensor:
    return torch.ones_like(t)


# On v, W/(α² + σ²)², which is finite at both ends.


def _truncated_snr(path: Any, t: Tensor) -> Tensor:
    signal, noise = _squares(path, t)
    return torch.maximum(signal, noise) / (signal + noise).square()


def _snr_plus_one(path: Any, t: Tensor) -> Tensor:
    signal, noise = _squares(path, t)
    return 1 / (signal + noise)


def _min_snr(path: Any, t: Tensor, *, gamma: float) -> Tensor:
    signal, noise = _squares(path, t)
    return torch.minimum(signal, gamma * noise) / (signal + noise).square()


def _edm(path: Any, t: Tensor, *, sigma_data: float) -> Tensor:
    signal, noise = _squares(path, t)
    return (signal + noise / sigma_data**2) / (signal + noise).square()


def _sigmoid(path: Any, t: Tensor, *, bias: float, per_log_snr: bool) -> Tensor:
    """`sigmoid(b − λ)` is `σ²/(σ² + e^{−b}·α²)`, and α·σ·λ' is finite: their product has no 0/0."""
    signal, noise = _squares(path, t)
    share = 1 / (noise + math.exp(-bias) * signal)
    strength = (signal * noise).sqrt() * _speed(path, t) if per_log_snr else signal * noise
    return strength * share / (signal + noise).square()


def _likelihood(path: Any, t: Tensor) -> Tensor:
    signal, noise = _squares(path, t)
    return (signal / noise).sqrt() * _speed(path, t) / (signal + noise).square()


def _squares(path: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """α² and σ²."""
    t = t.to(torch.float64)
    return path.alpha(t).square(), path.sigma(t).square()


def _speed(path: Any, t: Tensor) -> Tensor:
    """`α·σ·λ' = 2·(α'·σ − α·σ')`."""
    t = t.to(torch.float64)
    speed: Tensor = 2 * (path.d_alpha(t) * path.sigma(t) - path.alpha(t) * path.d_sigma(t))
    return speed


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be above 0; got {value}")
    return float(value)


_KNOWN: dict[str, Callable[..., Weighting | None]] = {
    "uniform": lambda: None,
    "simple": simple,
    "snr": simple,
    "truncated_snr": truncated_snr,
    "snr_plus_one": snr_plus_one,
    "min_snr": min_snr,
    "edm": edm,
    "sigmoid": sigmoid,
    "likelihood": likelihood,
}

WeightingLike = str | Mapping[str, Any] | Weighting | Callable[[Any, Tensor], Tensor] | None


def as_weighting(value: WeightingLike) -> Weighting | None:
    """A weighting from its name, a mapping `{"name": …, **options}`, a function `weight(path, t) -> (B,)` of what is
    matched, or itself; None is 1.

    Raises:
        UnknownNameError: For an unknown name.
        TypeError: For options that it does not take, and for what is none of these.

    >>> as_weighting("simple").kind
    <Prediction.NOISE: 'noise'>
    """
    if value is None or isinstance(value, Weighting):
        return value
    if isinstance(value, str | Mapping):
        return by_name(value, _KNOWN, "weighting")  # type: ignore[no-any-return]
    if not callable(value):
        raise TypeError(
            f"a weight is a name ({', '.join(_KNOWN)}), a mapping {{'name': …, **options}}, a function of (path, t), "
            f"or None; got {value!r}"
        )
    return Weighting(None, value)
