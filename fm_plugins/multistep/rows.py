"""Weights by index, and rows made of them."""

from __future__ import annotations

from fm_core import Row

__all__ = ["Weights", "table_row", "total"]

Weights = dict[int, float]
"""Weight of the prediction at each time's, or state's, index."""


def total(*parts: Weights) -> Weights:
    """The sum of weights, index by index."""
    weights: Weights = {}
    for part in parts:
        for index, weight in part.items():
            weights[index] = weights.get(index, 0.0) + weight
    return weights


def table_row(t: float, states: Weights, predictions: Weights, noise: float = 0.0, *, accepted: bool = True) -> Row:
    """A row of the table, without what weighs nothing, the most recent prediction first."""
    kept = tuple((k, weight) for k, weight in states.items() if weight)
    used = tuple((j, weight) for j, weight in sorted(predictions.items(), reverse=True) if weight)
    return Row(t, kept, used, noise, accepted)
