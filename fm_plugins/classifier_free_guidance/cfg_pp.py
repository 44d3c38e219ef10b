"""CFG++: the step takes its data from the guided prediction and puts back the *unconditional* noise.

The paper's DDIM step from t to s, with `D_w = D_u + w·(D_c − D_u)` and the unconditional noise N_u, is

    x_s = α_s·D_w + σ_s·N_u.

An ordinary DDIM step on one prediction D* moves `(σ_s/σ_t)·x_t + (α_s − r)·D*`, `r = α_t·σ_s/σ_t`, so it is the same
with `D* = D_u + w·α_s/(α_s − r)·(D_c − D_u)`: classifier-free guidance whose scale depends on the step,

    u + s_h·(c − u),    s_h = w/(1 − e^{−h}),    h = log(α_s/σ_s) − log(α_t/σ_t).

So any solver whose step is DDIM's can take it, in any space; s_h = w where the step ends at the data. The scale grows
as the steps shrink (the guidance of one step does not vanish with its length): the weight is one per step, not per
time, and a finer grid guides more. A solver that asks several times a step (Heun, RK4) gets what the formula gives at
each stage, which nobody has proposed.

Its option is a *weight* and not a scale: 0 is the unconditional field, 1 the conditional data with unconditional noise,
and no value of it is "off".

References:
    Chung et al. 2024, Algorithm 2. https://arxiv.org/abs/2406.08070
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from attrs import field as attribute, frozen, validators
from torch import Tensor

from fm_core.errors import TimeError
from fm_core.guiding import renoised
from fm_core.prediction import Prediction
from fm_core.shapes import over
from fm_plugins.classifier_free_guidance.answers import answers, of_rows

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["CFGPlusPlus"]


@final
@frozen(eq=False)
class CFGPlusPlus:
    """CFG++, `u + w/(1 − e^{−h})·(c − u)` for a step of length h in log(α/σ).

    Args:
        weight: w in [0, 1], the paper's λ: 0 is the unconditional field. No value is "off".
        negative: A condition in place of the model's null, of one sample or of all.

    >>> CFGPlusPlus(1.0).off
    False
    """

    weight: float = attribute(default=0.6, converter=float, validator=[validators.ge(0.0), validators.le(1.0)])
    negative: Any = None

    needs: frozenset[Prediction] = attribute(default=frozenset(), init=False, repr=False)
    acts_on = None
    evals = 1
    layer = 0
    off = False
    per_step = True

    def select(self, rows: slice | Tensor) -> CFGPlusPlus:
        """The guidance of these samples."""
        return of_rows(self, rows)

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided prediction in the field's native space.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first.
            until: The time the solver is going to, shape `(B,)`. Where it is t itself, no noise is put back and the
                scale is w.

        Returns:
            Shape `(B, *D)`.

        Raises:
            TimeError: If the solver does not say where it is going.
            ConditionError: If there is no condition, or none that means none.
        """
        if until is None:
            raise TimeError(
                "cfg_pp puts the unconditional noise back at the end of a step, and this solver does not say where its "
                "steps end (until=None); use a solver with a fixed grid, such as 'ddim' or 'euler', or 'cfg'"
            )
        c, u = answers(field, x_t, t, cond, self.negative, field.native, "cfg_pp", until=until)
        return u + over(self.weight * renoised(field.path, t, until), x_t) * (c - u)
