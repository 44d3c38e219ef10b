"""Training batches: data in their order, source samples, and the pairing of both; prepared ahead if asked.

Everything here is drawn from two generators of its own, so the batches are the same whether they are prepared ahead or
not.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import DataError, DivergenceError, ShapeError
from fm_core.fit.data import Data
from fm_core.fit.rows import Rows
from fm_core.protocols import declared
from fm_core.randomness import make_generator, spawn_seed
from fm_core.shapes import map_tensors

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["Batches", "Preparation", "prefetched"]

T = TypeVar("T")

ORDER, SOURCE = 0, 1
"""Streams of the seed: the order of the data (always drawn on the CPU), and source samples with their coupling."""


@frozen(eq=False)
class Preparation:
    """What turns rows of data into a training batch, the same for training and validation.

    Args:
        pipeline: Its path's source, its coupling and its codec are used.
        device: Where the network is.
        dtype: The network's dtype.
    """

    pipeline: Pipeline
    device: torch.device
    dtype: torch.dtype

    @torch.no_grad()
    def __call__(self, rows: Rows, generator: torch.Generator) -> Rows:
        """A batch on the network's device and dtype, encoded, with x0 drawn and paired; conditions follow x1.

        Raises:
            ShapeError: If the coupling does not return an index for every sample.
        """
        rows = map_tensors(self._placed, rows)
        path, coupling, codec = self.pipeline.path, self.pipeline.coupling, self.pipeline.codec
        if codec is not None:
            rows = rows._replace(x1=codec.encode(rows.x1))
        if rows.x0 is not None:
            return rows
        x0 = path.sample_source(rows.x1.shape, generator=generator, dtype=self.dtype, device=self.device)
        if coupling is None:
            return rows._replace(x0=x0)
        try:
            i, j = coupling.pair(x0, rows.x1, rows.cond, generator=generator)
        except DivergenceError:
            if bool(rows.x1.isfinite().all()):
                raise
            # Samples that are not finite cannot be paired: their batches are skipped at the step, like any such batch.
            return rows._replace(x0=x0, x1=torch.full_like(rows.x1, float("nan")))
        if i.shape != j.shape or i.shape != rows.x1.shape[:1]:
            raise ShapeError(
                f"{type(coupling).__name__}.pair must return two indices of shape ({len(x0)},); "
                f"got {tuple(i.shape)}, {tuple(j.shape)}"
            )
        return rows._replace(x0=x0).paired(i.to(x0.device), j.to(x0.device))

    def _placed(self, x: Tensor) -> Tensor:
        return x.to(device=self.device, dtype=self.dtype if x.is_floating_point() else None)


class Batches:
    """Endless training batches of one size.

    Args:
        data: Where rows come from.
        prepare: Makes a batch of them.
        batch_size: Samples in a batch.
        seed: Seed of the training.

    Raises:
        DataError: If the batch, or the pool that the coupling pairs at once, is larger than the data, or no multiple of
            the batch.
    """

    def __init__(self, data: Data, prepare: Preparation, batch_size: int, seed: int) -> None:
        coupling = prepare.pipeline.coupling
        pool = None if coupling is None else declared(coupling, "pool")
        self.size = batch_size
        self._data = data
        self._prepare = prepare
        self._pool = batch_size if pool is None else int(pool)
        self._order = make_generator(spawn_seed(seed, ORDER))
        self._source = make_generator(spawn_seed(seed, SOURCE), prepare.device)
        self._paired: Rows | None = None
        self._used = self._pool
        self._before: dict[str, Any] = {}
        _check_sizes(batch_size, self._pool, data.size)

    def draw(self) -> Rows:
        """The next batch."""
        if self._used == self._pool:
            self._before = self._state()
            self._paired, self._used = self._prepare(self._data.draw(self._pool, self._order), self._source), 0
        assert self._paired is not None
        start, self._used = self._used, self._used + self.size
        return self._paired if self._pool == self.size else self._paired.select(slice(start, self._used))

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on with the batch after the last one drawn."""
        if self._used == self._pool:
            return {**self._state(), "used": None}
        return {**self._before, "used": self._used}  # a pool in use is drawn and paired again

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self._data.restore(state["data"], self._order)
        self._order.set_state(state["order"].cpu())
        self._source.set_state(state["source"].cpu())
        self._used = self._pool
        if state["used"] is not None:
            self.draw()
            self._used = state["used"]

    def _state(self) -> dict[str, Any]:
        return {"data": self._data.state(), "order": self._order.get_state(), "source": self._source.get_state()}


def _check_sizes(batch_size: int, pool: int, size: int | None) -> None:
    if pool % batch_size:
        raise DataError(
            f"the coupling pairs {pool} samples at once, which is no multiple of the batch size {batch_size}; "
            f"make it {max(1, round(pool / batch_size)) * batch_size}"
        )
    if size is not None and batch_size > size:
        raise DataError(
            f"the batch of {batch_size} is larger than the data set of {size} samples; give batch_size={size} or less"
        )
    if size is not None and pool > size:
        raise DataError(
            f"the coupling pairs {pool} samples at once, more than the {size} there are; give it a smaller pool"
        )


@contextmanager
def prefetched(draw: Callable[[], T], count: int, ahead: int) -> Iterator[Callable[[], T]]:
    """A function like `draw`, whose results a background thread prepares up to `ahead` calls before they are asked for.

    What the thread raises is raised by the call that would have got the result, with its traceback. The thread has
    ended when the context is left, however that happens.

    Args:
        draw: Makes one result; it is called by one thread only.
        count: How often it will be called in all.
        ahead: Results to have ready; 0 calls it in place, without a thread.
    """
    if ahead == 0:
        yield draw
        return
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
    stopped = threading.Event()

    def offer(item: tuple[T | None, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.05)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for _ in range(count):
                if stopped.is_set():
                    return
                offer((draw(), None))
        except BaseException as error:
            offer((None, error))

    def take() -> T:
        result, error = ready.get()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # None only beside an error

    thread = threading.Thread(target=work, name="fm-fit-prefetch", daemon=True)
    thread.start()
    try:
        yield take
    finally:
        stopped.set()
        thread.join()
