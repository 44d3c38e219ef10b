"""Exact optimal matching of two point sets of one size, made fast by guessing the dual first.

The matching is the permutation π that minimises Σ_i |x_i − y_π(i)|². Two changes leave π as it is:

- Centring and scaling either side by itself: Σ_i |x_i − y_π(i)|² is, up to what every permutation shares, −2·Σ_i
  x_i·y_π(i). So the cost is c_ij = −x_i·y_j of rows with mean 0 and mean square 1, free of the cancellation that an
  offset brings into |x − y|².
- Subtracting a potential g_j of the columns (or f_i of the rows): Σ_i (c_iπ(i) − g_π(i)) = Σ_i c_iπ(i) − Σ_j g_j for
  **any** g, because a permutation visits every column once. However rough the guess of g, the answer stays exact, up
  to float64's rounding at the size of the centred data: about 1e-16·|x||y| a pair.

Why subtract: scipy's solver grows shortest augmenting paths (Crouse 2016) from zero duals. Near the optimal dual most
rows meet their partner at once, and the search, which takes nearly all the time, shrinks to a scan. (The rows' duals
need no guess: each row's first scan finds its own.) The guess starts from g = −|y|²/2, the potential of the map that
only shifts and scales. Sinkhorn scaling, a = 1/(K·b) and b = 1/(Kᵀ·a) with K = exp(−(c − f − g)/ε), over-relaxed,
refines it at falling temperatures ε, in float32. Each temperature's ε·log b goes into g, so that K is built once per
temperature, never underflows where it matters, and an iteration is two matrix-vector products.

References:
    Crouse 2016, On implementing 2D rectangular assignment algorithms. https://doi.org/10.1109/TAES.2016.140952
    Thibault et al. 2017, Overrelaxed Sinkhorn-Knopp. https://arxiv.org/abs/1711.01851
    Peyré & Cuturi 2019, sections 2.3, 3 and 4. https://arxiv.org/abs/1803.00567
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["optimal_matching"]

# Measured on the data sets of benchmarks/bench_coupling.py, n = 256 to 2048: near the least total time, which is flat.
_TEMPERATURES = (0.1, 0.02, 0.004)
_ITERATIONS = 5
_RELAXATION = 1.7


def optimal_matching(x: Tensor, y: Tensor) -> Tensor:
    """The permutation π that minimises Σ_i |x_i − y_π(i)|².

    Args:
        x: Points, shape `(n, d)`, float64 on the CPU, finite.
        y: As many points, shape `(n, d)`.

    Returns:
        Indices into y, int64, shape `(n,)`.

    >>> optimal_matching(torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[1.1], [0.1]]).double())
    tensor([1, 0])
    """
    _, match = linear_sum_assignment(_reduced_cost(_standard(x), _standard(y)).numpy())
    return torch.from_numpy(match)


def _standard(rows: Tensor) -> Tensor:
    """Rows with mean 0 and mean square length 1 (or all 0), shape `(n, d)`."""
    rows = rows - rows.mean(0)
    size = float(rows.norm())
    if not 1e-100 < size < 1e100:  # squares overflow or vanish: by the largest entry first
        rows = rows / (float(rows.abs().amax()) or 1.0)
        size = float(rows.norm())
    return rows / (size / len(rows) ** 0.5 or 1.0)


def _reduced_cost(x: Tensor, y: Tensor) -> Tensor:
    """The cost −x·y of standard rows, in units of its own size, less a near-optimal potential: float64, `(n, n)`."""
    product = y.float() @ x.float().T
    # Rows of one value, or clouds in orthogonal planes: every pairing costs the same.
    unit = float(product.norm()) / len(x) or 1.0
    guess = y.square().sum(1) / (-2 * unit)
    potential = torch.from_numpy(_potential(product.div_(-unit).numpy(), guess.numpy()))
    return torch.addmm(-potential, x, y.T, alpha=-1 / unit)


def _potential(rest: NDArray[np.float32], g: NDArray[np.float64]) -> NDArray[np.float64]:
    """A dual potential of the columns, by annealed, over-relaxed Sinkhorn scaling.

    In numpy, and the products by einsum, because these stay on one thread: torch and BLAS split each of some fifty
    short loops among threads, and every split is a barrier that waits for whatever else the other cores do (the
    training step, when pairs are made in the background).

    Args:
        rest: The cost, transposed, for least values and sums over the first axis are the fast ones: shape `(n, n)`;
            overwritten by what the potentials leave of it.
        g: First guess, shape `(n,)`.

    Returns:
        The refined potential, shape `(n,)`.
    """
    kernel = np.empty_like(rest)
    dg = g.astype(np.float32)
    for temperature in map(np.float32, _TEMPERATURES):
        rest -= dg[:, None]
        # Every row's least is 0: its sum over K is at least 1.
        rest -= rest.min(0)
        np.multiply(rest, -1 / temperature, out=kernel)
        # e^-30 for what is farther: sums stay positive, and subnormal numbers would make the products ten times slower.
        np.maximum(kernel, np.float32(-30), out=kernel)
        np.exp(kernel, out=kernel)
        a = 1 / kernel.sum(0)
        b = 1 / np.einsum("ji,i->j", kernel, a)
        # Over-relaxation has no bound, but any finite guess will do.
        with np.errstate(all="ignore"):
            for _ in range(_ITERATIONS - 1):
                a = a * (a * np.einsum("j,ji->i", b, kernel)) ** -_RELAXATION
                b = b * (b * np.einsum("ji,i->j", kernel, a)) ** -_RELAXATION
            dg = np.nan_to_num(temperature * np.log(b), nan=0.0, posinf=0.0, neginf=0.0)
        g = g + dg
    return g
