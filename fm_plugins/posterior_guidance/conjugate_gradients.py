"""Conjugate gradients for every sample by itself: a fixed number of iterations, without waiting for the numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["conjugate_gradients"]


def conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solves `apply(v) = b` for a symmetric positive semidefinite matrix of each sample.

    The k-th iterate has the least error, in the matrix's norm, of the Krylov space of dimension k, so it is exact once
    k reaches the number of distinct eigenvalues that b has parts of. A sample ends where its residual is 0, or where
    the matrix turns out not to be positive along a direction, as that of a network's Jacobian may.

    Args:
        apply: The matrices, from `(B, *M)` to `(B, *M)`.
        b: Right-hand sides, `(B, *M)`.
        iterations: How many, each with one product.

    Returns:
        v, shape `(B, *M)`.

    References:
        Hestenes & Stiefel 1952, https://doi.org/10.6028/jres.049.044
    """
    v, r, p = torch.zeros_like(b), b, b
    squared = _dot(r, r)
    solved = squared * torch.finfo(b.dtype).eps ** 2  # further products would be of rounding alone, and underflow
    for _ in range(iterations):
        product = apply(p)
        curvature = _dot(p, product)
        positive = (curvature > 0) & (squared > solved)
        step = torch.where(positive, squared / torch.where(positive, curvature, 1.0), 0.0)
        v, r = v + step * p, r - step * product
        previous, squared = squared, _dot(r, r)
        turn = squared / torch.where(previous > 0, previous, 1.0)
        p = torch.where(positive, r + turn * p, 0.0)
    return v


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the samples, shaped `(B, 1, …, 1)`."""
    return (a * b).reshape(len(a), -1).sum(1).reshape((-1,) + (1,) * (a.ndim - 1))
