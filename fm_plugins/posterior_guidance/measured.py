"""A data prediction and its measurement, with their derivatives: what one network call tells about y."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core import Field, Prediction
from fm_core.errors import FMError, ShapeError
from fm_core.gaussian import ZERO
from fm_core.shapes import map_tensors, over

__all__ = ["Measured", "NotDifferentiableError", "measure"]


class NotDifferentiableError(FMError, TypeError):
    """A network or an operator through which no gradient comes back."""


@frozen(eq=False)
class Measured:
    """The data prediction D(x_t) and its measurement A(D), differentiable by x_t.

    Args:
        path: Path of the field.
        x: State that the derivatives are taken by, `(B, *D)`.
        t: Times, `(B,)`.
        until: Times the solver is going to, `(B,)`, or None.
        data: D, `(B, *D)`.
        prediction: A(D), `(B, *M)`.
        residual: y − A(D), `(B, *M)`.
        keep: Whether derivatives are themselves differentiable.
    """

    path: Any
    x: Tensor
    t: Tensor
    until: Tensor | None
    data: Tensor
    prediction: Tensor
    residual: Tensor
    keep: bool

    def adjoint(self, v: Tensor) -> Tensor:
        """Aᵀv at D, from `(B, *M)` to `(B, *D)`."""
        return self._pulled(self.prediction, self.data, v)

    def pullback(self, v: Tensor) -> Tensor:
        """(∂D/∂x_t)ᵀv, `(B, *D)`: one vector–Jacobian product of the network."""
        return self._pulled(self.data, self.x, v)

    def tangent(self, u: Tensor) -> Tensor:
        """Au at D, from `(B, *D)` to `(B, *M)`: the derivative of `w ↦ Aᵀw`, which is linear, pulled back once more."""
        with torch.enable_grad():
            w = torch.zeros_like(self.prediction, requires_grad=True)
            row = torch.autograd.grad(self.prediction, self.data, w, create_graph=True)[0]
            return torch.autograd.grad(row, w, u, retain_graph=True, create_graph=self.keep)[0]

    def schedule(self) -> tuple[Tensor, Tensor]:
        """α and σ at t, float64 `(B,)`."""
        t = self.t.to(torch.float64)
        return self.path.alpha(t), self.path.sigma(t)

    def informed(self, term: Tensor) -> Tensor:
        """The term `(B, *D)`, and 0 where α = 0: there the state says nothing about the data, nor about y."""
        alpha, _ = self.schedule()
        return torch.where(over(alpha, term).abs() < ZERO, 0.0, term)

    def _pulled(self, output: Tensor, by: Tensor, v: Tensor) -> Tensor:
        return torch.autograd.grad(output, by, v, retain_graph=True, create_graph=self.keep)[0]


def measure(
    operator: Callable[[Tensor], Tensor],
    y: Callable[[Tensor], Tensor],
    field: Field,
    x_t: Tensor,
    t: Tensor,
    cond: Any,
    until: Tensor | None,
) -> tuple[Tensor, Measured]:
    """The field's score and its measured data prediction, from one network call.

    Args:
        operator: A, from `(B, *D)` to `(B, *M)`.
        y: Gives the measurements that belong to a prediction `(B, *M)`.
        field: Field inside the guidance.
        x_t: States, `(B, *D)`.
        t: Times, `(B,)`.
        cond: Condition of the field.
        until: The time the solver is going to, `(B,)`.

    Returns:
        The score `(B, *D)`, with no graph unless gradients are on, and the measured prediction.

    Raises:
        NotDifferentiableError: If the prediction does not depend on x_t, or its measurement not on it, in a way that
            can be differentiated.
        ShapeError: If the operator does not keep the batch.
    """
    keep = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        t, until, cond = map_tensors(lambda v: v.clone() if v.is_inference() else v, (t, until, cond))
        x = x_t if keep and x_t.requires_grad else x_t.detach().clone().requires_grad_()
        score, data = field.predict(x, t, cond, Prediction.SCORE, Prediction.DATA, until=until)
        _require_graph(data, "the data prediction does not depend on x_t", "let the network run with gradients on")
        prediction = operator(data)
        if not isinstance(prediction, Tensor) or prediction.ndim < 1 or len(prediction) != len(x):
            got = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
            raise ShapeError(
                f"an operator takes data {tuple(x.shape)} to measurements ({len(x)}, …), each sample for itself; "
                f"got {got}"
            )
        _require_graph(prediction, "the measurement does not depend on the data", "use differentiable operations in A")
        residual = y(prediction) - prediction
    if not keep:
        score, residual = score.detach(), residual.detach()
    return score, Measured(field.path, x, t, until, data, prediction, residual, keep)


def _require_graph(value: Tensor, what: str, fix: str) -> None:
    if not value.requires_grad:
        raise NotDifferentiableError(
            f"{what} in a way that can be differentiated, and posterior guidance follows the gradient of log p(y|x_t); "
            f"{fix} (no torch.no_grad, .detach() or rounding in it)"
        )
