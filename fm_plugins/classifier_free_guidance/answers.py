"""The two answers behind every guidance here, and the guidance of some of the samples alone.

A negative condition may be one for all samples or one for each. Which it is shows beside the condition only, so the
rows of a part of the batch are remembered (`Rows`) until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, final

from attrs import evolve, frozen
from torch import Tensor

from fm_core.guiding import both, null_condition, require_condition
from fm_core.shapes import tensors_of

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Rows", "answers", "of_rows"]

Chosen = TypeVar("Chosen")


@final
@frozen(eq=False)
class Rows:
    """A negative condition of which only these rows are meant, where it has one for every sample."""

    condition: Any
    rows: slice | Tensor


def answers(
    field: Field, x_t: Tensor, t: Tensor, cond: Any, negative: Any, kind: str, who: str, *, until: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Predictions of `kind` with the condition and with the one that means none, from one network call.

    Args:
        field: Field to ask.
        x_t: States, shape `(B, *D)`.
        t: Times, shape `(B,)`.
        cond: Condition, any pytree with the batch first.
        negative: A condition in place of the model's null, or None.
        kind: Kind of prediction.
        who: The guidance, for the message.
        until: The time the solver is going to, shape `(B,)`.

    Returns:
        The conditional and the unconditional prediction, each `(B, *D)`.

    Raises:
        ConditionError: If there is no condition, or none that means none.
    """
    require_condition(cond, who)
    if isinstance(negative, Rows):
        negative = _of_rows(negative.condition, cond, negative.rows)
    return both(field, x_t, t, cond, null_condition(field, cond, negative), kind, until=until)


def of_rows(guidance: Chosen, rows: slice | Tensor) -> Chosen:
    """The guidance of these samples: itself, if neither its scale nor its negative condition can differ between them.

    Args:
        guidance: A guidance with a `negative` and perhaps a `scale`.
        rows: The samples.
    """
    changes: dict[str, Any] = {}
    scale, negative = getattr(guidance, "scale", None), getattr(guidance, "negative", None)
    if isinstance(scale, Tensor) and scale.ndim:
        changes["scale"] = scale[rows]
    if tensors_of(negative):
        changes["negative"] = Rows(negative, rows)
    return evolve(guidance, **changes) if changes else guidance  # type: ignore[misc]  # a class of this folder


def _of_rows(negative: Any, cond: Any, rows: slice | Tensor) -> Any:
    """The rows of the tensors that have one for every sample: dimensions as the condition's, length not 1."""
    if isinstance(negative, Tensor):
        each = isinstance(cond, Tensor) and negative.ndim == cond.ndim and len(negative) > 1
        return negative[rows] if each else negative
    if isinstance(negative, dict) and isinstance(cond, dict):
        return {key: _of_rows(value, cond.get(key), rows) for key, value in negative.items()}
    if isinstance(negative, list | tuple) and isinstance(cond, list | tuple) and len(negative) == len(cond):
        return [_of_rows(value, other, rows) for value, other in zip(negative, cond)]
    return negative
