"""CFG-Zero*: the unconditional velocity is scaled to fit the conditional one, and the first moments stand still.

The optimised scale s* minimises ‖v_c − s·v_u‖² over s, for every sample and over all its dimensions,

    s* = ⟨v_c, v_u⟩/‖v_u‖²,    v = s*·v_u + w·(v_c − s*·v_u) = v_c + (w − 1)·(v_c − s*·v_u),

so that what is amplified is orthogonal to v_u. Zero-init: v = 0 for the first part of the time, where an underfitted
velocity is further from the truth than none. The paper zeroes the first K solver steps, which depends on the grid;
here it is the times `t < zero_until`, by default the first 4 % that its authors suggest for K (one of 25 uniform
steps). No network is called there. It is meant for flow matching, on whose paths v = 0 leaves the noise as it is.

References:
    Fan et al. 2025, section 4. https://arxiv.org/abs/2503.18886
    diffusers, ClassifierFreeZeroStarGuidance (4 %). https://huggingface.co/docs/diffusers/api/modular_diffusers/guiders
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from attrs import field as attribute, frozen, validators
from torch import Tensor

from fm_core.guiding import Scale, is_scale, scale_at
from fm_core.prediction import Prediction
from fm_core.shapes import over
from fm_plugins.classifier_free_guidance.answers import answers, of_rows

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["CFGZeroStar"]


@final
@frozen(eq=False)
class CFGZeroStar:
    """CFG-Zero*: `v_c + (w − 1)·(v_c − s*·v_u)` with the optimised scale s*, and 0 for t < zero_until.

    Args:
        scale: w: a number, one for every sample `(B,)`, or a function of the log-SNR. 1 is off if `zero_until` is 0.
        zero_until: Time in [0, 1) up to which the velocity is 0; 0 for no such time.
        negative: A condition in place of the model's null, of one sample or of all.

    >>> CFGZeroStar(1.0).off, CFGZeroStar(1.0, zero_until=0.0).off
    (False, True)
    """

    scale: Scale = attribute(validator=is_scale)
    zero_until: float = attribute(default=0.04, kw_only=True, validator=[validators.ge(0.0), validators.lt(1.0)])
    negative: Any = attribute(default=None, kw_only=True)

    needs: frozenset[Prediction] = attribute(default=frozenset({Prediction.VELOCITY}), init=False, repr=False)
    acts_on = Prediction.VELOCITY
    evals = 1
    layer = 0

    @property
    def off(self) -> bool:
        """Whether it changes nothing at any time."""
        return isinstance(self.scale, int | float) and self.scale == 1 and self.zero_until == 0

    def select(self, rows: slice | Tensor) -> CFGZeroStar:
        """The guidance of these samples."""
        return of_rows(self, rows)

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided velocity.

        Args:
            field: The field inside; not asked where all times are before `zero_until`.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first.
            until: The time the solver is going to, shape `(B,)`.

        Returns:
            Shape `(B, *D)`.

        Raises:
            ConditionError: If there is no condition, or none that means none.
        """
        still = t < self.zero_until
        if self.zero_until and bool(still.all()):  # the one wait for the device: it saves the network call
            return torch.zeros_like(x_t)
        c, u = answers(field, x_t, t, cond, self.negative, Prediction.VELOCITY, "cfg_zero_star", until=until)
        guided = c + (scale_at(self.scale, field.path, t, x_t) - 1) * (c - over(_fit(c, u), u) * u)
        return torch.where(over(still, x_t).bool(), 0.0, guided) if self.zero_until else guided


def _fit(c: Tensor, u: Tensor) -> Tensor:
    """⟨c, u⟩/‖u‖² of every sample, `(B,)`, summed in at least float32; 0 where u is 0."""
    wide = torch.promote_types(u.dtype, torch.float32)
    c, u = (v.reshape(len(v), -1).to(wide) for v in (c, u))
    square = u.square().sum(1)
    return (c * u).sum(1) / torch.where(square == 0, 1.0, square)
