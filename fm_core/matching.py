"""Regression on one kind of prediction: the objective behind CFM, DDPM's noise loss, data and v prediction.

    L_i = w(t_i) · mean over the event of (p̂(x_t, t) − p)²,    p = a·x1 + b·x0

Its minimiser is the conditional expectation E[p | x_t], and its gradient equals that of the regression on E[p | x_t]
itself, since the two losses differ by a constant (Vincent 2011; Lipman et al. 2023, Theorem 2).

References:
    Vincent 2011. https://www.iro.umontreal.ca/~vincentp/Publications/smdae_techreport.pdf
    Lipman et al. 2023. https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import PathSample, ProbabilityPath, span_of
from fm_core.shapes import over
from fm_core.training_times import TimeSampler, as_time_sampler, uniform
from fm_core.weighting import Weighting, as_weighting

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Matching"]


@frozen
class Matching:
    """Regression of the field's prediction of `kind` on its conditional value.

    Args:
        kind: The prediction that is matched.
        time: How training times are drawn: a name of `fm_core.training_times`, a mapping `{"name": …, **options}`, or
            a `TimeSampler`.
        weight: Weight of a time: a name of `fm_core.weighting`, a mapping, a `Weighting`, or a function of what is
            matched, `weight(path, t) -> (B,)`, ≥ 0; None is 1.

    >>> Matching("noise", weight={"name": "min_snr", "gamma": 5.0}, time="stratified").needs == {"noise"}
    True
    """

    kind: Prediction = attribute(converter=as_prediction)
    time: TimeSampler = attribute(default=uniform, converter=as_time_sampler)
    weight: Weighting | None = attribute(default=None, converter=as_weighting)

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
        """Training times where the prediction and its weight exist, shape `(B,)`."""
        exists = frozenset() if self.weight is None else self.weight.exists
        span = span_of(path, self.kind, self.needs | exists)
        return self.time(path, batch, span, generator, device)

    def loss(self, field: Field, sample: PathSample, cond: Any = None) -> Tensor:
        """Weighted squared error of every sample, averaged over its event, shape `(B,)`."""
        error = field.predict(sample.x_t, sample.t, cond, self.kind) - field.path.target(sample, self.kind)
        loss: Tensor = error.square().flatten(1).mean(1)
        return loss if self.weight is None else over(self.weight(field.path, sample.t, self.kind), loss) * loss
