"""A benchmark problem: a Gaussian of unequal spreads, whose flow is known in closed form.

The data are x1 ~ N(m, diag(s²)), the path is the linear one from N(0, I). Then the velocity E[x1 − x0 | x_t = x] and
the end of the flow from x0 are

    u(x, t) = m + (t·s² − (1 − t))/(t²·s² + (1 − t)²)·(x − t·m),        x(1) = m + s·x0

since coordinates do not mix and the flow of one is monotone. A solver's error is all its own; where s is small the last
steps are stiff.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import final

import torch
from attrs import field as attribute, frozen, validators
from fm_core import Model, Pipeline, compose
from torch import Tensor

__all__ = ["Ellipse"]


@final
@frozen(slots=False)
class Ellipse:
    """Solvers are asked to carry noise to this Gaussian.

    Args:
        mean: m, of every coordinate.
        stds: s, one for each coordinate.
    """

    mean: float = 1.0
    stds: Sequence[float] = attribute(
        default=(0.1, 0.5, 2.0), validator=validators.deep_iterable(validators.gt(0), validators.min_len(1))
    )

    title = "a Gaussian of unequal spreads"
    exact = True  # the network is the closed form: a reference states an error of at most 1e-9
    reference_error = 1e-12

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return (len(self.stds),)

    @cached_property
    def pipeline(self) -> Pipeline:
        """Path and network; solvers and grids are put in by the benchmark."""
        return compose(path="linear", model=Model(self.velocity, predicts="velocity"))

    def velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """u(x, t) at states `(B, D)` and times `(B,)`."""
        t, s = t.to(x_t)[:, None], self._stds(x_t)
        return self.mean + (t * s**2 - (1 - t)) / (t**2 * s**2 + (1 - t) ** 2) * (x_t - t * self.mean)

    def condition(self, n: int, generator: torch.Generator) -> None:
        """Conditions of n samples: this network takes none."""

    def reference(self, x0: Tensor, cond: None = None) -> Tensor:
        """Where the flow takes source samples `(n, D)`: `(n, D)`, float64."""
        x = x0.to(torch.float64)
        return self.mean + self._stds(x) * x

    def truth(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of the data, `(n, D)`, float64."""
        return self.reference(torch.randn(n, len(self.stds), generator=generator, dtype=torch.float64))

    def _stds(self, like: Tensor) -> Tensor:
        return torch.tensor(self.stds, dtype=like.dtype, device=like.device)
