"""Exact minibatch optimal transport, made fast by guessing the dual first.

The pairing is the permutation π that minimises Σ_i |x0_i − x1_π(i)|². Two changes leave π as it is:

- Centring and scaling either side by itself: Σ_i |x0_i − x1_π(i)|² is, up to what every permutation shares, −2·Σ_i
  x0_i·x1_π(i). So the cost is c_ij = −x_i·y_j of rows with mean 0 and mean square 1, free of the cancellation that an
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
    Tong et al. 2023, section 3.2. https://arxiv.org/abs/2302.00482
    Pooladian et al. 2023. https://arxiv.org/abs/2304.14772
    Crouse 2016, On implementing 2D rectangular assignment algorithms. https://doi.org/10.1109/TAES.2016.140952
    Thibault et al. 2017, Overrelaxed Sinkhorn-Knopp. https://arxiv.org/abs/1711.01851
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fm_core.errors import DataError, DivergenceError, ShapeError
from fm_core.randomness import make_generator

__all__ = ["MinibatchOT"]

# Measured on the data sets of benchmarks/bench_coupling.py, B = 256 to 2048: near the least total time, which is flat.
_TEMPERATURES = (0.1, 0.02, 0.004)
_ITERATIONS = 5
_RELAXATION = 1.7


@final
@frozen
class MinibatchOT:
    """Pairs a batch by exact optimal transport under the squared Euclidean cost of the flattened events.

    π = argmin over permutations of Σ_i |x0_i − x1_π(i)|²

    The generator draws the order in which either side is put to the solver, and nothing else. It is the order in which
    the pairs come back, so that they can be cut into training batches as they come, and it decides between equally good
    pairings (equal images with different labels): the law of the pairs does not depend on the order of the input.

    Args:
        pool: How many samples the trainer should pair at once, a multiple of its batch; None means the batch. A larger
            pool comes closer to the transport of the distributions, at a cost that grows like pool² to pool³.
        within_condition: Pair only samples of equal condition. Otherwise a conditional model is trained on the sources
            that transport sends to its condition and sampled from all of them, because x0 is no longer independent of
            the condition (Cheng & Schwing 2025). For labels: with a condition of its own for every sample nothing is
            left to pair.

    References:
        Tong et al. 2023, section 3.2. https://arxiv.org/abs/2302.00482
        Cheng & Schwing 2025, The Curse of Conditions. https://arxiv.org/abs/2503.10636

    >>> x0, x1 = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.1], [0.1], [1.1]])
    >>> i, j = MinibatchOT().pair(x0, x1, generator=torch.Generator().manual_seed(0))
    >>> (x1[j] - x0[i]).flatten()
    tensor([0.1000, 0.1000, 0.1000])
    """

    independent: ClassVar[bool] = False
    bijective: ClassVar[bool] = True

    pool: int | None = field(
        default=None, validator=validators.optional(validators.and_(validators.instance_of(int), validators.ge(1)))
    )
    within_condition: bool = field(default=False, kw_only=True, validator=validators.instance_of(bool))

    def pair(
        self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Indices of the optimal pairs: `x0[i]` goes with `x1[j]` and its condition `cond[j]`.

        Args:
            x0: Source samples, shape `(B, *D)`, any floating dtype, any device.
            x1: Data samples, shape `(B, *D)`.
            cond: Conditions of x1, batch first; read only under `within_condition`, which needs one tensor `(B, *C)`.
            generator: Draws the order of the pairs; None takes fresh entropy.

        Returns:
            `(i, j)`, both permutations of `0..B−1`, int64 on the device of x0 and x1 respectively, shape `(B,)`.

        Raises:
            ShapeError: The batches differ in size or event shape, or are empty.
            DivergenceError: A sample is not finite.
            DataError: `within_condition` without a tensor of one condition per sample.
        """
        if x0.shape != x1.shape or x0.numel() == 0:
            raise ShapeError(
                f"cannot pair x0 of shape {tuple(x0.shape)} with x1 of shape {tuple(x1.shape)}: a pairing without loss "
                "needs as many source as data samples, of one event shape and not empty; draw x0 in the shape of x1"
            )
        x, y = _rows(x0, "x0"), _rows(x1, "x1")
        generator = generator or make_generator()
        order = _permutation(len(x), generator)
        partner = torch.empty_like(order)
        for rows in self._groups(order, cond):
            columns = rows[_permutation(len(rows), generator)]
            _, match = linear_sum_assignment(_reduced_cost(_standard(x[rows]), _standard(y[columns])).numpy())
            partner[rows] = columns[torch.from_numpy(match)]
        return order.to(x0.device), partner[order].to(x1.device)

    def _groups(self, order: Tensor, cond: Any) -> list[Tensor]:
        """The indices that may be paired with each other, each group in the random order."""
        if not self.within_condition:
            return [order]
        if not isinstance(cond, Tensor) or cond.ndim == 0 or len(cond) != len(order):
            got = f"shape {tuple(cond.shape)}" if isinstance(cond, Tensor) else type(cond).__name__
            raise DataError(
                f"within_condition pairs samples of equal condition and needs one tensor with a condition for each of "
                f"the {len(order)} samples, got {got}; pass cond, or use MinibatchOT() to pair regardless of it"
            )
        labels = torch.unique(cond.detach().cpu()[order], dim=0, return_inverse=True)[1]
        return [order[labels == label] for label in range(int(labels.max()) + 1)]


def _permutation(n: int, generator: torch.Generator) -> Tensor:
    """A random order of `0..n−1` on the CPU, drawn where the generator lives."""
    return torch.randperm(n, generator=generator, device=generator.device).cpu()


def _rows(x: Tensor, name: str) -> Tensor:
    """Events flattened, float64 on the CPU, shape `(B, d)`."""
    rows = x.detach().to("cpu", torch.float64).reshape(len(x), -1)
    finite = rows.isfinite().all(1)
    if not finite.all():
        raise DivergenceError(
            f"{int((~finite).sum())} of {len(x)} samples of {name} are not finite (the first at "
            f"{int(finite.int().argmin())}), so no pairing has a finite cost; look at where {name} comes from"
        )
    return rows


def _standard(rows: Tensor) -> Tensor:
    """Rows with mean 0 and mean square length 1 (or all 0), shape `(n, d)`."""
    rows = rows - rows.mean(0)
    # By the largest entry first, so that no square overflows or vanishes.
    rows /= float(rows.abs().amax()) or 1.0
    return rows / (float(rows.norm()) / len(rows) ** 0.5 or 1.0)


def _reduced_cost(x: Tensor, y: Tensor) -> Tensor:
    """The cost −x·y of standard rows, in units of its own size, less a near-optimal potential: float64, `(n, n)`."""
    product = x.float() @ y.float().T
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
        rest: The cost, shape `(n, n)`; overwritten by what the potentials leave of it.
        g: First guess, shape `(n,)`.

    Returns:
        The refined potential, shape `(n,)`.
    """
    kernel = np.empty_like(rest)
    dg = g.astype(np.float32)
    for temperature in map(np.float32, _TEMPERATURES):
        rest -= dg
        # Every row's least is 0: its sum over K is at least 1.
        rest -= rest.min(1)[:, None]
        np.multiply(rest, -1 / temperature, out=kernel)
        # e^-30 for what is farther: sums stay positive, and subnormal numbers would make the products ten times slower.
        np.maximum(kernel, np.float32(-30), out=kernel)
        np.exp(kernel, out=kernel)
        a = 1 / kernel.sum(1)
        b = 1 / np.einsum("i,ij->j", a, kernel)
        # Over-relaxation has no bound, but any finite guess will do.
        with np.errstate(all="ignore"):
            for _ in range(_ITERATIONS - 1):
                a = a * (a * np.einsum("ij,j->i", kernel, b)) ** -_RELAXATION
                b = b * (b * np.einsum("i,ij->j", a, kernel)) ** -_RELAXATION
            dg = np.nan_to_num(temperature * np.log(b), nan=0.0, posinf=0.0, neginf=0.0)
        g = g + dg
    return g
