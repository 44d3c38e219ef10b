"""Weighted sums of states, `Σ w_k·x_k`, at the least cost for their size.

Small states cost by the kernel, so many operands are one product: stacked, and multiplied by the weights, which also
makes several sums at once. Large states cost by the byte: each operand is read once and the sum written once, block by
block, so that the running sum stays in the processor's cache. Elsewhere (on other devices, with gradients) there is one
kernel for each operand; `compile=True` fuses those.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FEW", "SMALL", "combine", "multiplies", "product"]

FEW = 4
"""Up to so many operands of one sum are added one by one."""

SMALL = 2**14
"""Numbers in a state below which the kernel counts more than the bytes."""

LARGE = 2**18
"""Numbers in a state from which it no longer stays in the cache while operands are added."""

BLOCK = 2**16
"""Numbers in a block, for each thread: few enough for the second-level cache, and enough to outweigh the kernel."""


def multiplies(x: Tensor) -> bool:
    """Whether sums of states like x may be products: elsewhere they may be rounded to TF32 or bfloat16."""
    return x.numel() < SMALL and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def product(matrix: Tensor, terms: Sequence[Tensor]) -> Sequence[Tensor]:
    """Several sums of the same terms.

    Args:
        matrix: Weights, shape `(sums, terms)`.
        terms: Tensors of one shape.

    Returns:
        The sums, new tensors of this shape.
    """
    shape = terms[0].shape
    sums = torch.mm(matrix, torch.cat(terms).reshape(len(terms), -1))  # type: ignore[arg-type]
    return (sums.view(shape),) if len(matrix) == 1 else sums.view(-1, *shape).unbind()


def combine(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """`Σ w_k·x_k` as a new tensor."""
    first = terms[0]
    passes = len(terms) - (weights[0] == 1.0)
    if passes > 1 and first.numel() >= LARGE and _blockwise(terms):
        total = torch.empty_like(first)
        size = BLOCK * torch.get_num_threads()
        blocks = [torch.split(x.detach().view(-1), size) for x in terms]
        for into, *parts in zip(torch.split(total.view(-1), size), *blocks):
            _add_up(weights, parts, into)
        return total
    return _add_up(weights, terms, None)


def _blockwise(terms: Sequence[Tensor]) -> bool:
    grad = torch.is_grad_enabled()
    return all(x.device.type == "cpu" and x.is_contiguous() and not (grad and x.requires_grad) for x in terms)


def _add_up(weights: Sequence[float], terms: Sequence[Tensor], into: Tensor | None) -> Tensor:
    """The sum, one kernel for each term; a first term of weight 1 costs none."""
    if weights[0] == 1.0 and len(terms) > 1:
        total = torch.add(terms[0], terms[1], alpha=weights[1], out=into)
        if len(terms) == 2:
            return total
        rest = 2
    else:
        total, rest = torch.mul(terms[0], weights[0], out=into), 1
    for weight, term in zip(weights[rest:], terms[rest:]):
        total.add_(term, alpha=weight)
    return total
