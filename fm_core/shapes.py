"""The one place where times and conditions meet states: broadcasting `(B,)` against `(B, *D)`, and pytrees of
conditions.

A time `(B,)` never meets a state by PyTorch's own rules: against `(B, D)` they fail, and for B = D they pass and are
wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fm_core.errors import ShapeError

__all__ = ["batch_time", "check_batch", "map_tensors", "over", "tensors_of", "time_dtype", "zip_tensors"]


def time_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of times beside states of `dtype`: at least float32, for bfloat16 cannot tell 999/1000 from 1."""
    return torch.promote_types(dtype, torch.float32)


def batch_time(t: Tensor | float, x: Tensor) -> Tensor:
    """Time as `(B,)` on the device of x `(B, *D)`, from a number, `()` or `(B,)`.

    Raises:
        ShapeError: For any other shape.
    """
    if not isinstance(t, Tensor):
        t = torch.tensor(t, dtype=time_dtype(x.dtype), device=x.device)
    if t.ndim == 0:
        return t.to(x.device).expand(x.shape[0])
    if t.ndim != 1 or t.shape[0] != x.shape[0]:
        raise ShapeError(
            f"time must be a number, () or ({x.shape[0]},) for a state {tuple(x.shape)}; got {tuple(t.shape)}"
        )
    return t


def over(t: Tensor, x: Tensor) -> Tensor:
    """Values `(B,)` (or `()`) viewed as `(B, 1, …, 1)`, in the dtype of x, to multiply states x `(B, *D)`."""
    return t.to(x.dtype).reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t.to(x.dtype)


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The pytree (dicts, lists, tuples, None) with `function` applied to every tensor; other leaves stay.

    >>> map_tensors(lambda x: x + 1, {"label": torch.tensor([1, 2]), "text": None})
    {'label': tensor([2, 3]), 'text': None}
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(function, value) for value in tree)
    return tree


def zip_tensors(function: Callable[[Tensor, Tensor], Any], tree: Any, other: Any) -> Any:
    """The pytree with `function` applied to every tensor of it and the one in its place in `other`; other leaves stay.

    >>> zip_tensors(torch.add, {"label": torch.tensor([1, 2])}, {"label": torch.tensor([3, 4])})
    {'label': tensor([4, 6])}
    """
    others = iter(tensors_of(other))
    return map_tensors(lambda tensor: function(tensor, next(others)), tree)


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors of a pytree, in order."""
    found: list[Tensor] = []
    map_tensors(found.append, tree)
    return found


def check_batch(tree: Any, batch: int, what: str) -> None:
    """Checks that every tensor of a pytree has `batch` rows.

    Raises:
        ShapeError: Naming `what` and the shape that does not fit.
    """
    for tensor in tensors_of(tree):
        if tensor.ndim == 0 or tensor.shape[0] != batch:
            raise ShapeError(f"{what} must have the batch first: expected ({batch}, …), got {tuple(tensor.shape)}")
