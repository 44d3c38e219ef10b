"""Condition dropout: a share of the samples is trained under the condition that means none, so that one network learns
the conditional and the unconditional field, and classifier-free guidance can ask it for both.

References:
    Ho & Salimans 2022, Algorithm 1. https://arxiv.org/abs/2207.12598
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.compat import Problem
from fm_core.errors import CompatError, ConditionError
from fm_core.guiding import expand_condition
from fm_core.protocols import VectorFieldModel
from fm_core.shapes import zip_tensors

__all__ = ["drop_condition", "require_null"]


def require_null(model: VectorFieldModel, rate: float) -> None:
    """Checks that a model whose conditions are dropped at this rate has a condition that means none.

    Raises:
        CompatError: If it has not.
    """
    if rate and getattr(model, "null", None) is None:
        what = f"cond_dropout={rate} was given, and the model has no condition that means none"
        why = "the samples whose condition is dropped are trained under it"
        raise CompatError([Problem(what, why, "name it: fm.Model(net, predicts=…, null=10), the class after the last")])


def drop_condition(cond: Any, null: Any, rate: float, batch: int, generator: torch.Generator) -> Any:
    """The condition, in which every sample's own has become `null` with probability `rate`, whole or not at all.

    Args:
        cond: Condition, any pytree with the batch first.
        null: The condition that means none.
        rate: Probability in [0, 1].
        batch: Number of samples B.
        generator: Draws who is dropped, on the condition's device.

    Raises:
        ConditionError: If there is no condition, or `null` does not fit it.
    """
    if cond is None:
        raise ConditionError(f"cond_dropout={rate} was given, but the data carry no condition; train on (x1, cond)")
    dropped = torch.rand(batch, generator=generator, device=generator.device) < rate

    def mixed(own: Tensor, none: Tensor) -> Tensor:
        return torch.where(dropped.reshape((batch,) + (1,) * (own.ndim - 1)), none, own)

    return zip_tensors(mixed, cond, expand_condition(null, cond))
