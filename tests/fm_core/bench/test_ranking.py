"""Runs with other seeds rank alike, and where they do not it is said."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from attrs import evolve

from fm_core.bench.ranking import rankings
from fm_core.bench.records import Record
from fm_core.randomness import make_generator


def run(first: int, problem: str = "p", **errors: Sequence[float]) -> list[Record]:
    return [
        Record("solvers", problem, name, {"nfe": 10}, seed, figures={"error_median": error, "nfe": 10.0})
        for name, replicates in errors.items()
        for seed, error in enumerate(replicates, first)
    ]


A, B, NEAR_A = [1.0, 1.1, 0.9], [5.0, 5.5, 4.5], [1.02, 0.95, 1.1]


def test_one_order_in_both_is_agreement() -> None:
    (found,) = rankings(run(0, a=A, b=B, c=NEAR_A), run(100, a=A[::-1], b=B, c=NEAR_A))
    assert found.figure == "error_median"
    assert (found.pairs, found.both, found.once) == (3, 2, 0), "a and c are told apart by neither"
    assert found.reversed == found.doubtful == ()


def test_opposite_orders_are_reversed_and_one_alone_is_doubtful() -> None:
    (found,) = rankings(run(0, a=A, b=B), run(100, a=B, b=A))
    assert found.both == 1
    assert found.reversed == ('a, b on solvers: p {"nfe": 10}',)
    (found,) = rankings(run(0, a=A, b=B), run(100, a=[1.2, 1.1, 1.3], b=[0.9, 1.2, 1.0]))
    assert (found.both, found.once) == (0, 1)
    assert found.reversed == ()
    assert len(found.doubtful) == 1
    (found,) = rankings(run(0, a=A, b=B), run(100, a=A, b=[0.5, 9.0, 40.0]))
    assert (found.once, found.doubtful) == (1, ())


def test_errors_near_the_references_own_are_apart_in_neither() -> None:
    own = {"reference_error": 2.5}
    a, b = ([evolve(one, figures={**one.figures, **own}) for one in run(at, a=A, b=B, c=[90.0] * 3)] for at in (0, 100))
    assert [(one.pairs, one.both) for one in rankings(a, b) if one.figure == "error_median"] == [(3, 2)]
    assert rankings(a[::3], b[::3]) == [], "one seed tells nothing, here as elsewhere"


def test_other_problems_are_not_compared_and_one_seed_tells_nothing() -> None:
    assert rankings(run(0, a=A, b=B), run(0, "q", a=A, b=B)) == []
    assert rankings(run(0, a=A[:1], b=B[:1]), run(1, a=A[:1], b=B[:1])) == []


def test_equal_contenders_are_reversed_as_seldom_as_chance_has_it() -> None:
    """40 contenders of one law in two runs: 780 pairs, of which one in 20 is told apart in each, in about one both."""
    z = torch.randn(2, 40, 5, generator=make_generator(0), dtype=torch.float64).mul(0.3).exp().tolist()
    before, after = (run(100 * k, **{f"c{i}": values for i, values in enumerate(z[k])}) for k in range(2))
    (found,) = rankings(before, after)
    assert found.pairs == 780
    assert 780 / 20 < found.once < 780 / 7
    assert found.by_chance == pytest.approx(780 / 800)
    assert len(found.reversed) <= 4
