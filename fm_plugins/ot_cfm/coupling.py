"""Minibatch optimal transport: the pairing of source and data of least squared distance.

π = argmin over permutations of Σ_i |x0_i − x1_π(i)|², found exactly by `fm_core.assignment`.

References:
    Tong et al. 2023, section 3.2. https://arxiv.org/abs/2302.00482
    Pooladian et al. 2023. https://arxiv.org/abs/2304.14772
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.assignment import optimal_matching
from fm_core.errors import DataError, DivergenceError, ShapeError
from fm_core.randomness import make_generator

__all__ = ["MinibatchOT"]


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
            partner[rows] = columns[optimal_matching(x[rows], y[columns])]
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
