"""The pairing is a permutation, optimal to rounding, and says nothing about the order of its input."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import fm_core.assignment as module
from fm_core.errors import DataError, DivergenceError, ShapeError
from fm_core.randomness import make_generator
from fm_plugins.ot_cfm.coupling import MinibatchOT

KINDS = (
    "normal",
    "offset",
    "scales",
    "huge",
    "tiny",
    "ties",
    "constant",
    "both constant",
    "cauchy",
    "outlier",
    "shuffled",
    "planes",
    "clusters",
)


def clouds(kind: str, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two float64 clouds of shape `(n, d)` that are hard in one way."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d)) @ (rng.standard_normal((d, d)) + 2 * np.eye(d)) + 1
    match kind:
        case "offset":
            x, y = x + 1e6, y - 3e7
        case "scales":
            x, y = x * 1e-9, y * 1e9
        case "huge":
            x, y = x * 1e200, y * 1e200
        case "tiny":
            x, y = x * 1e-200, y * 1e-200
        case "ties":
            x, y = rng.integers(0, 3, (n, d)).astype(float), rng.integers(0, 3, (n, d)).astype(float)
        case "constant":
            x = np.full((n, d), 0.1)
        case "both constant":
            x, y = np.full((n, d), 0.1), np.full((n, d), 0.3)
        case "cauchy":
            x, y = rng.standard_cauchy((n, d)), rng.standard_cauchy((n, d)) ** 3
        case "outlier":
            x[0], y[-1] = x[0] * 1e6, y[-1] * 1e6
        case "shuffled":
            y = x[rng.permutation(n)]
        case "planes":
            x[:, 0], y[:, 1:] = 0, 0
        case "clusters":
            x, y = (1e-6 * z + 10 * rng.integers(0, 2, (n, 1)) for z in (x, y))
    return torch.from_numpy(x), torch.from_numpy(y)


def costs(x0: Tensor, x1: Tensor) -> np.ndarray:
    """Squared distances of the centred clouds, in units of the larger one, by differences in float64."""
    x, y = (z.double().flatten(1) for z in (x0, x1))
    x, y = x - x.mean(0), y - y.mean(0)
    unit = max(float(x.abs().max()), float(y.abs().max())) or 1.0
    return ((x[:, None] - y[None]) / unit).square().sum(-1).numpy()


def pair(x0: Tensor, x1: Tensor, seed: int = 0, coupling: MinibatchOT | None = None) -> tuple[Tensor, Tensor]:
    return (coupling or MinibatchOT()).pair(x0, x1, generator=make_generator(seed))


def assert_optimal(x0: Tensor, x1: Tensor, i: Tensor, j: Tensor) -> None:
    """To 1e-9 of the optimal cost, or 1e-12 of the squared extent where that cost is nearly nothing."""
    cost = costs(x0, x1)
    best = cost[linear_sum_assignment(cost)].sum()
    assert cost[i, j].sum() == pytest.approx(best, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 40), d=st.integers(1, 6), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32), data=st.data()
)
def test_pairing_is_an_optimal_permutation(n: int, d: int, kind: str, seed: int, data: st.DataObject) -> None:
    x0, x1 = clouds(kind, n, d, seed)
    i, j = pair(x0, x1, data.draw(st.integers(0, 2**62)))
    assert i.dtype == j.dtype == torch.int64
    assert sorted(i.tolist()) == sorted(j.tolist()) == list(range(n))
    assert_optimal(x0, x1, i, j)


@pytest.mark.parametrize("n", range(1, 7))
def test_small_batches_equal_brute_force(n: int) -> None:
    for seed in range(5):
        x0, x1 = clouds("normal", n, 2, seed)
        cost = costs(x0, x1)
        best = min(cost[range(n), columns].sum() for columns in map(list, permutations(range(n))))
        i, j = pair(x0, x1)
        assert cost[i, j].sum() == pytest.approx(best, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d"), [(200, 1), (256, 2), (150, 64)])
def test_cost_equals_plain_scipy(kind: str, n: int, d: int) -> None:
    x0, x1 = clouds(kind, n, d)
    assert_optimal(x0, x1, *pair(x0, x1))


@pytest.mark.parametrize("relaxation", [0.0, 1.0, 40.0])
def test_pairing_is_exact_however_rough_the_potentials(relaxation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 drives the scaling to infinity: the potentials only buy speed."""
    monkeypatch.setattr(module, "_RELAXATION", relaxation)
    for kind in ("normal", "cauchy", "ties"):
        x0, x1 = clouds(kind, 100, 2)
        assert_optimal(x0, x1, *pair(x0, x1))


def test_potentials_change_the_cost_by_rows_and_columns_only() -> None:
    """Otherwise another problem is solved. Double differences c_ij − c_i0 − c_0j + c_00 do not see f_i + g_j."""
    x, y = (module._standard(z) for z in clouds("normal", 50, 3))
    reduced, plain = module._reduced_cost(x, y), -(x @ y.T)
    left, right = (c - c[:, :1] - c[:1] + c[:1, :1] for c in (reduced, plain))
    torch.testing.assert_close(left / left.norm(), right / right.norm(), rtol=1e-9, atol=1e-12)


def test_potentials_leave_near_zeros_on_the_pairs() -> None:
    """Otherwise they do not help: on the optimal pairs the reduced cost is far below its mean."""
    x, y = (module._standard(z) for z in clouds("normal", 256, 2))
    reduced = module._reduced_cost(x, y).numpy()
    reduced = reduced - reduced.min(1, keepdims=True)
    assert reduced[linear_sum_assignment(reduced)].mean() < 0.01 * reduced.mean()


def test_cost_equals_pot_emd() -> None:
    ot = pytest.importorskip("ot")
    x0, x1 = clouds("normal", 128, 5)
    i, j = pair(x0, x1)
    weights = np.full(128, 1 / 128)
    cost = costs(x0, x1)
    assert cost[i, j].mean() == pytest.approx(float(ot.emd2(weights, weights, cost)), rel=1e-9)


def test_pairing_is_cheaper_than_the_independent_one() -> None:
    x0, x1 = clouds("normal", 256, 2)
    i, j = pair(x0, x1)
    assert (x0[i] - x1[j]).square().sum() < 0.5 * (x0 - x1).square().sum()


@pytest.mark.parametrize("shape", [(8, 2), (2, 2), (64, 1, 8, 8), (12, 3, 4, 5), (1, 2), (1, 1, 8, 8), (9,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_any_event_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = make_generator(0)
    x0, x1 = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    i, j = pair(x0, x1)
    assert i.shape == j.shape == shape[:1]
    if len(shape) > 1:
        assert_optimal(x0, x1, i, j)
    else:
        assert_optimal(x0[:, None], x1[:, None], i, j)


def test_conditions_follow_the_data() -> None:
    """The label names the sample it was drawn with: after pairing it must still do so, beside its own source."""
    x1 = torch.arange(10.0)[:, None] * 100
    labels = torch.arange(10) * 7
    x0 = x1[torch.randperm(10, generator=make_generator(1))] + 1
    i, j = MinibatchOT().pair(x0, x1, labels, generator=make_generator(0))
    assert torch.equal(labels[j], (x1[j, 0] / 100 * 7).long())
    assert torch.equal(x0[i], x1[j] + 1)


def test_equal_seeds_give_equal_pairs_whatever_the_global_seeds() -> None:
    x0, x1 = clouds("ties", 60, 2)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
    first = pair(x0, x1, seed=3)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    second = pair(x0, x1, seed=3)
    MinibatchOT().pair(x0, x1)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert not torch.equal(first[0], pair(x0, x1, seed=4)[0])


def test_pairs_come_in_random_order() -> None:
    """A pool is cut into training batches as it comes: a batch of sorted data must not be a slice of it."""
    x1 = torch.arange(512.0)[:, None]
    i, j = pair(x1 * 2, x1)
    assert torch.equal(i, j)
    for head in (j[:256], j[256:]):
        assert abs(float(head.double().mean()) - 255.5) < 5 * 512 / (12 * 256) ** 0.5


def test_ties_are_broken_at_random() -> None:
    """Of two equal data samples with different labels, each must get the left source half of the time."""
    x0, x1 = torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1)
    swapped = sum(int((pairs := pair(x0, x1, seed))[0][0] != pairs[1][0]) for seed in range(400))
    assert abs(swapped - 200) < 5 * 10


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-1e4, 1e4), scale=st.floats(1e-3, 1e3), side=st.sampled_from([0, 1]))
def test_pairs_do_not_move_with_either_side(shift: float, scale: float, side: int) -> None:
    clean = clouds("normal", 40, 3)
    moved = list(clean)
    moved[side] = moved[side] * scale + shift
    for a, b in zip(pair(*clean), pair(*moved), strict=True):
        assert torch.equal(a, b)


def test_within_condition_pairs_only_equal_conditions() -> None:
    """Each label keeps the sources that came with it, and each label's pairing is optimal on its own."""
    x0, x1 = clouds("normal", 90, 2)
    labels = torch.arange(90) % 4
    i, j = MinibatchOT(within_condition=True).pair(x0, x1, labels, generator=make_generator(0))
    assert sorted(i.tolist()) == sorted(j.tolist()) == list(range(90))
    assert torch.equal(labels[i], labels[j])
    assert len(labels[j][:20].unique()) == 4
    for label in range(4):
        rows = torch.nonzero(labels == label)[:, 0]
        place = {int(row): k for k, row in enumerate(rows)}
        chosen = labels[j] == label
        pairs = (torch.tensor([place[int(k)] for k in index[chosen]]) for index in (i, j))
        assert_optimal(x0[rows], x1[rows], *pairs)


def test_within_condition_takes_rows_as_conditions() -> None:
    x0, x1 = clouds("normal", 12, 2)
    cond = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)
    i, j = MinibatchOT(within_condition=True).pair(x0, x1, cond, generator=make_generator(0))
    assert torch.equal(cond[i], cond[j])


@pytest.mark.parametrize("cond", [None, {"label": torch.zeros(8)}, torch.zeros(7), torch.tensor(1)])
def test_within_condition_refuses_what_it_cannot_group(cond: object) -> None:
    with pytest.raises(DataError, match="a condition for each of the 8 samples"):
        MinibatchOT(within_condition=True).pair(torch.zeros(8, 2), torch.zeros(8, 2), cond)


@pytest.mark.parametrize("shapes", [((4, 2), (5, 2)), ((4, 2), (4, 3)), ((0, 2), (0, 2)), ((4,), (4, 1))])
def test_shapes_that_disagree_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match="cannot pair x0 of shape"):
        MinibatchOT().pair(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["x0", "x1"])
def test_non_finite_samples_are_named(bad: float, name: str) -> None:
    sides = {"x0": torch.zeros(4, 1, 2), "x1": torch.zeros(4, 1, 2)}
    sides[name][2, 0, 1] = bad
    with pytest.raises(DivergenceError, match=rf"1 of 4 samples of {name} are not finite \(the first at 2\)"):
        MinibatchOT().pair(**sides)


@pytest.mark.parametrize("pool", [0, -1, 1.5])
def test_pool_is_a_positive_count(pool: float) -> None:
    with pytest.raises((ValueError, TypeError)):
        MinibatchOT(pool=pool)  # type: ignore[arg-type]
