"""Data of every kind are read in one way: every epoch whole, every batch full, every fault said before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import fm_core as fm
from fm_core.fit.batches import Batches, Preparation, prefetched
from fm_core.fit.data import open_data
from fm_core.randomness import make_generator

N = 10
VALUES = torch.arange(N * 2, dtype=torch.float32).reshape(N, 2)
LABELS = torch.arange(N)


class Items(Dataset[Any]):
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return VALUES[i], {"label": LABELS[i]}


class Fetched(Items):
    def __getitems__(self, index: list[int]) -> list[Any]:
        return [(VALUES[i], {"label": LABELS[i] + 100}) for i in index]


def finite_kinds() -> dict[str, Any]:
    return {
        "tensor": VALUES,
        "pair": (VALUES, {"label": LABELS}),
        "tensor data set": TensorDataset(VALUES, LABELS),
        "map-style data set": Items(),
        "loader": DataLoader(Items(), batch_size=4),
    }


@pytest.mark.parametrize("kind", finite_kinds())
def test_every_epoch_holds_every_sample_once_and_every_draw_is_full(kind: str) -> None:
    data, generator = open_data(finite_kinds()[kind]), make_generator(0)
    drawn = [data.draw(4, generator) for _ in range(5)]
    assert all(rows.x1.shape == (4, 2) for rows in drawn)
    first = torch.cat([rows.x1 for rows in drawn])
    for epoch in (first[:N], first[N:]):
        assert sorted(epoch[:, 0].tolist()) == VALUES[:, 0].tolist()


@pytest.mark.parametrize("kind", [kind for kind in finite_kinds() if kind != "tensor"])
def test_conditions_ride_along_with_their_samples(kind: str) -> None:
    data, generator = open_data(finite_kinds()[kind]), make_generator(0)
    for rows in [data.draw(3, generator) for _ in range(7)]:
        labels = rows.cond["label"] if isinstance(rows.cond, dict) else rows.cond
        assert torch.equal(VALUES[labels], rows.x1)


def test_order_changes_from_epoch_to_epoch() -> None:
    data, generator = open_data(VALUES), make_generator(0)
    first, second = data.draw(N, generator).x1, data.draw(N, generator).x1
    assert not torch.equal(first, second)


def test_a_data_set_that_fetches_many_at_once_is_let_do_so() -> None:
    rows = open_data(Fetched()).draw(4, make_generator(0))
    assert bool((rows.cond["label"] >= 100).all())


def test_a_drawn_state_restores_the_order() -> None:
    data, generator = open_data(VALUES), make_generator(3)
    data.draw(7, generator)
    state, at = data.state(), generator.get_state()
    expected = [data.draw(6, generator).x1 for _ in range(4)]
    again, other = open_data(VALUES), make_generator(99)
    again.restore(state, other)
    other.set_state(at)
    assert all(torch.equal(a, again.draw(6, other).x1) for a in expected)


def test_the_callable_gets_the_size_and_the_generator() -> None:
    def sampler(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x1 = torch.randn(n, 3, generator=generator)
        return x1, x1.sum(1)

    one, two = (open_data(sampler).draw(5, make_generator(4)) for _ in range(2))
    assert torch.equal(one.x1, two.x1)
    assert torch.equal(one.cond, one.x1.sum(1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(0, 2), "empty"),
        (torch.zeros(5), r"\(N, \*D\)"),
        (torch.zeros(5, 2, dtype=torch.uint8), "scale images"),
        (torch.zeros(5, 2, dtype=torch.int64), r"x1\.float"),
        (torch.tensor([[0.0], [float("nan")], [float("inf")]]), "2 of 3 samples, first in sample 1"),
        ((torch.zeros(5, 2), 1, 2), "one pytree"),
        (torch.zeros(5, 2).numpy(), "as_tensor"),
        (7, "got int"),
        (DataLoader(TensorDataset(torch.zeros(3, 2)), batch_size=4, drop_last=True), "no batch"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(data: Any, message: str) -> None:
    with pytest.raises(fm.DataError, match=message):
        open_data(data).draw(1, make_generator(0))


def test_large_finite_data_pass_the_check_of_values() -> None:
    assert open_data(torch.full((4, 2), 3e38)).size == 4


def test_an_iterable_data_set_is_sent_to_a_loader() -> None:
    class Endless(IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            return iter([])

    with pytest.raises(fm.DataError, match="DataLoader"):
        open_data(Endless())


def test_conditions_of_another_length_are_refused() -> None:
    with pytest.raises(fm.ShapeError, match="batch first"):
        open_data((VALUES, LABELS[:5]))


def test_a_callable_that_gives_another_number_is_refused() -> None:
    with pytest.raises(fm.DataError, match="asked for 5"):
        open_data(lambda n, generator: torch.zeros(n + 1, 2)).draw(5, make_generator(0))


def test_pairs_must_have_one_shape() -> None:
    with pytest.raises(fm.ShapeError, match="one shape"):
        fm.Pairs(torch.zeros(4, 2), torch.zeros(4, 3))


def batches(pipeline: fm.Pipeline, data: Any, size: int, seed: int = 0) -> Batches:
    return Batches(open_data(data), Preparation(pipeline, torch.device("cpu"), torch.float32), size, seed)


def test_coupling_decides_which_source_sample_goes_with_which_data(compose: Any, reverse: Any) -> None:
    plain = batches(compose(), (VALUES, {"label": LABELS}), 5).draw()
    coupled = batches(compose(coupling=reverse()), (VALUES, {"label": LABELS}), 5).draw()
    assert torch.equal(coupled.x0, plain.x0)
    assert torch.equal(coupled.x1, plain.x1.flip(0))
    assert torch.equal(VALUES[coupled.cond["label"]], coupled.x1)


def test_a_pool_is_paired_at_once_and_cut_in_the_order_of_the_coupling(compose: Any, reverse: Any) -> None:
    whole = batches(compose(), VALUES, 10).draw()
    pooled = batches(compose(coupling=reverse(pool=10)), VALUES, 5)
    first, second = pooled.draw(), pooled.draw()
    assert torch.equal(torch.cat([first.x1, second.x1]), whole.x1.flip(0))
    assert torch.equal(torch.cat([first.x0, second.x0]), whole.x0)


@pytest.mark.parametrize("drawn", [0, 1, 2, 3, 5])
def test_batches_go_on_from_a_state_also_in_the_middle_of_a_pool(compose: Any, reverse: Any, drawn: int) -> None:
    pipeline = compose(coupling=reverse(pool=10))
    one, two = batches(pipeline, VALUES, 5), batches(pipeline, VALUES, 5)
    for _ in range(drawn):
        one.draw()
    two.restore(one.state())
    for _ in range(4):
        a, b = one.draw(), two.draw()
        assert torch.equal(a.x0, b.x0)
        assert torch.equal(a.x1, b.x1)


@pytest.mark.parametrize(("pool", "message"), [(7, "no multiple"), (20, "smaller pool")])
def test_a_pool_that_does_not_fit_is_refused(compose: Any, reverse: Any, pool: int, message: str) -> None:
    with pytest.raises(fm.DataError, match=message):
        batches(compose(coupling=reverse(pool=pool)), VALUES, 5)


def test_images_and_float64_arrive_in_the_networks_dtype(compose: Any, make_net: Callable[..., Any]) -> None:
    data = torch.zeros(4, 1, 8, 8, dtype=torch.float64), {"label": torch.zeros(4, dtype=torch.int64)}
    rows = batches(compose(make_net(64)), data, 2).draw()
    assert rows.x1.dtype == rows.x0.dtype == torch.float32
    assert rows.x0.shape == (2, 1, 8, 8)
    assert rows.cond["label"].dtype == torch.int64


def test_prefetched_results_come_in_order_and_the_thread_ends() -> None:
    import threading

    counter = iter(range(100))
    with prefetched(lambda: next(counter), 10, 3) as take:
        assert [take() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert not any(thread.name == "fm-fit-prefetch" for thread in threading.enumerate())


def test_what_a_prefetching_thread_raises_arrives_with_its_traceback() -> None:
    def fails() -> int:
        raise ZeroDivisionError("in the coupling")

    with prefetched(fails, 3, 2) as take, pytest.raises(ZeroDivisionError, match="in the coupling") as caught:
        take()
    assert any(entry.name == "fails" for entry in caught.traceback)
