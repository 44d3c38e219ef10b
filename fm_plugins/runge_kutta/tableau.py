"""Explicit Butcher tableaux, and their order from the rooted trees.

A method has order p if and only if `Σ_i b_i·Φ_i(τ) = 1/γ(τ)` for every rooted tree τ with at most p nodes, where for
τ with the subtrees τ_1 … τ_m under its root `Φ_i(τ) = Π_k Σ_j a_ij·Φ_j(τ_k)` and `γ(τ) = |τ|·Π_k γ(τ_k)`, the single
node having Φ = 1 and γ = 1.

References:
    Butcher 1963; Hairer, Nørsett & Wanner 1993, Theorem II.2.13. https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

__all__ = ["Tableau"]

Tree = tuple["Tree", ...]
"""A rooted tree: the sorted tuple of the subtrees under its root."""

HIGHEST = 8
"""Orders are told apart up to this one: 200 trees."""


def _row(entries: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(entry) for entry in entries)


def _rows(a: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(_row(row) for row in a)


@frozen
class Tableau:
    """An explicit tableau.

    Args:
        a: Row i holds the weights a_ij of the stages j < i; the first row is empty.
        b: Weights of the stages in the step.

    Raises:
        ValueError: If the tableau is not explicit or not finite, rows and weights differ in number, or Σ b ≠ 1.
    """

    a: tuple[tuple[float, ...], ...] = field(converter=_rows)
    b: tuple[float, ...] = field(converter=_row)

    def __attrs_post_init__(self) -> None:
        for i, row in enumerate(self.a):
            if len(row) != i:
                raise ValueError(
                    f"row {i} of an explicit tableau holds {i} weights, a_{i}0 … a_{i}{i - 1}; got {len(row)}: {row}"
                )
        if not all(math.isfinite(entry) for row in (*self.a, self.b) for entry in row):
            raise ValueError(f"the entries of a tableau are finite numbers; got a = {self.a} and b = {self.b}")
        if len(self.a) != len(self.b) or not self.b:
            raise ValueError(
                f"a tableau has as many rows as weights, at least one; got {len(self.a)} rows and {len(self.b)} weights"
            )
        if not math.isclose(sum(self.b), 1.0, abs_tol=1e-12):
            raise ValueError(f"the weights b of a consistent method sum to 1; got {sum(self.b)}")

    @property
    def c(self) -> tuple[float, ...]:
        """Nodes c_i = Σ_j a_ij; those within rounding of 0 or 1 are 0 or 1, so that no stage leaves the step."""
        nodes = (math.fsum(row) for row in self.a)
        return tuple(float(round(node)) if math.isclose(node, round(node), abs_tol=1e-12) else node for node in nodes)

    @property
    def stages(self) -> int:
        """Evaluations per step."""
        return len(self.b)

    @property
    def order(self) -> int:
        """The order of convergence, 1 to 8.

        >>> Tableau([[], [1.0]], [0.5, 0.5]).order
        2
        """
        a = np.zeros((self.stages, self.stages))
        for i, row in enumerate(self.a):
            a[i, :i] = row
        b = np.array(self.b)
        order = 1
        while order < HIGHEST and all(
            math.isclose(float(b @ _weights(tree, a)), 1 / _density(tree), rel_tol=1e-10) for tree in _trees(order + 1)
        ):
            order += 1
        return order


@functools.cache
def _trees(nodes: int) -> tuple[Tree, ...]:
    """All rooted trees of this many nodes."""
    return tuple(sorted(set(_forests(nodes - 1, nodes - 1))))


@functools.cache
def _forests(nodes: int, largest: int) -> tuple[Tree, ...]:
    """All multisets of trees with this many nodes in total, none larger than `largest`."""
    if nodes == 0:
        return ((),)
    return tuple(
        tuple(sorted((tree, *rest)))
        for size in range(min(nodes, largest), 0, -1)
        for tree in _trees(size)
        for rest in _forests(nodes - size, size)
    )


def _nodes(tree: Tree) -> int:
    return 1 + sum(_nodes(child) for child in tree)


def _density(tree: Tree) -> int:
    return _nodes(tree) * math.prod(_density(child) for child in tree)


def _weights(tree: Tree, a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Φ_i(τ) for all stages i."""
    weights = np.ones(len(a))
    for child in tree:
        weights = weights * (a @ _weights(child, a))
    return weights
