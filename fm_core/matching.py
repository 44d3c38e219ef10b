"""Regression on one kind of prediction: the objective behind CFM, DDPM's noise loss, data and v prediction.

    L_i = w(t_i) · mean over the event of (p̂(x_t, t) − p)²,    p = a·x1 + b·x0

Its minimiser is the conditional expectation E[p | x_t], and its gradient equals that of the regression on E[p | x_t]
itself, since the two losses differ by a constant (Vincent 2011; Lipman et al. 2023, Theorem 2).

References:
    Vincent 2011. https://www.iro.umontreal.ca/~vincentp/Publications/smdae_techreport.pdf
    Lipman et al. 2023. https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import PathSample, ProbabilityPath, span_of
from fm_core.shapes import over

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Matching", "TimeSampler", "uniform"]

TimeSampler = Callable[[ProbabilityPath, int, torch.Generator | None, torch.device | str | None], Tensor]
"""Draws training times `(path, batch, generator, device) -> (B,)` in the unit interval, which is then mapped to the
path's span.
"""


def uniform(
    path: ProbabilityPath, batch: int, generator: torch.Generator | None, device: torch.device | str | None
) -> Tensor:
    """Times uniform on [0, 1), shape `(B,)`."""
    return torch.rand(batch, generator=generator, device=device)


@frozen
class Matching:
    """Regression of the field's prediction of `kind` on its conditional value.

    Args:
        kind: The prediction that is matched.
        time: How training times are drawn.
        weight: Weight of a time, `weight(path, t) -> (B,)`, ≥ 0; None is 1.
    """

    kind: Prediction = attribute(converter=as_prediction)
    time: TimeSampler = uniform
    weight: Callable[[ProbabilityPath, Tensor], Tensor] | None = None

    @property
    def needs(self) -> frozenset[Prediction]:
        """The one kind that is matched."""
        return frozenset({self.kind})

    def sample_time(
        self,
        path: ProbabilityPath,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Training times inside the path's span, shape `(B,)`."""
        low, high = span_of(path, self.kind, self.needs)
        unit = self.time(path, batch, generator, device)
        return unit if (low, high) == (0.0, 1.0) else low + (high - low) * unit

    def loss(self, field: Field, sample: PathSample, cond: Any = None) -> Tensor:
        """Weighted squared error of every sample, averaged over its event, shape `(B,)`."""
        error = field.predict(sample.x_t, sample.t, cond, self.kind) - field.path.target(sample, self.kind)
        loss: Tensor = error.square().flatten(1).mean(1)
        return loss if self.weight is None else over(self.weight(field.path, sample.t), loss) * loss
