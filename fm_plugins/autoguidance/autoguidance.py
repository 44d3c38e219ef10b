"""Autoguidance, `D_weak + s·(D − D_weak)`, evaluated as `D + (s − 1)·(D − D_weak)`: at s = 1 it is D to the last bit.

It commutes with conversion, as classifier-free guidance does, so it acts in the space in which D arrives. Where the
weak network's prediction does not determine that one (a noise prediction says nothing of the data where α = 0), D is
left unguided.

References:
    Karras et al. 2024. https://arxiv.org/abs/2406.02507
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import registry
from fm_core.errors import PredictionError
from fm_core.evaluating import evaluating
from fm_core.field import Model
from fm_core.guiding import Scale, is_scale, scale_at
from fm_core.prediction import Prediction
from fm_core.protocols import VectorFieldModel, span_of
from fm_core.shapes import over

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Autoguidance", "autoguidance"]


@final
@frozen(eq=False)
class Autoguidance:
    """Guidance by a worse network.

    Args:
        weak: The worse network, with its meaning; asked under the same condition.
        scale: s: a number, one for every sample `(B,)`, or a function of the log-SNR. 1 is off.
    """

    weak: VectorFieldModel
    scale: Scale = attribute(validator=is_scale)

    needs: frozenset[Prediction] = attribute(default=frozenset(), init=False, repr=False)
    acts_on = None
    evals = 2
    layer = 0

    @property
    def off(self) -> bool:
        """Whether it changes nothing at any time."""
        return isinstance(self.scale, int | float) and self.scale == 1

    def select(self, rows: slice | Tensor) -> Autoguidance:
        """The guidance of these samples."""
        scale = self.scale
        return Autoguidance(self.weak, scale[rows]) if isinstance(scale, Tensor) and scale.ndim else self

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided prediction in the field's native space.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first, or None.
            until: The time the solver is going to, shape `(B,)`.

        Returns:
            Shape `(B, *D)`.
        """
        good: Tensor = field.predict(x_t, t, cond, field.native, until=until)
        with evaluating(self.weak):
            worse: Tensor = field.beside(self.weak).predict(x_t, t, cond, field.native, until=until)
        guided: Tensor = good + (scale_at(self.scale, field.path, t, x_t) - 1) * (good - worse)
        low, high = span_of(field.path, self.weak.predicts[0], {field.native})
        if field.native in self.weak.predicts or (low, high) == (0.0, 1.0):
            return guided
        return torch.where(over((t < low) | (t > high), x_t).bool(), good, guided)


def autoguidance(weak: Any, scale: Scale, *, predicts: str | tuple[str, ...] | None = None) -> Autoguidance:
    """Guidance by a worse network.

    Args:
        weak: The worse network: a Model, a module whose predictions `predicts` names, or `{"name": …, **options}`.
        scale: s: a number, one for every sample `(B,)`, or a function of the log-SNR. 1 is off.
        predicts: What a module without a meaning returns: a kind, or several.

    Raises:
        PredictionError: If it is not known what the weak network predicts, or `predicts` says otherwise than it does.
    """
    weak = registry.from_config("model", weak)
    known = getattr(weak, "predicts", None)
    if known is None:
        if predicts is None:
            raise PredictionError(
                f"the weak network {type(weak).__name__} does not say what it predicts; give predicts=, as in "
                "predicts='noise', or a Model: fm.Model(net, predicts='noise')"
            )
        return Autoguidance(Model(weak, predicts), scale)
    if predicts is not None and Model(weak, predicts).predicts != tuple(known):
        raise PredictionError(f"the weak network predicts {', '.join(known)}, and predicts={predicts!r} says otherwise")
    return Autoguidance(weak, scale)
