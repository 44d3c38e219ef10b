"""The form of all posterior guidances: `score + s·(∂D/∂x_t)ᵀ·Aᵀ·v`, where a method says what v is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import Field, Prediction
from fm_core.building import OptionError
from fm_core.errors import ShapeError
from fm_core.guiding import Scale, is_scale, scale_at
from fm_plugins.posterior_guidance.measured import Measured, measure

__all__ = ["PosteriorGuidance", "positive", "whole"]

Weigh = Callable[[Measured], Tensor]
"""What y − A(D) weighs, v of shape `(B, *M)`."""


def _measurement(y: Any) -> Tensor:
    try:
        made: Tensor = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"y is a tensor of measurements, (B, *M) or one for all; got {type(y).__name__}") from error
    return made if made.is_floating_point() else made.to(torch.get_default_dtype())


def positive(name: str, value: Any, *, zero: bool = False) -> float:
    """The option as a float > 0 (≥ 0 with `zero`).

    Raises:
        OptionError: If it is none.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool) and (value > 0 or (zero and value == 0))
    if not good or value == float("inf"):
        raise OptionError(f"{name} is a finite number {'≥' if zero else '>'} 0; got {value!r}")
    return float(value)


def whole(iterations: Any) -> int:
    """The number of iterations, ≥ 1.

    Raises:
        OptionError: If it is none.
    """
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise OptionError(f"iterations is a whole number ≥ 1; got {iterations!r}")
    return iterations


@frozen(eq=False)
class PosteriorGuidance:
    """Adds the gradient of an approximate log p(y|x_t) to the score.

    Args:
        y: Measurements `(B, *M)`, or one of shape `(*M)` for all samples.
        operator: A, from data `(B, *D)` to measurements `(B, *M)`, each sample for itself, differentiable.
        weigh: The method: v for a measured prediction.
        scale: s: a number, `(B,)`, or a function of the log-SNR. 1 is Bayes' rule, 0 is off.

    Raises:
        OptionError: For measurements that are not finite, or an operator that cannot be called.
    """

    y: Tensor = attribute(converter=_measurement)
    operator: Callable[[Tensor], Tensor] = attribute()
    weigh: Weigh
    scale: Scale = attribute(default=1.0, validator=is_scale)
    rows: tuple[slice | Tensor, ...] = attribute(default=(), repr=False)
    """The samples meant, of those that y has."""

    needs = frozenset({Prediction.SCORE, Prediction.DATA})
    acts_on = Prediction.SCORE
    layer = 1

    @y.validator
    def _finite(self, _: object, y: Tensor) -> None:
        if not y.isfinite().all():
            raise OptionError(
                f"y has {int((~y.isfinite()).sum())} entries that are not finite; leave unmeasured places out in the "
                "operator, as by operator=lambda x: x[:, measured]"
            )

    @operator.validator
    def _callable(self, _: object, operator: object) -> None:
        if not callable(operator) or isinstance(operator, type):
            raise OptionError(f"operator is called as operator(data (B, *D)) -> (B, *M); got {operator!r}")

    @property
    def off(self) -> bool:
        """Whether it changes nothing."""
        return isinstance(self.scale, int | float) and self.scale == 0

    def select(self, rows: slice | Tensor) -> PosteriorGuidance:
        """The guidance of these samples."""
        per_sample = isinstance(self.scale, Tensor) and self.scale.ndim == 1
        scale = self.scale[rows] if per_sample else self.scale  # type: ignore[index]
        return attrs.evolve(self, scale=scale, rows=(*self.rows, rows))

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """`score + s·∇ log p(y|x_t)`, shape `(B, *D)`.

        Raises:
            ShapeError: If y does not fit what the operator measures.
        """
        if self.off:
            return field.predict(x_t, t, cond, Prediction.SCORE, until=until)  # type: ignore[no-any-return]
        score, measured = measure(self.operator, self._measurements, field, x_t, t, cond, until)
        with torch.inference_mode(False):
            term = measured.informed(measured.pullback(measured.adjoint(self.weigh(measured))))
        return score + scale_at(self.scale, field.path, t, x_t) * term

    def _measurements(self, prediction: Tensor) -> Tensor:
        """y for these samples, like the prediction `(B, *M)`."""
        y = self.y
        if y.ndim == prediction.ndim and len(y) > 1:
            for rows in self.rows:
                y = y[rows]
        if y.ndim and y.shape not in (prediction.shape, prediction.shape[1:], (1, *prediction.shape[1:])):
            raise ShapeError(
                f"y has the shape {tuple(self.y.shape)}, and the operator measures {tuple(prediction.shape)}; give y "
                f"{tuple(prediction.shape)}, or {tuple(prediction.shape[1:])} for one measurement of all samples"
            )
        return y.to(prediction)
