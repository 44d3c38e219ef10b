"""Classifier-free guidance, `u + s·(c − u)`, evaluated as `c + (s − 1)·(c − u)`, which at s = 1 is c to the last bit.

It is affine in (c, u) with coefficients that sum to 1, and all predictions are affine in one another at a given
(x_t, t); so it commutes with every conversion and acts in whatever space the predictions arrive in.

References:
    Ho & Salimans 2022, eq. 6, with s = 1 + w. https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.guiding import Scale, is_scale, scale_at
from fm_core.prediction import Prediction
from fm_plugins.classifier_free_guidance.answers import answers, of_rows

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["CFG"]


@final
@frozen(eq=False)
class CFG:
    """Classifier-free guidance, `u + s·(c − u)`.

    Args:
        scale: s: a number, one for every sample `(B,)`, or a function of the log-SNR. 1 is off.
        negative: A condition in place of the model's null, of one sample or of all: u is the answer to it, and the
            samples are pushed away from it.

    >>> CFG(1.0).off, CFG(3.0).off
    (True, False)
    """

    scale: Scale = attribute(validator=is_scale)
    negative: Any = None

    needs: frozenset[Prediction] = attribute(default=frozenset(), init=False, repr=False)
    acts_on = None
    evals = 1
    layer = 0

    @property
    def off(self) -> bool:
        """Whether it changes nothing at any time."""
        return isinstance(self.scale, int | float) and self.scale == 1

    def select(self, rows: slice | Tensor) -> CFG:
        """The guidance of these samples."""
        return of_rows(self, rows)

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided prediction in the field's native space.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first.
            until: The time the solver is going to, shape `(B,)`.

        Returns:
            Shape `(B, *D)`.

        Raises:
            ConditionError: If there is no condition, or none that means none.
        """
        c, u = answers(field, x_t, t, cond, self.negative, field.native, "cfg", until=until)
        return c + (scale_at(self.scale, field.path, t, x_t) - 1) * (c - u)
