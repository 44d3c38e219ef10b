"""Benchmark problems with one defect each, around one that is right: two Gaussians under labels, on the linear path."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.field import Model
from fm_core.gaussian import GaussianPath
from fm_core.pipeline import compose
from fm_core.testing.mutants.planting import Changed, plant, right

__all__: list[str] = []

_MEANS = torch.tensor([[-1.0, 0.5], [2.0, 1.0]], dtype=torch.float64)
_STD = 0.4


class _Linear:
    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(log_snr / 2)


class _Labelled:
    """x1 ~ N(m_c, s²·I) given c; the flow from x0 is m_c + s·x0."""

    title = "two Gaussians"
    event_shape = (2,)
    exact = True
    reference_error = 1e-9

    def __init__(self) -> None:
        self.pipeline = compose(path=GaussianPath(_Linear()), model=Model(self._velocity, predicts="velocity"))

    def _velocity(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """E[x1 − x0 | x_t, c], linear regression in x_t."""
        t, mean = t.to(x_t)[:, None], _MEANS.to(x_t)[cond]
        return mean + (t * _STD**2 - (1 - t)) / (t**2 * _STD**2 + (1 - t) ** 2) * (x_t - t * mean)

    def condition(self, n: int, generator: torch.Generator) -> Any:
        return torch.randint(2, (n,), generator=generator)

    def reference(self, x0: Tensor, cond: Any = None) -> Tensor:
        return _MEANS[cond] + _STD * x0.double()

    def truth(self, n: int, generator: torch.Generator) -> Tensor | None:
        cond = self.condition(n, generator)
        return _MEANS[cond] + _STD * torch.randn(n, 2, generator=generator, dtype=torch.float64)


_RIGHT = _Labelled()


def _with(**changes: Any) -> Any:
    """The right problem with these of its attributes changed."""
    return lambda: Changed(_RIGHT, **changes)


def _batch_mean(x0: Tensor, cond: Any = None) -> Tensor:
    return _RIGHT.reference(x0 - 1e-3 * (x0.mean(0) - x0), cond)


right("problem", "labelled", _Labelled)

plant("problem", "builds", "a number", lambda: 3)
plant("problem", "builds", "a pipeline alone", lambda: _RIGHT.pipeline)
plant("problem", "shapes", "references in float32", _with(reference=lambda x0, c=None: _RIGHT.reference(x0, c).float()))
plant("problem", "shapes", "flat references", _with(reference=lambda x0, c=None: _RIGHT.reference(x0, c).flatten()))
plant("problem", "shapes", "the first reference alone", _with(reference=lambda x0, c=None: _RIGHT.reference(x0, c)[:1]))
plant(
    "problem",
    "reference_is_the_end_of_the_flow",
    "the step to the data left out at t = 0.9999",
    _with(reference=lambda x0, c=None: _RIGHT.reference(x0, c) + 1e-4 * (x0 - _MEANS[c])),
)
plant(
    "problem",
    "reference_is_the_end_of_the_flow",
    "a reference that is good to 1e-7 and says 1e-9",
    _with(reference=lambda x0, c=None: _RIGHT.reference(x0, c) * (1 + 1e-7)),
)
plant("problem", "reference_is_the_end_of_the_flow", "a closed form that claims 1e-3", _with(reference_error=1e-3))
plant("problem", "rows_are_independent", "source samples centred over the batch", _with(reference=_batch_mean))
plant(
    "problem",
    "rows_are_independent",
    "an error controlled over the batch",
    _with(reference=lambda x0, c=None: _RIGHT.reference(x0, c) * (1 + 1e-6 * len(x0))),
)
plant(
    "problem",
    "condition_follows",
    "the label is ignored",
    _with(reference=lambda x0, c=None: _RIGHT.reference(x0, torch.zeros_like(c))),
)
plant("problem", "condition_follows", "labels of a fixed seed", _with(condition=lambda n, g: torch.arange(n) % 2))
plant("problem", "condition_follows", "torch's global generator", _with(condition=lambda n, g: torch.randint(2, (n,))))
plant("problem", "truth_is_seeded", "torch's global generator", _with(truth=lambda n, g: torch.randn(n, 2)))
plant("problem", "truth_is_seeded", "the same draws whatever the seed", _with(truth=lambda n, g: torch.ones(n, 2)))
plant("problem", "truth_is_seeded", "one draw too many", _with(truth=lambda n, g: _RIGHT.truth(n + 1, g)))
plant(
    "problem",
    "truth_is_the_law_of_the_ends",
    "the truth of one label",
    _with(truth=lambda n, g: _MEANS[0] + _STD * torch.randn(n, 2, generator=g, dtype=torch.float64)),
)
plant(
    "problem",
    "truth_is_the_law_of_the_ends",
    "the variance in place of the standard deviation",
    _with(
        truth=lambda n, g: (
            _MEANS[_RIGHT.condition(n, g)] + _STD**2 * torch.randn(n, 2, generator=g, dtype=torch.float64)
        )
    ),
)
