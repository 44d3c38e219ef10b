"""Weighted sums of states, `Σ w_k·x_k`, at the least cost for their size.

Small states cost by the kernel, so many operands are one product: stacked once for several sums, and multiplied by the
weights of each. Large states cost by the byte. There two operands are one pass over memory, and more are
added block by block: each operand is read once and the sum written once, while the running sum stays in the processor's
cache. Going over it there again is not free: at 2²² floats a sum of two costs 1.09 times what reading each operand once
does, of three 1.4 to 1.6, of nine 1.5 to 1.7 (`benchmarks/bench_plan.py`). `compile=True` fuses them into one pass, at
1.1 and less. With gradients, and on other devices, there is one kernel for each operand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

__all__ = ["FEW", "SMALL", "combine", "multiplies", "product"]

FEW = 3
"""Up to so many operands of one sum are added one by one."""

SMALL = 2**14
"""Numbers in a state below which the kernel counts more than the bytes."""

LARGE = 2**18
"""Numbers in a state from which it no longer stays in the cache while operands are added."""

BLOCK = 2**17
"""Numbers in a block, for each thread: few enough for the second-level cache, and enough to outweigh the kernel."""


def multiplies(x: Tensor) -> bool:
    """Whether sums of states like x may be products: elsewhere they may be rounded to TF32 or bfloat16."""
    return x.numel() < SMALL and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def product(rows: Sequence[Tensor], terms: Sequence[Tensor]) -> list[Tensor]:
    """Several sums of the same terms.

    A view costs as much as a small kernel. So a sum is a product of its own, which for a single vector has the state's
    shape already, and need not be cut out of one of all sums: 0.12 of a step of `unipc` at B = 1, where the network
    takes nearly all of it (`benchmarks/bench_plan.py`).

    Args:
        rows: The weights of each sum, `(1, terms)`.
        terms: Tensors of one shape.

    Returns:
        The sums, new tensors of this shape.
    """
    shape, joined = terms[0].shape, torch.cat(terms)  # type: ignore[arg-type]
    if joined.dim() == 2 and len(joined) == len(terms):
        return [torch.mm(row, joined) for row in rows]
    columns = (len(terms), -1)  # `view`, which costs less than `reshape`, has nothing for channels last
    table = joined.view(columns) if joined.is_contiguous() else joined.reshape(columns)
    return [torch.mm(row, table).view(shape) for row in rows]


def combine(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """`Σ w_k·x_k` as a new tensor."""
    first = terms[0]
    if len(terms) == 1 or first.numel() < LARGE or not _blockwise(terms):
        return _one_by_one(weights, terms)
    total, one = torch.empty_like(first), first.new_ones(1)
    size = BLOCK * torch.get_num_threads() if len(terms) > 2 else first.numel()
    blocks = [torch.split(x.view(1, -1), size, dim=1) for x in terms]
    for into, x, y, *rest in zip(torch.split(total.view(1, -1), size, dim=1), *blocks):
        torch.addr(x, one, y[0], beta=weights[0], alpha=weights[1], out=into)  # w_0·x + w_1·1⊗y: both in one pass
        for weight, term in zip(weights[2:], rest):
            into.add_(term, alpha=weight)
    return total


def _blockwise(terms: Sequence[Tensor]) -> bool:
    """Whether sums may be written into memory of their own: derivatives, backward or forward, do not follow there."""
    grad = torch.is_grad_enabled()
    return all(
        x.device.type == "cpu"
        and x.is_contiguous()
        and not (grad and x.requires_grad)
        and unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]
        for x in terms
    )


def _one_by_one(weights: Sequence[float], terms: Sequence[Tensor]) -> Tensor:
    """The sum, one kernel for each term; a first term of weight 1 costs none."""
    if weights[0] == 1.0 and len(terms) > 1:
        total, rest = torch.add(terms[0], terms[1], alpha=weights[1]), 2
    else:
        total, rest = torch.mul(terms[0], weights[0]), 1
    for weight, term in zip(weights[rest:], terms[rest:]):
        total.add_(term, alpha=weight)
    return total
