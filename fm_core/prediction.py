"""One algebra of predictions: on a Gaussian path every network prediction is linear, so all convert into each other
by one 2×2 solve.

A prediction is a row `p = a·x1 + b·x0`, and so is the state, `x_t = α·x1 + σ·x0`:

    data (1, 0)    noise (0, 1)    v (−σ, α)    velocity (α', σ')    score = −noise/σ, that is (0, −1/σ)

Conditional expectations given x_t keep the relations. From `src` with row (a, b) to `dst` with row (e, f), with
`det = α·b − σ·a`, Cramer's rule on `x_t = α·x1 + σ·x0` and `p = a·x1 + b·x0` gives
`x1 = (b·x_t − σ·p)/det` and `x0 = (α·p − a·x_t)/det`, hence

    q = e·x1 + f·x0 = m·x_t + k·p,    m = (e·b − f·a)/det,    k = (f·α − e·σ)/det.

A squared error converts by the same k: `‖Δq‖² = k²·‖Δp‖²`, so `w_src = k²·w_dst`.

References:
    Salimans & Ho 2022, Progressive distillation (v). https://arxiv.org/abs/2202.00512
    Kingma & Gao 2023, appendix on weightings. https://arxiv.org/abs/2303.00848
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from fm_core.errors import PredictionError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GAUSSIAN_KINDS", "Prediction", "affine", "as_prediction", "det", "row"]


class Prediction(StrEnum):
    """What a network returns, as an expectation given x_t. A path may add kinds of its own as plain strings."""

    DATA = "data"
    """E[x1 | x_t]"""
    NOISE = "noise"
    """E[x0 | x_t]"""
    SCORE = "score"
    """∇ log p_t(x_t) = −noise/σ, where x0 is Gaussian and independent of x1"""
    V = "v"
    """α·x0 − σ·x1"""
    VELOCITY = "velocity"
    """dx_t/dt = α'·x1 + σ'·x0"""


GAUSSIAN_KINDS: frozenset[Prediction] = frozenset(Prediction)
"""The kinds that a Gaussian path converts."""

_ALIASES = {"eps": Prediction.NOISE, "epsilon": Prediction.NOISE, "x1": Prediction.DATA, "sample": Prediction.DATA}


def as_prediction(kind: str) -> Prediction:
    """The prediction named by `kind`: a member, its value, or an alias (`eps` → noise, `x1` and `sample` → data).

    A string that is none of these but could be a path's own kind (rates, flow maps) comes back as it is: composing
    checks it against `path.provides`.

    >>> as_prediction("eps")
    <Prediction.NOISE: 'noise'>

    Raises:
        PredictionError: For `"x0"`, which means data in DDPM papers and noise here, and for what is not a non-empty
            string.
    """
    if not isinstance(kind, str) or not kind:
        raise PredictionError(f"a prediction is a name such as 'velocity' or 'noise'; got {kind!r}")
    if kind in {"x0", "pred_x0", "x_0"}:
        raise PredictionError(
            f"{kind!r} is ambiguous as a prediction: it means the data in DDPM papers and the noise in flow matching. "
            "Say 'data' (E[x1|x_t]) or 'noise' (E[x0|x_t])."
        )
    if kind in _ALIASES:
        return _ALIASES[kind]
    try:
        return Prediction(kind)
    except ValueError:
        return kind  # type: ignore[return-value]  # a kind of the path's own


def require_gaussian(kind: str) -> Prediction:
    """`kind` as one of the five Gaussian predictions.

    Raises:
        PredictionError: If it is another kind, with the closest known names.
    """
    prediction = as_prediction(kind)
    if prediction not in GAUSSIAN_KINDS:
        raise PredictionError(
            f"a Gaussian path converts data, noise, score, v and velocity; got {kind!r}; "
            f"{did_you_mean(kind, GAUSSIAN_KINDS)}"
        )
    return prediction


def row(kind: Prediction, alpha: Tensor, sigma: Tensor, d_alpha: Tensor, d_sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (a, b) of `p = a·x1 + b·x0` for a kind, each of the shape of the arguments.

    Args:
        kind: One of the five Gaussian predictions.
        alpha, sigma: Schedule at t, any shape.
        d_alpha, d_sigma: Their derivatives by t.
    """
    zero, one = alpha.new_zeros(()).expand_as(alpha), alpha.new_ones(()).expand_as(alpha)
    match kind:
        case Prediction.DATA:
            return one, zero
        case Prediction.NOISE:
            return zero, one
        case Prediction.SCORE:
            return zero, -1 / sigma
        case Prediction.V:
            return -sigma, alpha
        case Prediction.VELOCITY:
            return d_alpha, d_sigma


def det(src: Prediction, alpha: Tensor, sigma: Tensor, d_alpha: Tensor, d_sigma: Tensor) -> Tensor:
    """`α·b − σ·a` for the row (a, b) of `src`: where it is 0, the prediction says nothing that x_t does not."""
    a, b = row(src, alpha, sigma, d_alpha, d_sigma)
    return alpha * b - sigma * a


def affine(
    src: Prediction, dst: Prediction, alpha: Tensor, sigma: Tensor, d_alpha: Tensor, d_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Coefficients (m, k) of `q = m·x_t + k·p` that take a prediction p of kind `src` to q of kind `dst`.

    Args:
        src, dst: Gaussian predictions.
        alpha, sigma, d_alpha, d_sigma: Schedule and its derivatives at t, any one shape, float64 for exactness.

    Returns:
        m and k of that shape. Not finite where the conversion does not exist: the caller keeps inside `path.span`.
    """
    if src == dst:
        return alpha.new_zeros(()).expand_as(alpha), alpha.new_ones(()).expand_as(alpha)
    a, b = row(src, alpha, sigma, d_alpha, d_sigma)
    e, f = row(dst, alpha, sigma, d_alpha, d_sigma)
    determinant = alpha * b - sigma * a
    return (e * b - f * a) / determinant, (f * alpha - e * sigma) / determinant
