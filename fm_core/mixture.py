"""Gaussian mixtures as data: density, score and every prediction of a Gaussian path in closed form.

Let x1 ~ Σ_k w_k·N(m_k, s_k²·I) and x0 ~ N(0, I), independent, x_t = α·x1 + σ·x0. Then `p_t = Σ_k w_k·N(α·m_k, c_k·I)`
with `c_k = α²·s_k² + σ²`. Given x_t and the component k, (x1, x0) is Gaussian, and a prediction with the row (a, b)
has the mean

    E[a·x1 + b·x0 | x_t, k] = a·m_k + (a·α·s_k² + b·σ)/c_k · (x_t − α·m_k),

and E[p | x_t] is the average over k with the posterior weights r_k(x_t). This is exact at both ends too, where s_k > 0.

References:
    Bishop 2006, Pattern Recognition and Machine Learning, 2.3.1 (conditional Gaussians).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fm_core.field import Field, Model
from fm_core.gaussian import GaussianPath
from fm_core.prediction import Prediction, row
from fm_core.randomness import make_generator
from fm_core.shapes import batch_time

__all__ = ["GaussianMixture"]


def _time(t: Tensor | float, x_t: Tensor) -> Tensor:
    """Time `(B,)`, at least as exact as x_t."""
    t = batch_time(t, x_t)
    return t.to(torch.promote_types(t.dtype, x_t.dtype))


def _float64(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


@frozen(eq=False)
class GaussianMixture:
    """A mixture of isotropic Gaussians over events of any shape D.

    Args:
        means: Means m_k, shape `(K, *D)`.
        stds: Standard deviations s_k > 0, shape `(K,)` or `()`.
        weights: Weights w_k, shape `(K,)`, positive, scaled to sum to 1; equal by default.
    """

    means: Tensor = field(converter=_float64)
    stds: Tensor = field(converter=_float64)
    weights: Tensor = field(factory=lambda: torch.ones(()), converter=_float64)

    def __attrs_post_init__(self) -> None:
        count = self.means.shape[0]
        weights = self.weights.expand(count)
        object.__setattr__(self, "stds", self.stds.expand(count))
        object.__setattr__(self, "weights", weights / weights.sum())

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n samples, shape `(n, *D)`, float64."""
        generator = generator or make_generator()
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn((n, *self.means.shape[1:]), generator=generator, dtype=torch.float64)
        return self.means[k] + noise * self.stds[k].reshape((-1,) + (1,) * (self.means.ndim - 1))

    def log_prob(self, path: GaussianPath, x_t: Tensor, t: Tensor | float) -> Tensor:
        """`log p_t(x_t)`, shape `(B,)`, in the dtype of x_t `(B, *D)`."""
        _, _, log_joint = self._posterior(path, x_t, _time(t, x_t))
        return log_joint.logsumexp(1)

    def predict(self, path: GaussianPath, kind: Prediction, x_t: Tensor, t: Tensor | float) -> Tensor:
        """`E[a·x1 + b·x0 | x_t]` for the row (a, b) of `kind`, shape `(B, *D)`: where matching losses are least."""
        t = _time(t, x_t)
        centred, variance, log_joint = self._posterior(path, x_t, t)
        responsibility = log_joint.softmax(1)
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        if kind == Prediction.SCORE:  # −(x − α·m_k)/c_k: finite where σ = 0, which −noise/σ is not
            mean, gain = torch.zeros_like(alpha), -1 / variance
        else:
            a, b = row(Prediction(kind), alpha, sigma, path.d_alpha(t)[:, None], path.d_sigma(t)[:, None])
            mean, gain = a, (a * alpha * self.stds.to(t).square() + b * sigma) / variance
        of_means = (responsibility * mean.to(x_t)) @ self.means.to(x_t).flatten(1)
        of_centred = ((responsibility * gain.to(x_t))[:, None] @ centred)[:, 0]
        return (of_means + of_centred).reshape(x_t.shape)

    def model(self, path: GaussianPath, predicts: str | Sequence[str] = "velocity") -> Model:
        """A perfectly trained network: a Model that returns the exact predictions on this path."""
        kinds = (predicts,) if isinstance(predicts, str) else tuple(predicts)

        def net(x_t: Tensor, t: Tensor) -> Tensor | tuple[Tensor, ...]:
            outputs = tuple(self.predict(path, Prediction(kind), x_t, t) for kind in kinds)
            return outputs if len(outputs) > 1 else outputs[0]

        return Model(net, predicts=kinds)

    def field(self, path: GaussianPath, predicts: str | Sequence[str] = "velocity") -> Field:
        """The exact field on this path."""
        return Field(self.model(path, predicts), path)

    def _posterior(self, path: GaussianPath, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t − α·m_k `(B, K, D)`, c_k `(B, K)`, and log(w_k·N(x_t; α·m_k, c_k·I)) `(B, K)`."""
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        variance = alpha.square() * self.stds.to(t).square() + sigma.square()
        means = self.means.to(x_t).flatten(1)
        centred = torch.addcmul(x_t.flatten(1)[:, None], alpha.to(x_t)[:, :, None], means, value=-1)
        squares = torch.linalg.vector_norm(centred, dim=2).square()  # in one pass over what is large
        dimension = centred.shape[2]
        log_joint = (
            self.weights.to(x_t).log()
            - 0.5 * squares / variance.to(x_t)
            - 0.5 * dimension * (2 * math.pi * variance.to(x_t)).log()
        )
        return centred, variance, log_joint
