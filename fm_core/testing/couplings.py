"""What every coupling keeps: which samples it pairs, that conditions follow, and that the marginals stay."""

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


def _batch(seed: int = 0, *event: int) -> tuple[Tensor, Tensor]:
    generator = make_generator(seed)
    shape = (BATCH, *(event or (2,)))
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
    """`pair` gives two index vectors `(B,)` into the batch, for vectors, images and a batch of one."""
    coupling = subject.build()
    for event in ((2,), (1, 4, 4), (BATCH,)):
        _pair(coupling, *_batch(0, *event))
    x0, x1 = _batch()
    _pair(coupling, x0[:1], x1[:1])


@check_of("coupling")
def bijective_is_a_permutation(subject: Subject) -> float:
    """Where it says bijective, every sample of both ends is used exactly once."""
    coupling = subject.build()
    if not declared(coupling, "bijective"):
        raise Skipped("it does not say that it is bijective")
    worst = 0
    for seed in range(5):
        for index in _pair(coupling, *_batch(seed), seed=seed):
            worst = max(worst, BATCH - len(set(index.tolist())))
    return at_most(worst, 0, "samples of a batch that are left out")


@check_of("coupling")
def marginals_stay(subject: Subject) -> float:
    """Over many batches every sample of either end is used equally often, on average."""
    coupling, x0, x1 = subject.build(), *_batch()
    draws, counts = 400, torch.zeros(2, BATCH)
    for seed in range(draws):
        for side, index in enumerate(_pair(coupling, x0, x1, seed=seed)):
            counts[side] += torch.bincount(index.cpu(), minlength=BATCH)
    # A sample drawn with replacement is used Poisson(1) times a draw: five standard deviations of its mean.
    return at_most(float((counts / draws - 1).abs().max()), 5 / draws**0.5, "a sample's use a draw, off from 1 by")


@check_of("coupling")
def cheaper_than_independent(subject: Subject) -> float:
    """Where it says not independent, its pairs are nearer to each other than random ones."""
    coupling = subject.build()
    if declared(coupling, "independent"):
        raise Skipped("it says that it is independent")
    own, random = 0.0, 0.0
    for seed in range(5):
        x0, x1 = _batch(seed)
        i, j = _pair(coupling, x0, x1, seed=seed)
        own += float((x0[i] - x1[j]).square().sum(1).mean())
        random += float((x0[:, None] - x1[None]).square().sum(2).mean())
    if own >= random:
        raise Failed(f"its pairs cost {own / 5:.3g}, random ones {random / 5:.3g}", own / random)
    return own / random


@check_of("coupling")
def independent_is_independent(subject: Subject) -> float:
    """Where it says independent, which x1 an x0 gets does not depend on their distance."""
    coupling = subject.build()
    if not declared(coupling, "independent"):
        raise Skipped("it does not say that it is independent")
    ratios = []
    for seed in range(20):
        x0, x1 = _batch(seed)
        i, j = _pair(coupling, x0, x1, seed=seed)
        own = (x0[i] - x1[j]).square().sum(1).mean()
        ratios.append(float(own / (x0[:, None] - x1[None]).square().sum(2).mean()))
    return at_most(abs(sum(ratios) / len(ratios) - 1), 0.1, "its pairs cost the share of random ones off from 1 by")


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
