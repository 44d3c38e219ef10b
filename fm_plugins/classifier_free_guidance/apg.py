"""Adaptive projected guidance: classifier-free guidance of the data prediction without what oversaturates it.

With `Δ = D_c − D_u` the guided prediction `D_c + (s − 1)·Δ` is changed in three ways, in this order:

    Δ ← Δ + β·Δ_before                  momentum: Δ_before is what this line gave at the evaluation before (β < 0 in the
                                        paper: a push away from the directions already taken)
    Δ ← Δ·min(1, r/‖Δ‖)                 rescaling: no update is longer than r
    Δ = Δ_∥ + Δ_⊥,  Δ_∥ = (⟨Δ, D_c⟩/‖D_c‖²)·D_c

    D = D_c + (s − 1)·(Δ_⊥ + η·Δ_∥)

Norms and products are of one sample, over all its dimensions; r therefore grows with the size of the event. η = 1
without r and β is `cfg`. It acts on data: a direction orthogonal to D_c is not orthogonal to any other prediction.

References:
    Sadat et al. 2024. https://arxiv.org/abs/2410.02416
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from attrs import evolve, field as attribute, frozen, validators
from torch import Tensor

from fm_core.guiding import Scale, is_scale, scale_at
from fm_core.prediction import Prediction
from fm_core.shapes import over
from fm_plugins.classifier_free_guidance.answers import answers, of_rows

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["APG"]


@final
@frozen(eq=False)
class APG:
    """Adaptive projected guidance.

    A field keeps the momentum in its memory, which every sampling run begins anew. It counts evaluations, as the paper
    does: a solver with several a step updates it as often.

    Args:
        scale: s: a number, one for every sample `(B,)`, or a function of the log-SNR. 1 is off.
        parallel: η, the share of the part along D_c that is kept; 1 keeps all of it.
        norm: r, the longest update, in units of the data; None for no bound.
        momentum: β, in (−1, 1); 0 for none, negative in the paper.
        negative: A condition in place of the model's null, of one sample or of all.
    """

    scale: Scale = attribute(validator=is_scale)
    parallel: float = attribute(default=0.0, kw_only=True)
    norm: float | None = attribute(default=None, kw_only=True, validator=validators.optional(validators.gt(0.0)))
    momentum: float = attribute(default=0.0, kw_only=True, validator=[validators.gt(-1.0), validators.lt(1.0)])
    negative: Any = attribute(default=None, kw_only=True)

    needs: frozenset[Prediction] = attribute(default=frozenset({Prediction.DATA}), init=False, repr=False)
    acts_on = Prediction.DATA
    evals = 1
    layer = 0

    @property
    def off(self) -> bool:
        """Whether it changes nothing at any time."""
        return isinstance(self.scale, int | float) and self.scale == 1

    def select(self, rows: slice | Tensor) -> APG:
        """The guidance of these samples: another one where it remembers theirs."""
        return evolve(of_rows(self, rows)) if self.momentum else of_rows(self, rows)

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The guided data prediction.

        Args:
            field: The field inside; its memory holds the momentum.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first.
            until: The time the solver is going to, shape `(B,)`.

        Returns:
            Shape `(B, *D)`.

        Raises:
            ConditionError: If there is no condition, or none that means none.
        """
        c, u = answers(field, x_t, t, cond, self.negative, Prediction.DATA, "apg", until=until)
        update = self._projected(self._bounded(self._with_momentum(field, c - u)), c)
        return c + (scale_at(self.scale, field.path, t, x_t) - 1) * update

    def _with_momentum(self, field: Field, update: Tensor) -> Tensor:
        if not self.momentum:
            return update
        before = field.memory.get(self)
        if before is not None and before.shape == update.shape:  # another batch is another run
            update = update + self.momentum * before
        field.memory[self] = update
        return update

    def _bounded(self, update: Tensor) -> Tensor:
        if self.norm is None:
            return update
        length = _wide(update).norm(dim=1)
        return update * over((self.norm / length).clamp(max=1.0), update)  # r/0 = ∞ counts as 1

    def _projected(self, update: Tensor, onto: Tensor) -> Tensor:
        if self.parallel == 1:
            return update
        wide = _wide(onto)
        square = wide.square().sum(1)
        share = (_wide(update) * wide).sum(1) / torch.where(square == 0, 1.0, square)  # nothing is along 0
        return update - (1 - self.parallel) * over(share, onto) * onto


def _wide(x: Tensor) -> Tensor:
    """Events as rows, in at least float32: sums over a half-precision image overflow."""
    return x.reshape(len(x), -1).to(torch.promote_types(x.dtype, torch.float32))
