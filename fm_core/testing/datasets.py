"""What every data set keeps, a callable `(n, generator)` or a map-style one: shapes, seeds, finite values.

Samples are read as training reads them, each with its condition, and both are looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from fm_core.fit.rows import Rows, as_rows
from fm_core.randomness import make_generator
from fm_core.shapes import tensors_of
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


def _draw(data: Any, n: int, seed: int) -> Rows:
    """n samples and their conditions."""
    if not isinstance(data, Dataset):
        return as_rows(data(n, make_generator(seed)))
    order = torch.randperm(len(data), generator=make_generator(seed))[:n]  # type: ignore[arg-type]
    return _batch([data[int(i)] for i in order])


def _batch(items: list[Any]) -> Rows:
    """Items of a map-style data set as one batch."""
    kinds = {_kinds(as_rows(default_collate([item]))) for item in items}
    if len(kinds) > 1:
        raise Failed(f"samples, or their conditions, fit into no batch: {' and '.join(map(str, sorted(kinds)))}")
    return as_rows(default_collate(items))


def _numbers(rows: Rows) -> Tensor:
    """All numbers of the samples and their conditions, flat."""
    return torch.cat([tensor.double().flatten() for tensor in tensors_of(rows)])


def _kinds(rows: Rows) -> tuple[str, ...]:
    """Shape and dtype of one sample and of every part of its condition."""
    return tuple(f"{tuple(tensor.shape[1:])} of {tensor.dtype}" for tensor in tensors_of(rows))


@check_of("dataset")
def shapes(subject: Subject) -> None:
    """n samples are `(n, *D)`, floating point, and conditions have n rows, both of one shape for every n and item."""
    data = subject.build()
    kinds = set()
    for n in (1, 2, 17):
        rows = _draw(data, n, 0)
        x = rows.x1
        if not isinstance(x, Tensor) or x.shape[:1] != (n,) or x.ndim < 2 or not x.is_floating_point():
            got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise Failed(f"{n} samples must be ({n}, *D), floating point; got {got}")
        if any(c.shape[:1] != (n,) for c in tensors_of(rows.cond)):
            raise Failed(f"{n} samples came with a condition of another number of rows")
        kinds.add(_kinds(rows))
    if len(kinds) > 1:
        raise Failed(f"shapes of samples or conditions differ with n: {' and '.join(map(str, kinds))}")


@check_of("dataset")
def finite(subject: Subject) -> float:
    """Values are finite, and of about unit size (|x| ≤ 100), as networks need them."""
    x = _draw(subject.build(), 200, 1).x1
    if not bool(x.isfinite().all()):
        raise Failed("some values are not finite")
    return at_most(float(x.abs().max()), 100.0, "largest value")


@check_of("dataset")
def not_one_point(subject: Subject) -> float:
    """Samples differ from each other."""
    x = _draw(subject.build(), 50, 2).x1
    spread = float(x.double().std(0).max())
    if spread == 0:
        raise Failed("fifty samples are all the same", spread)
    return spread


@check_of("dataset")
def seeds(subject: Subject) -> None:
    """Equal generators give equal samples and conditions, others give others, and no global state is touched."""
    data, other = subject.build(), subject.build()
    global_randomness(lambda: _numbers(_draw(data, 8, 0)))
    if not torch.equal(_numbers(_draw(data, 8, 1)), _numbers(_draw(data, 8, 1))):
        raise Failed("the same samples, or their conditions, are other ones the second time")
    if not torch.equal(_numbers(_draw(data, 8, 1)), _numbers(_draw(other, 8, 1))):
        raise Failed("two data sets built with the same options hold other samples or conditions")
    if torch.equal(_draw(data, 8, 1).x1, _draw(data, 8, 2).x1):
        raise Failed("samples do not depend on the generator")


@check_of("dataset")
def length(subject: Subject) -> None:
    """A map-style data set has `len()` items, ends with an IndexError, and gives every item again as it was.

    The item is the sample and its condition.
    """
    data = subject.build()
    if not isinstance(data, Dataset):
        raise Skipped("it is drawn from without end")
    size = len(data)  # type: ignore[arg-type]
    if not torch.equal(*(_numbers(_batch([data[size - 1]])) for _ in range(2))):
        raise Failed("the last item, or its condition, is another one the second time")
    try:
        data[size]
    except IndexError:
        return
    raise Failed(f"it has {size} items, but gives number {size}")
