"""What every data set keeps, a callable `(n, generator)` or a map-style one: shapes, seeds, finite values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_core.randomness import make_generator
from fm_core.shapes import tensors_of
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []


def _draw(data: Any, n: int, seed: int) -> tuple[Tensor, Any]:
    """n samples and their conditions."""
    if isinstance(data, Dataset):
        order = torch.randperm(len(data), generator=make_generator(seed))[:n]  # type: ignore[arg-type]
        items = [data[int(i)] for i in order]
        pairs = [item if isinstance(item, tuple | list) else (item, None) for item in items]
        return torch.stack([x for x, _ in pairs]), [c for _, c in pairs]
    drawn = data(n, make_generator(seed))
    return (drawn[0], drawn[1]) if isinstance(drawn, tuple | list) else (drawn, None)


@check_of("dataset")
def shapes(subject: Subject) -> None:
    """n samples are `(n, *D)`, floating point, one event shape for every n, and conditions have n rows."""
    data = subject.build()
    events = set()
    for n in (1, 2, 17):
        x, cond = _draw(data, n, 0)
        if not isinstance(x, Tensor) or x.shape[:1] != (n,) or x.ndim < 2 or not x.is_floating_point():
            got = f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise Failed(f"{n} samples must be ({n}, *D), floating point; got {got}")
        events.add(tuple(x.shape[1:]))
        if not isinstance(data, Dataset) and any(len(c) != n for c in tensors_of(cond)):
            raise Failed(f"{n} samples came with a condition of another number of rows")
    if len(events) > 1:
        raise Failed(f"event shapes differ with n: {events}")


@check_of("dataset")
def finite(subject: Subject) -> float:
    """Values are finite, and of about unit size (|x| ≤ 100), as networks need them."""
    x, _ = _draw(subject.build(), 200, 1)
    if not bool(x.isfinite().all()):
        raise Failed("some values are not finite")
    return at_most(float(x.abs().max()), 100.0, "largest value")


@check_of("dataset")
def not_one_point(subject: Subject) -> float:
    """Samples differ from each other."""
    x, _ = _draw(subject.build(), 50, 2)
    spread = float(x.double().std(0).max())
    if spread == 0:
        raise Failed("fifty samples are all the same", spread)
    return spread


@check_of("dataset")
def seeds(subject: Subject) -> None:
    """Equal generators give equal samples, others give others, and no global state is touched."""
    data = subject.build()
    if isinstance(data, Dataset):
        global_randomness(lambda: _draw(data, 8, 0)[0])
        if not torch.equal(_draw(data, 8, 0)[0], _draw(subject.build(), 8, 0)[0]):
            raise Failed("two data sets built with the same options hold other samples")
        return
    global_randomness(lambda: _draw(data, 8, 0)[0])
    if not torch.equal(_draw(data, 8, 1)[0], _draw(data, 8, 1)[0]):
        raise Failed("two draws from equally seeded generators differ")
    if torch.equal(_draw(data, 8, 1)[0], _draw(data, 8, 2)[0]):
        raise Failed("samples do not depend on the generator")


@check_of("dataset")
def length(subject: Subject) -> None:
    """A map-style data set has `len()` items, ends with an IndexError, and gives every item again as it was."""
    data = subject.build()
    if not isinstance(data, Dataset):
        raise Skipped("it is drawn from without end")
    size = len(data)  # type: ignore[arg-type]
    first, again = (item[0] if isinstance(item, tuple | list) else item for item in (data[size - 1], data[size - 1]))
    if not torch.equal(first, again):
        raise Failed("the last item is another one the second time")
    try:
        data[size]
    except IndexError:
        return
    raise Failed(f"it has {size} items, but gives number {size}")
