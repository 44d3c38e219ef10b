"""Training data of any kind, read in one way: `draw(n, generator)` gives n rows (x0, x1, cond), without end.

Finite data are shuffled anew every epoch and drawn without replacement; a draw that runs over the end of an epoch takes
the rest from the next one, so every training step has exactly the batch asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from attrs import Attribute, field, frozen
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from fm_core.errors import DataError, ShapeError
from fm_core.fit.rows import Rows, as_rows, check_rows, check_values
from fm_core.shapes import check_batch, map_tensors

__all__ = ["Data", "Pairs", "open_data"]

VALIDATION_DRAWS = 1024
"""Samples that one validation pass draws from a callable, which has no end of its own."""

KINDS = (
    "a tensor x1 (N, *D), a pair (x1, cond), a Dataset, a DataLoader, a callable (n, generator) -> x1 | (x1, cond), "
    "or fm.Pairs(x0, x1)"
)


@frozen(eq=False)
class Pairs:
    """Source and data samples that belong together, as reflow makes them: no coupling is applied to them.

    Args:
        x0: Source samples, unscaled as `path.sample_source` gives them, shape `(N, *D)`.
        x1: Data samples, shape `(N, *D)`.
        cond: Condition, any pytree with N rows, or None.
        provenance: What made the pairs, one line; it is kept in the record of the training.

    Raises:
        ShapeError: If x0 and x1 differ in shape, or cond has another number of rows.

    >>> Pairs(torch.zeros(4, 2), torch.ones(4, 2), provenance="teacher, heun, 20 steps, seed 0").x1.shape
    torch.Size([4, 2])
    """

    x0: Tensor = field()
    x1: Tensor = field()
    cond: Any = field(default=None)
    provenance: str = ""

    @x1.validator
    def _one_shape(self, attribute: Attribute[Tensor], x1: Tensor) -> None:
        if self.x0.shape != x1.shape:
            raise ShapeError(f"pairs need x0 and x1 of one shape; got {tuple(self.x0.shape)} and {tuple(x1.shape)}")

    @cond.validator
    def _rows(self, attribute: Attribute[Any], cond: Any) -> None:
        check_batch(cond, self.x1.shape[0], "cond")


class Data(Protocol):
    """Data that can be drawn from without end.

    Attributes:
        size: Number of samples; None where unknown or without end.
        batch: Batch size that the data dictate; None where any will do.
    """

    size: int | None
    batch: int | None

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        """The next n rows, in an order drawn from the generator (on the CPU)."""
        ...

    def once(self, n: int, generator: torch.Generator) -> Iterator[Rows]:
        """One pass over the data in their own order, at most n rows at a time."""
        ...

    def state(self) -> dict[str, Any]:
        """Where the drawing stands, beside the generator's own state."""
        ...

    def restore(self, state: dict[str, Any], generator: torch.Generator) -> None:
        """Goes on where `state` was taken; the generator may be left in any state."""
        ...


def open_data(data: Any) -> Data:
    """Data of any supported kind as `Data`, checked as far as that is cheap.

    Raises:
        DataError: For an empty data set, values that are not finite, integer data, or another kind of thing.
        ShapeError: If conditions do not have as many rows as x1.
    """
    if isinstance(data, Pairs):
        return _Tensors(Rows(data.x0, data.x1, data.cond))
    if isinstance(data, Tensor):
        return _Tensors(Rows(None, data, None))
    if isinstance(data, DataLoader):
        return _Loader(data)
    if isinstance(data, TensorDataset):
        return _Tensors(as_rows(data.tensors))
    if isinstance(data, IterableDataset):
        raise DataError("an IterableDataset has no length to shuffle: give DataLoader(dataset, batch_size=…) instead")
    if isinstance(data, Dataset):
        return _Items(data)
    if isinstance(data, tuple | list) and data and isinstance(data[0], Tensor):
        return _Tensors(as_rows(data))
    if callable(data):
        return _Stream(data)
    hint = "; torch.as_tensor(array) makes a tensor of an array" if hasattr(data, "__array__") else ""
    raise DataError(f"training data are {KINDS}; got {type(data).__name__}{hint}")


class _Shuffle:
    """Indices 0 … size − 1 without replacement, in a new order every epoch."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._order = torch.empty(0, dtype=torch.int64)
        self._at = 0
        self._epoch: Tensor | None = None

    def take(self, n: int, generator: torch.Generator) -> Tensor:
        """The next n indices, shape `(n,)`, on the CPU."""
        parts = []
        while n > 0:
            if self._at == len(self._order):
                self._begin(generator)
            part = self._order[self._at : self._at + n]
            self._at += len(part)
            n -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def state(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "at": self._at}

    def restore(self, state: dict[str, Any], generator: torch.Generator) -> None:
        if state["epoch"] is not None:
            generator.set_state(state["epoch"].cpu())
            self._begin(generator)
        self._at = state["at"]

    def _begin(self, generator: torch.Generator) -> None:
        self._epoch = generator.get_state()
        self._order = torch.randperm(self.size, generator=generator)
        self._at = 0


class _Tensors:
    """Data held in tensors, left where they are."""

    batch: int | None = None

    def __init__(self, rows: Rows) -> None:
        self.size: int | None = rows.x1.shape[0] if rows.x1.ndim else 0
        _not_empty(self.size)
        check_rows(rows)
        check_values(rows.x1, "x1")
        if rows.x0 is not None:
            check_values(rows.x0, "x0")
        self._rows = rows
        self._shuffle = _Shuffle(rows.x1.shape[0])
        self.state, self.restore = self._shuffle.state, self._shuffle.restore

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        index = self._shuffle.take(n, generator)
        return map_tensors(lambda x: x[index.to(x.device)], self._rows)  # type: ignore[no-any-return]

    def once(self, n: int, generator: torch.Generator) -> Iterator[Rows]:
        return _slices(self._rows, n)


class _Items:
    """A map-style data set; a `__getitems__` is used as DataLoader uses it."""

    batch: int | None = None

    def __init__(self, dataset: Dataset[Any]) -> None:
        if not hasattr(dataset, "__len__"):
            raise DataError(f"{type(dataset).__name__} has no len(); give DataLoader(dataset, batch_size=…) instead")
        self._dataset = dataset
        self.size: int | None = len(dataset)
        _not_empty(self.size)
        self._shuffle = _Shuffle(len(dataset))
        self.state, self.restore = self._shuffle.state, self._shuffle.restore
        check_values(self._read([0]).x1, "x1")

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        return self._read(self._shuffle.take(n, generator).tolist())

    def once(self, n: int, generator: torch.Generator) -> Iterator[Rows]:
        size = self._shuffle.size
        return (self._read(list(range(start, min(start + n, size)))) for start in range(0, size, n))

    def _read(self, index: list[int]) -> Rows:
        several = getattr(self._dataset, "__getitems__", None)
        items = several(index) if several else [self._dataset[i] for i in index]
        return check_rows(as_rows(default_collate(items)))


class _Loader:
    """A DataLoader, gone over again and again: order, workers and batch size are its own.

    Its position cannot be kept: a resumed training begins a new epoch of it.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self.batch: int | None = loader.batch_size
        self.size: int | None = None  # an epoch that is shorter than a batch is completed from the next
        self._epoch: Iterator[Any] | None = None
        self._rest: Rows | None = None

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        rows = self._rest
        while rows is None or rows.x1.shape[0] < n:
            rows = rows.joined(self._next()) if rows else self._next()
        self._rest = rows.select(slice(n, None)) if rows.x1.shape[0] > n else None
        return rows.select(slice(n)) if self._rest else rows

    def once(self, n: int, generator: torch.Generator) -> Iterator[Rows]:
        return (check_rows(as_rows(item)) for item in self._loader)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any], generator: torch.Generator) -> None:
        pass

    def _next(self) -> Rows:
        for _ in range(2):  # the second time with a fresh epoch
            if self._epoch is None:
                self._epoch = iter(self._loader)
            for item in self._epoch:
                return check_rows(as_rows(item))
            self._epoch = None
        raise DataError(
            "the DataLoader yields no batch: its data set is empty, or smaller than a batch under drop_last=True"
        )


class _Stream:
    """A callable that makes samples: `(n, generator) -> x1 | (x1, cond)`."""

    size: int | None = None
    batch: int | None = None

    def __init__(self, sampler: Callable[[int, torch.Generator], Any]) -> None:
        self._sampler = sampler

    def draw(self, n: int, generator: torch.Generator) -> Rows:
        return check_rows(as_rows(self._sampler(n, generator)), n)

    def once(self, n: int, generator: torch.Generator) -> Iterator[Rows]:
        return _slices(self.draw(VALIDATION_DRAWS, generator), n)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any], generator: torch.Generator) -> None:
        pass


def _slices(rows: Rows, n: int) -> Iterator[Rows]:
    return (rows.select(slice(start, start + n)) for start in range(0, rows.x1.shape[0], n))


def _not_empty(size: int | None) -> None:
    if size == 0:
        raise DataError("the data set is empty: training needs at least one sample")
