"""The Gaussian paths on which every property is shown.

Paths come as fixtures, since test modules cannot import each other: `path` is each in turn, `paths` holds all by name.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

from fm_core import GaussianPath
from fm_plugins.cfm.linear import linear

# One thread from the first test on, whatever was imported before: samples are compared to the last bits.
torch.set_num_threads(1)


@frozen
class Cosine:
    """α = sin(πt/2), σ = cos(πt/2): variance preserving, with finite derivatives at both ends."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(t * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.cos(t * (math.pi / 2))

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.cos(t * (math.pi / 2)) * (math.pi / 2)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -torch.sin(t * (math.pi / 2)) * (math.pi / 2)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.atan(torch.exp(log_snr / 2)) * (2 / math.pi)


@frozen
class VP:
    """α = exp(−½∫β), σ² = 1 − α², with β linear in s = 1 − t from `low` to `high`, so that σ' = −∞ at the data.

    References:
        Song et al. 2021, appendix C. https://arxiv.org/abs/2011.13456
    """

    low: float = 0.1
    high: float = 20.0

    def _log_alpha(self, t: Tensor) -> Tensor:
        s = 1 - t
        return -0.5 * (self.low * s + 0.5 * (self.high - self.low) * s.square())

    def _d_log_alpha(self, t: Tensor) -> Tensor:
        return 0.5 * (self.low + (self.high - self.low) * (1 - t))

    def alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self._d_log_alpha(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self.alpha(t).square() * self._d_log_alpha(t) / self.sigma(t)


@frozen
class VE:
    """α = 1, σ geometric from `high` to `low`."""

    high: float = 20.0
    low: float = 0.02

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.high * torch.exp(-self._rate * t)

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self._rate * self.sigma(t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return ((log_snr / 2 + math.log(self.high)) / self._rate).clamp(0, 1)

    @property
    def _rate(self) -> float:
        return math.log(self.high / self.low)


class Stranger:
    """A third party's eight lines, with nothing in closed form: α = t², σ = (1 − t)·(1 + t/2)."""

    def alpha(self, t: Tensor) -> Tensor:
        return t**2

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - t) * (1 + t / 2)


PATHS = {
    "linear": linear(),
    "linear_sigma_min": linear(sigma_min=0.01),
    "cosine": GaussianPath(Cosine()),
    "vp": GaussianPath(VP()),
    "ve": GaussianPath(VE()),
    "stranger": GaussianPath(Stranger()),
}


@pytest.fixture(scope="session", params=PATHS)
def path(request: pytest.FixtureRequest) -> GaussianPath:
    """Each Gaussian path in turn."""
    return PATHS[request.param]


@pytest.fixture(scope="session")
def paths() -> dict[str, GaussianPath]:
    """All Gaussian paths by name."""
    return PATHS


@pytest.fixture(scope="session")
def without_closed_forms() -> Any:
    """A path like the given one, of whose schedule only alpha and sigma are known."""

    @frozen
    class Bare:
        schedule: Any

        def alpha(self, t: Tensor) -> Tensor:
            return self.schedule.alpha(t)

        def sigma(self, t: Tensor) -> Tensor:
            return self.schedule.sigma(t)

    return lambda path: GaussianPath(Bare(path.schedule))
