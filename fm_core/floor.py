"""The floor of a metric: what it comes to between two independent draws of one generator.

    floor = E metric(x, x'),   x, x' ~ qⁿ independent

No sampler, however perfect, gets below it on average, so a figure means something only beside the floor of the same n.
Single draws scatter (on eight Gaussians W2 by a quarter of its mean at n = 1,000, through the counts of the modes),
hence a mean over several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import DataError
from fm_core.randomness import make_generator

__all__ = ["Floor", "Metric", "Sampler", "draw", "floor"]

Metric = Callable[[Tensor, Tensor], float]
"""A distance between samples `(n, *D)` and `(m, *D)`."""

Sampler = Callable[[int, torch.Generator], Any] | Tensor
"""A data set: `(n, generator) -> x1` or `(x1, cond)`; or samples `(N, *D)`, from which rows are drawn."""


@frozen
class Floor:
    """A metric between independent draws of one law.

    Args:
        mean: Mean over the draws.
        std: Standard deviation of a single draw (not of the mean).
        draws: Pairs of draws.
        n: Samples in each.
    """

    mean: float
    std: float
    draws: int
    n: int

    @classmethod
    def of(cls, values: Sequence[float], n: int) -> Floor:
        """The floor that measured values make.

        Raises:
            DataError: If there are fewer than two.
        """
        if len(values) < 2:
            raise DataError(
                f"a floor is a mean over several draws, at least 2, since single ones scatter; got draws={len(values)}"
            )
        return cls(fmean(values), stdev(values), len(values), n)

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.std:.2g} (n = {self.n}, {self.draws} draws)"


def floor(
    metric: Metric, sampler: Sampler, n: int, *, draws: int = 5, generator: torch.Generator | None = None
) -> Floor:
    """The mean of a metric between two independent draws of the very same generator.

    >>> normal = lambda n, g: torch.randn(n, 2, generator=g)
    >>> distance = lambda x, y: float((x.mean(0) - y.mean(0)).norm())
    >>> floor(distance, normal, 100, generator=torch.Generator().manual_seed(0)).draws
    5

    Args:
        metric: A distance between samples.
        sampler: A data set `(n, generator) -> x1` or `(x1, cond)`; or a finite set of samples `(N, *D)`, 2n ≤ N, whose
            two draws share no row.
        n: Samples in each draw.
        draws: Pairs of draws, at least 2.
        generator: Of all draws; fresh entropy for None.

    Raises:
        DataError: If there are fewer than two draws, or fewer than 2n samples.
    """
    g = generator or make_generator()

    def pair() -> tuple[Tensor, Tensor]:
        if isinstance(sampler, Tensor):
            both = draw(sampler, 2 * n, g)
            return both[:n], both[n:]
        return draw(sampler, n, g), draw(sampler, n, g)

    return Floor.of([metric(*pair()) for _ in range(draws)], n)


def draw(sampler: Sampler, n: int, generator: torch.Generator) -> Tensor:
    """Draws `n` samples without their conditions, shape `(n, *D)`; of a finite set, rows without replacement.

    Raises:
        DataError: If the set has fewer rows.
    """
    if isinstance(sampler, Tensor):
        if n > len(sampler):
            raise DataError(
                f"{n} different rows are drawn from a set of {len(sampler)} (the floor of n samples needs 2n, so that "
                "its draws are independent). Ask for a smaller n."
            )
        rows = torch.randperm(len(sampler), generator=generator, device=generator.device)[:n]
        return sampler[rows.to(sampler.device)]
    drawn = sampler(n, generator)
    samples = drawn[0] if isinstance(drawn, tuple) else drawn
    if not isinstance(samples, Tensor):
        raise DataError(
            f"a data set returns samples as a tensor, or (samples, condition); got a {type(samples).__name__}"
        )
    return samples
