"""Grids in the noise level σ/α of any Gaussian path: Karras' ρ, uniform in σ/α, uniform in the log-SNR, or by hand.

Inner points are spaced in a power of the noise level s = σ/α, from `sigma_max` down to `sigma_min`,

    s_i = (s_max^{1/ρ} + i/n·(s_min^{1/ρ} − s_max^{1/ρ}))^ρ,

which is uniform in s for ρ = 1, EDM's grid for ρ = 7, and uniform in the log-SNR as ρ → ∞. Times are where the path
has these levels, t = t(log SNR = −2·log s): one grid is the same grid on every path.

Ends. A bound that is not given is the span's own end, if the noise level there is positive and finite. At an end
without signal (s = ∞) or without noise (s = 0), which no power spaces, it is 80 or 0.002 (EDM's), and the first step
goes from the end to that level, or the last from that level to the end. So do they where a given bound lies inside the
span; a bound outside it is the end itself. The steps are counted with these two. A falling span has the rising grid
reversed.

References:
    Karras et al. 2022, EDM, equation 5. https://arxiv.org/abs/2206.00364
    Lu et al. 2022, DPM-Solver, section 3.4 (uniform in λ). https://arxiv.org/abs/2206.00927
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.errors import TimeError
from fm_core.gaussian import ZERO
from fm_core.protocols import ProbabilityPath
from fm_plugins.grids.warp import check_span

__all__ = ["Karras", "Sigmas", "karras", "log_snr", "sigma", "sigmas"]

SIGMA_MAX, SIGMA_MIN = 80.0, 0.002

_LEVEL = validators.optional(validators.and_(validators.gt(0.0), validators.lt(math.inf)))


@final
@frozen
class Karras:
    """Noise levels σ/α whose ρ-th roots are equally spaced.

    Args:
        rho: ρ > 0; infinity spaces the log-SNR equally.
        sigma_min, sigma_max: Bounds of σ/α; by default those of the span, see the module for its singular ends.
    """

    rho: float = field(default=7.0, validator=validators.gt(0.0))
    sigma_min: float | None = field(default=None, validator=_LEVEL, kw_only=True)
    sigma_max: float | None = field(default=None, validator=_LEVEL, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.sigma_min is not None and self.sigma_max is not None and self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min must be below sigma_max; got {self.sigma_min} and {self.sigma_max}")

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`.

        Args:
            path: Gaussian path.
            steps: Number of steps N.
            span: First and last time, in [0, 1]; falling to invert.

        Returns:
            Times `(N + 1,)`, float64 on the CPU.

        Raises:
            TimeError: For a grid that does not exist.
        """
        low, high = check_span(steps, span)
        first, last = _levels(path, low, high)
        top = _bound(self.sigma_max, first, SIGMA_MAX, last)
        bottom = _bound(self.sigma_min, last, SIGMA_MIN, first)
        count = steps + 1 - (top != first) - (bottom != last)
        if top <= bottom or steps == 1:
            inner = torch.empty(0, dtype=torch.float64, device="cpu")
        else:  # with one point for two levels, it is in their middle
            inner = self._spaced(top, bottom, count) if count > 1 else self._spaced(top, bottom, 3)[1:2]
        inner = inner[(inner < first * (1 - _SAME)) & (inner > last * (1 + _SAME))]
        return _through(path, inner, steps, span)

    def _spaced(self, top: float, bottom: float, count: int) -> Tensor:
        u = torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")
        if math.isinf(self.rho):
            return torch.exp(math.log(top) + u * (math.log(bottom) - math.log(top)))
        root = 1 / self.rho
        spaced: Tensor = (top**root + u * (bottom**root - top**root)) ** self.rho
        return spaced


def karras(rho: float = 7.0, *, sigma_min: float | None = None, sigma_max: float | None = None) -> Karras:
    """EDM's grid: ρ-th roots of σ/α equally spaced.

    Args:
        rho: ρ; the larger, the shorter the steps at low noise.
        sigma_min, sigma_max: Bounds of σ/α; by default those of the span, or 0.002 and 80 at its singular ends.

    References:
        Karras et al. 2022, equation 5. https://arxiv.org/abs/2206.00364
    """
    return Karras(rho, sigma_min=sigma_min, sigma_max=sigma_max)


def sigma(*, sigma_min: float | None = None, sigma_max: float | None = None) -> Karras:
    """Equal steps in the noise level σ/α.

    Args:
        sigma_min, sigma_max: Bounds of σ/α; by default those of the span, or 0.002 and 80 at its singular ends.
    """
    return Karras(1.0, sigma_min=sigma_min, sigma_max=sigma_max)


def log_snr(*, sigma_min: float | None = None, sigma_max: float | None = None) -> Karras:
    """Equal steps in the log-SNR, 2·log(α/σ).

    Args:
        sigma_min, sigma_max: Bounds of σ/α; by default those of the span, or 0.002 and 80 at its singular ends.

    References:
        Lu et al. 2022, DPM-Solver, section 3.4. https://arxiv.org/abs/2206.00927
    """
    return Karras(math.inf, sigma_min=sigma_min, sigma_max=sigma_max)


def _as_levels(levels: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, levels))


@final
@frozen
class Sigmas:
    """Noise levels σ/α given by hand, strictly falling; the ends of the span are added where they are not among them.

    Args:
        levels: σ/α of the grid points, strictly falling, ≥ 0, at least one.
    """

    levels: tuple[float, ...] = field(converter=_as_levels)

    @levels.validator
    def _check(self, _: object, levels: tuple[float, ...]) -> None:
        falling = all(a > b for a, b in pairwise(levels))
        if not levels or not falling or not all(math.isfinite(a) and a >= 0.0 for a in levels):
            raise ValueError(f"sigmas are strictly falling, finite noise levels σ/α ≥ 0, at least one; got {levels}")

    def times(self, path: ProbabilityPath, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """The grid over `span`, if it has `steps` steps.

        Args:
            path: Gaussian path.
            steps: Number of steps N.
            span: First and last time, in [0, 1]; falling to invert.

        Returns:
            Times `(N + 1,)`, float64 on the CPU.

        Raises:
            TimeError: If the levels in the span make another number of steps, or two of them one time.
        """
        low, high = check_span(steps, span)
        first, last = _levels(path, low, high)
        inner = [a for a in self.levels if last * (1 + _SAME) < a < first * (1 - _SAME) and a > ZERO]
        return _through(path, torch.tensor(inner, dtype=torch.float64, device="cpu"), steps, span)


def sigmas(levels: Sequence[float]) -> Sigmas:
    """Noise levels σ/α given by hand.

    Args:
        levels: σ/α of the grid points, strictly falling, ≥ 0.
    """
    return Sigmas(levels)


_SAME = 1e-9
"""Levels closer than this, relatively, are one: given levels are often those of the path's own ends."""


def _levels(path: ProbabilityPath, low: float, high: float) -> tuple[float, float]:
    """σ/α at both ends: infinite without signal, 0 without noise."""
    alpha, noise = getattr(path, "alpha", None), getattr(path, "sigma", None)
    if not callable(alpha) or not callable(noise):
        raise TimeError(
            f"a grid of noise levels needs a Gaussian path's α and σ; {type(path).__name__} has none. Use a grid in t "
            "(uniform, power, shift, …)"
        )
    ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
    levels = [
        math.inf if abs(a) < ZERO else 0.0 if abs(s) < ZERO else s / a
        for a, s in zip(alpha(ends).tolist(), noise(ends).tolist(), strict=True)
    ]
    return levels[0], levels[1]


def _bound(given: float | None, end: float, singular: float, other: float) -> float:
    """The bound of the inner levels on this side: as given, the end's own, or the default at a singular end."""
    inside = 0.0 < end < math.inf
    low, high = sorted((end, other))
    if given is not None:
        return end if inside and not low * (1 + _SAME) < given < high * (1 - _SAME) else given
    return end if inside else min(max(singular, low * (1 + _SAME)), high)


def _through(path: ProbabilityPath, inner: Tensor, steps: int, span: tuple[float, float]) -> Tensor:
    """The times of inner levels, with the ends of the span."""
    low, high = sorted(map(float, span))
    at = path.t_of_log_snr(-2 * inner.log())  # type: ignore[attr-defined]
    ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
    times = torch.cat([ends[:1], at.to(torch.float64), ends[1:]])
    if len(times) != steps + 1:
        raise TimeError(
            f"these noise levels and the ends of the span make {len(times) - 1} steps; got steps={steps}. "
            f"Ask for steps={len(times) - 1}, or give other levels"
        )
    if not times.diff().gt(0).all():
        raise TimeError(
            f"{steps} steps from {span[0]:.6g} to {span[1]:.6g} are not distinct in float64 on this path and grid: "
            "take fewer steps, or bounds sigma_min and sigma_max further apart"
        )
    return times if span[0] < span[1] else times.flip(0)
