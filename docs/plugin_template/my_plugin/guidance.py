"""A guidance: classifier-free guidance of constant scale.

guided = u + s·(c − u),   c with the condition, u with the one that means none

In the score this samples from p(x)·p(condition | x)^s, as far as the noise levels between can be taken to have that
form. The combination is affine with weights that sum to 1, so it commutes with every conversion of predictions: it acts
on whatever the network predicts. s = 1 is off, s = 0 is without condition.

References:
    Ho & Salimans 2022. https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from typing import Any, ClassVar, final

from attrs import field as attribute, frozen, validators
from fm_core import Field, Prediction
from fm_core.guiding import both, null_condition, require_condition
from torch import Tensor

__all__ = ["ClassifierFree"]


@final
@frozen
class ClassifierFree:
    """Classifier-free guidance; conditions are trained with `fit(…, cond_dropout=0.1)` of a model that has `null=`.

    Args:
        scale: s; 1 is off.
    """

    needs: ClassVar[frozenset[Prediction]] = frozenset()
    acts_on: ClassVar[Prediction | None] = None
    layer: ClassVar[int] = 0

    scale: float = attribute(default=2.0, validator=validators.instance_of((int, float)))

    @property
    def off(self) -> bool:
        """Whether it changes nothing; a field leaves it out then."""
        return self.scale == 1.0

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided prediction, shape `(B, *D)`, of the field's native kind, from one network call of 2B samples.

        Raises:
            ConditionError: If there is no condition, or none that means none.
        """
        if self.off:
            prediction: Tensor = field.predict(x_t, t, cond, field.native, until=until)
            return prediction
        require_condition(cond, "my_plugin")
        null = null_condition(field, cond)
        with_cond, without = both(field, x_t, t, cond, null, field.native, until=until)
        return without + self.scale * (with_cond - without)
