"""Samples side by side, as every kind of data gives them, and what can be wrong with them."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from fm_core.errors import DataError
from fm_core.shapes import check_batch, map_tensors, tensors_of

__all__ = ["Rows", "as_rows", "check_rows", "check_values"]


class Rows(NamedTuple):
    """Samples side by side: x0 (None where it is still to be drawn) and x1, both `(B, *D)`, and their conditions."""

    x0: Tensor | None
    x1: Tensor
    cond: Any

    def select(self, rows: Tensor | slice) -> Self:
        """Some of the rows, by a slice or by indices."""
        return map_tensors(lambda x: x[rows], self)  # type: ignore[no-any-return]

    def paired(self, i: Tensor, j: Tensor) -> Self:
        """Row i of x0 beside row j of x1 and of the condition."""
        return self._replace(
            x0=None if self.x0 is None else self.x0[i], x1=self.x1[j], cond=map_tensors(lambda x: x[j], self.cond)
        )

    def joined(self, other: Rows) -> Self:
        """These rows and then the other ones."""
        following = iter(tensors_of(other))
        return map_tensors(lambda x: torch.cat([x, next(following)]), self)  # type: ignore[no-any-return]


def as_rows(item: Any) -> Rows:
    """What a data set or a callable returned, x1 or (x1, cond), as rows."""
    if isinstance(item, Tensor):
        return Rows(None, item, None)
    if isinstance(item, tuple | list) and len(item) in (1, 2) and isinstance(item[0], Tensor):
        return Rows(None, item[0], item[1] if len(item) == 2 else None)
    if isinstance(item, tuple | list):
        kinds = ", ".join(type(part).__name__ for part in item)
        raise DataError(f"data are x1 or (x1, cond), several conditions as one pytree: (x1, {{'a': …}}); got ({kinds})")
    raise DataError(f"data are a tensor x1 or a pair (x1, cond); got {type(item).__name__}")


def check_rows(rows: Rows, n: int | None = None) -> Rows:
    """The same rows, if their shapes and dtypes will do for any network.

    Args:
        rows: Rows as read.
        n: How many were asked for, if that is known.

    Raises:
        DataError: For x1 that is not `(N, *D)`, not floating point, or of another length than n.
        ShapeError: For conditions of another length than x1.
    """
    x1 = rows.x1
    if x1.ndim < 2:
        raise DataError(f"x1 needs shape (N, *D); got {tuple(x1.shape)}; numbers are x1[:, None]")
    if not x1.is_floating_point():
        fix = "scale images first, x1 = images / 127.5 - 1" if x1.dtype == torch.uint8 else "convert it with x1.float()"
        raise DataError(f"x1 must be floating point, since states between noise and data are; got {x1.dtype}: {fix}")
    if n is not None and x1.shape[0] != n:
        raise DataError(f"the callable was asked for {n} samples and gave {tuple(x1.shape)}")
    check_batch(rows.cond, x1.shape[0], "cond")
    return rows


def check_values(x: Tensor, name: str) -> None:
    """Checks that every value of x `(N, *D)` is finite.

    Raises:
        DataError: With the number of samples that are not, and the first of them.
    """
    if not bool(x.sum().isfinite()):  # one pass without a mask of the data's size; a finite sum has finite terms
        good = x.isfinite().flatten(1).all(1)
        if not good.all():
            first = int((~good).nonzero()[0])
            raise DataError(
                f"{name} has values that are not finite in {int((~good).sum())} of {len(good)} samples, "
                f"first in sample {first}; "
                "drop or repair them: one such sample spoils every batch it is in"
            )
