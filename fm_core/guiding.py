"""What guidances share: scales, conditions that mean none, two answers from one network call, and steps that keep the
noise they found.

A scale s is 1 where guidance is off, `u + s·(c − u)`. Written `c + (s − 1)·(c − u)` it gives c to the last bit at
s = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fm_core.errors import ConditionError, ShapeError
from fm_core.shapes import batch_time, over, zip_tensors

if TYPE_CHECKING:
    from attrs import Attribute

    from fm_core.field import Field
    from fm_core.protocols import Guidance

__all__ = [
    "Scale",
    "both",
    "expand_condition",
    "is_scale",
    "null_condition",
    "of_rows",
    "renoised",
    "require_condition",
    "scale_at",
]

Scale = float | Tensor | Callable[[Tensor], Tensor]
"""A number; one for every sample, `(B,)`; or a function of the log-SNR `2·log(α/σ)`, `(B,) -> (B,)`."""


_NUMBERS = (int, float, np.number)


def is_scale(instance: object, attribute: Attribute[Any], value: Any) -> None:
    """An attrs validator of scales.

    Raises:
        TypeError: For what is none of the three.
    """
    number = isinstance(value, _NUMBERS) and not isinstance(value, bool) and math.isfinite(value)
    if not number and not isinstance(value, Tensor) and not callable(value):
        raise TypeError(
            f"{attribute.name} is a finite number, a tensor (B,), or a function of the log-SNR (B,) -> (B,); "
            f"got {value!r}"
        )


def scale_at(scale: Scale, path: Any, t: Tensor, x_t: Tensor) -> float | Tensor:
    """The scale at times t `(B,)`: a number as it is, anything else shaped `(B, 1, …, 1)` to multiply x_t `(B, *D)`.

    Raises:
        ShapeError: If it is neither `()` nor `(B,)`.
    """
    if isinstance(scale, _NUMBERS):
        return float(scale)
    value = torch.as_tensor(scale if isinstance(scale, Tensor) else scale(path.log_snr(t)))
    if value.shape not in ((), x_t.shape[:1]):
        raise ShapeError(f"a scale has the shape () or (B,), here ({len(x_t)},); got {tuple(value.shape)}")
    return over(value.to(x_t.device), x_t)


def require_condition(cond: Any, who: str) -> None:
    """Checks that there is a condition.

    Args:
        cond: The condition that a guidance was given.
        who: The guidance, as the message names it.

    Raises:
        ConditionError: If there is none.
    """
    if cond is None:
        raise ConditionError(
            f"{who} needs a condition to guide to, and got none; give it: sample(…, cond=labels), batch first, "
            "or leave the guidance out"
        )


def null_condition(field: Field, cond: Any, negative: Any = None) -> Any:
    """The condition that means none, as a pytree like `cond`.

    Args:
        field: Its model's `null` is taken where no negative condition is given.
        cond: Condition, any pytree with the batch first.
        negative: A condition to take its place, of one sample or of all.

    Raises:
        ConditionError: If there is neither, or it does not fit the condition.
    """
    null = getattr(field.model, "null", None) if negative is None else negative
    if null is None:
        raise ConditionError(
            "this guidance asks the network without a condition too, and which condition means none is not known; say "
            "it where the network gets its meaning, fm.Model(net, predicts=…, null=10), or give negative= a condition"
        )
    return expand_condition(null, cond)


def expand_condition(null: Any, cond: Any) -> Any:
    """The condition `null`, of one sample or of all, as a pytree of the shapes, dtypes and devices of `cond`.

    Raises:
        ConditionError: If the two are not alike.
    """
    if isinstance(cond, Tensor):
        return _expanded(null, cond)
    if isinstance(cond, dict) and isinstance(null, dict) and cond.keys() == null.keys():
        return {key: expand_condition(null[key], value) for key, value in cond.items()}
    if isinstance(cond, list | tuple) and isinstance(null, list | tuple) and len(cond) == len(null):
        parts = [expand_condition(one, other) for one, other in zip(null, cond)]
        return type(cond)(*parts) if hasattr(cond, "_fields") else type(cond)(parts)
    if cond is None or isinstance(cond, str | int | float | bool):
        return cond
    raise ConditionError(
        f"the condition that means none must be built like the condition; got {_form(null)} beside {_form(cond)}"
    )


def _expanded(null: Any, cond: Tensor) -> Tensor:
    if isinstance(null, bool | int | float):
        return cond.new_full(cond.shape, null)
    try:
        one: Tensor = torch.as_tensor(null, dtype=cond.dtype, device=cond.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConditionError(
            f"the condition that means none is numbers or a tensor, as the condition {tuple(cond.shape)} is; got "
            f"{_form(null)}"
        ) from error
    if one.shape in (torch.Size(), cond.shape[1:], cond.shape, (1, *cond.shape[1:])):
        return one.expand(cond.shape)
    raise ConditionError(
        f"the condition that means none has the shape {tuple(one.shape)}; a condition {tuple(cond.shape)} needs one of "
        f"shape {tuple(cond.shape[1:])}, for one sample, or {tuple(cond.shape)}, for all"
    )


def _form(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return f"a tensor {tuple(tree.shape)}"
    if isinstance(tree, dict):
        return f"a dict of {', '.join(map(str, tree))}"
    return f"a {type(tree).__name__}" + (f" of {len(tree)}" if isinstance(tree, list | tuple) else "")


def both(
    field: Field, x_t: Tensor, t: Tensor, cond: Any, null: Any, kind: str, *, until: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Predictions of `kind` under two conditions, from one network call on a batch of 2B.

    Args:
        field: Field to ask.
        x_t: States, shape `(B, *D)`.
        t: Times, shape `(B,)`.
        cond, null: The two conditions, pytrees of one form.
        kind: Kind of prediction.
        until: The time the solver is going to, shape `(B,)`.

    Returns:
        The prediction under `cond` and that under `null`, each `(B, *D)`.
    """
    t = batch_time(t, x_t)
    answer = field.predict(
        torch.cat([x_t, x_t]),
        torch.cat([t, t]),
        zip_tensors(lambda a, b: torch.cat([a, b]), cond, null),
        kind,
        until=None if until is None else torch.cat([until, until]),
    )
    first, second = answer.chunk(2)
    return first, second


def renoised(path: Any, t: Tensor, until: Tensor) -> Tensor:
    """The factor by which a change of the data prediction grows so that a step moves its data alone, shape `(B,)`,
    float64.

    A DDIM step from t to s is `x_s = α_s·D + σ_s·N` with the noise `N = (x_t − α_t·D)/σ_t` of the same prediction D. If
    the data part shall be `D + Δ` while N stays, then the one prediction `D* = D + c·Δ` does it: with
    `r = α_t·σ_s/σ_t`, `x_s = (σ_s/σ_t)·x_t + (α_s − r)·D*` must move by α_s·Δ, so

        c = α_s/(α_s − r) = 1/(1 − e^{−h}),    h = log(α_s/σ_s) − log(α_t/σ_t),

    which is 1 where the step ends at the data (σ_s = 0), and is taken to be 1 where there is no step (s = t, the data
    prediction that closes a run).

    Args:
        path: Gaussian path.
        t: Times of the predictions, shape `(B,)`.
        until: Times the solver is going to, shape `(B,)`.
    """
    now, then = (path.log_snr(times.to(torch.float64)) for times in (t, until))
    return torch.where(until == t, 1.0, -1 / torch.expm1((now - then) / 2))


def of_rows(guidance: Guidance, rows: slice | Tensor) -> Guidance:
    """The guidance of some samples of a batch, where it holds something for each.

    Args:
        guidance: Guidance of the whole batch.
        rows: Which samples: a slice, or their indices.
    """
    return guidance.select(rows) if hasattr(guidance, "select") else guidance
