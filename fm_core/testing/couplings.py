"""What every coupling keeps: which samples it pairs, that conditions follow, and that the marginals stay.

Whether pairs are near is seen from their cost, `c̄ = (1/B)·Σ|x0_i − x1_j|²`. For pairs drawn at random from the B² ones
it has the mean of all |x0 − x1|² and their variance over B (a permutation's is smaller, since no row or column can come
twice), so the sum over batches of `c̄ − mean` is measured in its standard deviations.

References:
    Hoeffding 1951, A combinatorial central limit theorem. https://doi.org/10.1214/aoms/1177729545
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.protocols import declared
from fm_core.randomness import make_generator
from fm_core.shapes import tensors_of
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of
from fm_core.testing.traces import global_randomness

__all__: list[str] = []

BATCH = 32

SIZES = (1, 2, 3, 7, BATCH, 100, 257)
"""Batches that are paired: what is paired in blocks, or by a rule for large batches, is found out too."""

DEVIATIONS = 4.5
"""Standard deviations by which the cost of pairs is off from that of random ones, always with the same draws."""


def _batch(seed: int = 0, *event: int, size: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = make_generator(seed)
    shape = (size, *(event or (2,)))
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) * 2 + 1


def _pair(coupling: Any, x0: Tensor, x1: Tensor, cond: Any = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    i, j = coupling.pair(x0, x1, cond, generator=make_generator(seed))
    for name, index in (("i", i), ("j", j)):
        if index.shape != (len(x0),) or index.is_floating_point():
            raise Failed(f"{name} must be integers ({len(x0)},); got {tuple(index.shape)} of {index.dtype}")
        if int(index.min()) < 0 or int(index.max()) >= len(x0):
            raise Failed(f"{name} holds {int(index.min())} … {int(index.max())}; the batch has 0 … {len(x0) - 1}")
    return i, j


@check_of("coupling")
def indices(subject: Subject) -> None:
    """`pair` gives two index vectors `(B,)` into the batch, for vectors and images, from a batch of one to hundreds."""
    coupling = subject.build()
    for event in ((2,), (1, 4, 4), (BATCH,)):
        for size in SIZES:
            _pair(coupling, *_batch(0, *event, size=size))


@check_of("coupling")
def bijective_is_a_permutation(subject: Subject) -> float:
    """Where it says bijective, every sample of both ends is used exactly once."""
    coupling = subject.build()
    if not declared(coupling, "bijective"):
        raise Skipped("it does not say that it is bijective")
    worst = 0
    for seed, size in enumerate(SIZES):
        for index in _pair(coupling, *_batch(seed, size=size), seed=seed):
            worst = max(worst, size - len(set(index.tolist())))
    return at_most(worst, 0, "samples of a batch that are left out")


@check_of("coupling")
def marginals_stay(subject: Subject) -> float:
    """Over many batches every sample of either end is used equally often, on average."""
    coupling, worst = subject.build(), 0.0
    for size, draws in ((BATCH, 400), (100, 100)):
        (x0, x1), counts = _batch(size=size), torch.zeros(2, size)
        for seed in range(draws):
            for side, index in enumerate(_pair(coupling, x0, x1, seed=seed)):
                counts[side] += torch.bincount(index.cpu(), minlength=size)
        # A sample drawn with replacement is used Poisson(1) times a draw: five standard deviations of its mean.
        what = f"in batches of {size} a sample's use a draw, off from 1 by"
        worst = max(worst, at_most(float((counts / draws - 1).abs().max()), 5 / draws**0.5, what))
    return worst


@check_of("coupling")
def cheaper_than_independent(subject: Subject) -> float:
    """Where it says not independent, its pairs are nearer to each other than random ones, in batches of every size."""
    coupling = subject.build()
    if declared(coupling, "independent"):
        raise Skipped("it says that it is independent")
    return at_most(max(_dearer(coupling, size) for size in (BATCH, 257)), -DEVIATIONS, _COST)


@check_of("coupling")
def independent_is_independent(subject: Subject) -> float:
    """Where it says independent, which x1 an x0 gets does not depend on their distance."""
    coupling = subject.build()
    if not declared(coupling, "independent"):
        raise Skipped("it does not say that it is independent")
    return at_most(max(abs(_dearer(coupling, size)) for size in (BATCH, 257)), DEVIATIONS, _COST)


_COST = "the cost of its pairs less that of random ones, in standard deviations of the latter"


def _dearer(coupling: Any, size: int) -> float:
    """By how many of their standard deviations its pairs cost more than random ones, over batches of a size."""
    excess = variance = 0.0
    for seed in range(10):
        x0, x1 = _batch(seed, size=size)
        cost = (x0[:, None] - x1[None]).square().sum(2).double()
        i, j = _pair(coupling, x0, x1, seed=seed)
        excess += float(cost[i, j].mean() - cost.mean())
        variance += float(cost.var()) / size
    return float(excess / variance**0.5)


@check_of("coupling")
def conditions_follow(subject: Subject) -> None:
    """Conditions of any form are taken and left as they are: they belong to x1 and follow its index."""
    coupling, x0, x1 = subject.build(), *_batch()
    label = torch.arange(BATCH) % 3
    for cond in (label.clone(), {"label": label.clone(), "text": None}, (label.clone(), torch.zeros(BATCH, 4, 2))):
        _pair(coupling, x0, x1, cond)
        if not torch.equal(tensors_of(cond)[0], label):
            raise Failed("a condition is another one after pairing; give indices, and leave cond as it is")


@check_of("coupling")
def inputs_stay(subject: Subject) -> None:
    """It changes neither x0 nor x1."""
    coupling, x0, x1 = subject.build(), *_batch()
    before = x0.clone(), x1.clone()
    _pair(coupling, x0, x1)
    if not torch.equal(before[0], x0) or not torch.equal(before[1], x1):
        raise Failed("x0 or x1 is another tensor after pairing")


@check_of("coupling")
def seeds(subject: Subject) -> None:
    """Equal seeds give equal pairs, and no global random state is touched."""
    coupling, x0, x1 = subject.build(), *_batch()
    global_randomness(lambda: torch.stack(_pair(coupling, x0, x1, seed=0)))
    first, second = (_pair(coupling, x0, x1, seed=3) for _ in range(2))
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise Failed("two pairings from equally seeded generators differ")
