"""Order conditions by rooted trees, against the orders that the literature proves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from fm_plugins.runge_kutta.tableau import HIGHEST, Tableau, _density, _nodes, _trees

DORMAND_PRINCE = [
    [],
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]

# name: (order, a, b)
KNOWN: dict[str, tuple[int, Any, Any]] = {
    "Euler": (1, [[]], [1]),
    "two Euler steps": (1, [[], [0.5]], [0.5, 0.5]),
    "midpoint": (2, [[], [1 / 2]], [0, 1]),
    "Heun": (2, [[], [1]], [1 / 2, 1 / 2]),
    "Ralston": (2, [[], [2 / 3]], [1 / 4, 3 / 4]),
    "Heun 3": (3, [[], [1 / 3], [0, 2 / 3]], [1 / 4, 0, 3 / 4]),
    "Kutta 3": (3, [[], [1 / 2], [-1, 2]], [1 / 6, 2 / 3, 1 / 6]),
    "SSP 3": (3, [[], [1], [1 / 4, 1 / 4]], [1 / 6, 1 / 6, 2 / 3]),
    "Bogacki–Shampine": (3, [[], [1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]], [2 / 9, 1 / 3, 4 / 9, 0]),
    "Bogacki–Shampine, embedded": (2, [[], [1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]], [7 / 24, 1 / 4, 1 / 3, 1 / 8]),
    "RK4": (4, [[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    "3/8 rule": (4, [[], [1 / 3], [-1 / 3, 1], [1, -1, 1]], [1 / 8, 3 / 8, 3 / 8, 1 / 8]),
    "Dormand–Prince": (5, DORMAND_PRINCE, [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0]),
    "Dormand–Prince, embedded": (
        4,
        DORMAND_PRINCE,
        [5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40],
    ),
    "Butcher, six stages": (
        5,
        [[], [1 / 4], [1 / 8, 1 / 8], [0, -1 / 2, 1], [3 / 16, 0, 0, 9 / 16], [-3 / 7, 2 / 7, 12 / 7, -12 / 7, 8 / 7]],
        [7 / 90, 0, 32 / 90, 12 / 90, 32 / 90, 7 / 90],
    ),
    "Butcher, seven stages": (
        6,
        [
            [],
            [1 / 3],
            [0, 2 / 3],
            [1 / 12, 1 / 3, -1 / 12],
            [-1 / 16, 9 / 8, -3 / 16, -3 / 8],
            [0, 9 / 8, -3 / 8, -3 / 4, 1 / 2],
            [9 / 44, -9 / 11, 63 / 44, 18 / 11, 0, -16 / 11],
        ],
        [11 / 120, 0, 27 / 40, 27 / 40, -4 / 15, -4 / 15, 11 / 120],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_order_is_the_proven_one(name: str) -> None:
    order, a, b = KNOWN[name]
    assert Tableau(a, b).order == order


@pytest.mark.parametrize("name", KNOWN)
def test_no_stage_leaves_the_step(name: str) -> None:
    """Nodes that are 1 but for rounding are 1: a network must not be asked beyond the end of its interval."""
    assert all(0 <= c <= 1 for c in Tableau(*KNOWN[name][1:]).c)
    assert Tableau(DORMAND_PRINCE, KNOWN["Dormand–Prince"][2]).c == pytest.approx(
        (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
    )


@given(weights=st.lists(st.floats(-20, 20), min_size=1, max_size=6))
@settings(max_examples=50)
def test_nodes_that_are_whole_but_for_rounding_are_whole(weights: list[float]) -> None:
    """The last stage's weights sum to 1 by construction, up to rounding."""
    row = [*weights, 1 - sum(weights)]
    a = [[0.0] * i for i in range(len(row))] + [row]
    assert Tableau(a, [1.0] + [0.0] * len(row)).c[-1] == 1.0


def test_there_are_as_many_rooted_trees_as_there_are() -> None:
    """OEIS A000081."""
    assert [len(_trees(n)) for n in range(1, HIGHEST + 1)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert all(_nodes(tree) == n for n in range(1, HIGHEST + 1) for tree in _trees(n))
    assert all(len(set(_trees(n))) == len(_trees(n)) for n in range(1, HIGHEST + 1))


def test_densities_are_those_of_the_table() -> None:
    """Hairer, Nørsett & Wanner, table II.2.1: γ of the trees with up to four nodes."""
    assert [sorted(_density(tree) for tree in _trees(n)) for n in range(1, 5)] == [[1], [2], [3, 6], [4, 8, 12, 24]]


@given(c=st.floats(0.1, 1.0))
def test_two_stages_of_order_two_are_one_family(c: float) -> None:
    """b_2 = 1/(2c): every node gives order 2, no other weight does."""
    b = 1 / (2 * c)
    assert Tableau([[], [c]], [1 - b, b]).order == 2
    assert Tableau([[], [c]], [1 - b - 1e-3, b + 1e-3]).order == 1


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ([[0.5], [1.0]], [0.5, 0.5], r"row 0 of an explicit tableau holds 0 weights.*got 1"),
        ([[], [1.0, 0.5]], [0.5, 0.5], r"row 1 of an explicit tableau holds 1 weights.*got 2"),
        ([[], []], [0.5, 0.5], r"row 1.*got 0"),
        ([[]], [0.5, 0.5], "1 rows and 2 weights"),
        ([], [], "0 rows and 0 weights"),
        ([[], [1.0]], [0.5, 0.6], r"sum to 1; got 1.1"),
        ([[], [1.0]], [float("nan"), 0.5], "entries of a tableau are finite"),
        ([[], [float("nan")]], [0.5, 0.5], "entries of a tableau are finite"),
        ([[], [float("inf")]], [0.5, 0.5], "entries of a tableau are finite"),
    ],
)
def test_what_is_no_explicit_consistent_tableau_is_refused(a: Any, b: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Tableau(a, b)
