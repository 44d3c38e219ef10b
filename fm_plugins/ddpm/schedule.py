"""DDPM's path, `α = √ᾱ`, `σ = √(1 − ᾱ)`: exact products of 1 − β at the knots, smooth and monotone between them.

Index k = 0 … N−1 is the time t = 1 − (k + 1)/N, and α = 1 at t = 1. Between the knots α is a cubic Hermite polynomial,
which is differentiable; its slopes are central differences of fourth order, kept between half and twice the smaller of
the secants beside them, so that α rises strictly (Fritsch & Carlson 1980). α is what to interpolate, for it has a
finite slope at both ends, zero terminal SNR included, where log ᾱ has none. The cubic is kept twice: as α, by powers
of the distance from the noisier knot, and as 1 − α, from the cleaner one. So `σ² = (1 − α)·(1 + α)` does not cancel
near the data, nor α near the noise.

References:
    Ho et al. 2020. https://arxiv.org/abs/2006.11239
    Nichol & Dhariwal 2021, equation 17 (squared cosine). https://arxiv.org/abs/2102.09672
    Lin et al. 2023, Algorithm 1 (zero terminal SNR). https://arxiv.org/abs/2305.08891
    Fritsch & Carlson 1980. https://doi.org/10.1137/0717021
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from torch import Tensor

from fm_core import GaussianPath, Prediction
from fm_core.errors import did_you_mean

__all__ = ["DDPM", "betas_of", "ddpm"]

Floats = NDArray[np.float64]

_ITERATIONS = 12
"""Of the bracketed Newton iteration; about 5 do where β is smooth."""

_SLACK = 1e-9
"""By which its bracket exceeds the interval, lest rounding at a knot turn Newton's steps into bisection."""


def betas_of(name: str, steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Floats:
    """The noise variances β_0 … β_{N−1} of a named schedule, float64 `(N,)`.

    Args:
        name: `linear`: from `beta_start` to `beta_end`; `scaled_linear`: √β is linear (latent diffusion);
            `squared_cosine`: `1 − f((k+1)/N)/f(k/N)`, `f(s) = cos²((s + 0.008)/1.008·π/2)`, at most 0.999.
        steps: N.
        beta_start, beta_end: β of the first and the last step; `squared_cosine` has none.

    Raises:
        ValueError: For an unknown name.
    """
    match name:
        case "linear":
            return np.linspace(beta_start, beta_end, steps)
        case "scaled_linear":
            return np.square(np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), steps))
        case "squared_cosine":
            f = np.square(np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * (np.pi / 2)))
            return np.minimum(1 - f[1:] / f[:-1], 0.999)
    hint = did_you_mean(name, ("linear", "scaled_linear", "squared_cosine"))
    raise ValueError(f"betas must be numbers or the name of a schedule; got {name!r}; {hint}")


def _betas(values: Sequence[float]) -> tuple[float, ...]:
    betas = tuple(float(value) for value in values)
    if len(betas) < 4 or not all(0 < beta < 1 for beta in betas):
        wrong = [f"β_{k} = {beta}" for k, beta in enumerate(betas) if not 0 < beta < 1][:1]
        got = wrong[0] if wrong else f"{len(betas)} of them"
        raise ValueError(
            f"β must be at least 4 numbers strictly between 0 and 1, from the data to the noise; got {got}"
        )
    return betas


@frozen
class DDPM:
    """Schedule of DDPM.

    Args:
        betas: Noise variances β_0 … β_{N−1}, from the data to the noise.
        zero_terminal_snr: Rescale √ᾱ linearly, such that it is 0 at the last index and stays as it is at the first:
            `α̃_k = (α_k − α_{N−1})·α_0/(α_0 − α_{N−1})`. Noise and score can then not be predicted at t = 0.

    Attributes:
        span: Networks stop at index 0, t = 1 − 1/N.
        refused: What networks must not predict: noise and score under zero terminal SNR.
    """

    betas: tuple[float, ...] = field(converter=_betas, repr=lambda betas: f"<{len(betas)}>")
    zero_terminal_snr: bool = False
    span: tuple[float, float] = field(init=False)
    refused: frozenset[Prediction] = field(init=False)
    _tables: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(factory=dict, init=False, repr=False, eq=False)

    @span.default
    def _stops_at_index_0(self) -> tuple[float, float]:
        return 0.0, 1 - 1 / len(self.betas)

    @refused.default
    def _no_noise_at_zero_snr(self) -> frozenset[Prediction]:
        return frozenset({Prediction.NOISE, Prediction.SCORE} if self.zero_terminal_snr else ())

    def alpha(self, t: Tensor) -> Tensor:
        """α = √ᾱ."""
        position, interval, (rising, _, _) = self._locate(t)
        return _cubic(rising[interval], position - interval).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """σ = √(1 − ᾱ)."""
        return self._sigma(t).to(t.dtype)

    def d_alpha(self, t: Tensor) -> Tensor:
        """α', the polynomial's own."""
        position, interval, (rising, _, _) = self._locate(t)
        return (_slope(rising[interval], position - interval) * len(self.betas)).to(t.dtype)

    def d_sigma(self, t: Tensor) -> Tensor:
        """σ' = −α·α'/σ; −∞ at t = 1."""
        time = t.to(torch.float64)
        return (-self.alpha(time) * self.d_alpha(time) / self._sigma(time)).to(t.dtype)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Inverse of `2·log(α/σ)` by bracketed Newton iteration on the cubic, clipped to [0, 1]."""
        rising, falling, knots = self._table(log_snr.device)
        value = log_snr.to(torch.float64).clamp(knots[0], knots[-1])
        interval = (torch.searchsorted(knots, value) - 1).clamp(0, len(knots) - 2)
        alpha = torch.sigmoid(value).sqrt()
        rest = torch.sigmoid(-value) / (1 + alpha)
        up, down = rising[interval], falling[interval]
        low, high = torch.full_like(value, -_SLACK), torch.full_like(value, 1 + _SLACK)
        u = torch.where(alpha < 0.5, _chord(up, alpha), 1 - _chord(down, rest)).clamp(0, 1)
        for _ in range(_ITERATIONS):
            error = torch.where(alpha < 0.5, _cubic(up, u) - alpha, rest - _cubic(down, 1 - u))
            low, high = torch.where(error <= 0, u, low), torch.where(error >= 0, u, high)
            newton = u - error / _slope(up, u)
            u = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        return ((interval + u) / len(self.betas)).clamp(0, 1).to(log_snr.dtype)

    def _sigma(self, t: Tensor) -> Tensor:
        position, interval, (_, falling, _) = self._locate(t)
        rest = _cubic(falling[interval], interval + 1 - position)
        return (rest * (2 - rest)).sqrt()

    def _locate(self, t: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """N·t in float64, its interval, and the table."""
        position = t.to(torch.float64) * len(self.betas)
        return position, position.long().clamp(0, len(self.betas) - 1), self._table(t.device)

    def _table(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """By rising t: the cubics of α and of 1 − α, each `(N, 4)`, and the log-SNR of the knots, `(N + 1,)`."""
        found = self._tables.get(device)
        if found is None:
            rising, falling, log_snr = _interpolation(*_knots(np.array(self.betas), self.zero_terminal_snr))
            found = self._tables[device] = (
                torch.from_numpy(rising).to(device),
                torch.from_numpy(falling).to(device),
                torch.from_numpy(log_snr).to(device),
            )
        return found


def _knots(betas: Floats, zero_terminal_snr: bool) -> tuple[Floats, Floats]:
    """α and 1 − α at the knots t = 0, 1/N, …, 1, each exact to rounding."""
    alpha = np.concatenate([[1.0], np.sqrt(np.cumprod(1 - betas))])
    rest = np.concatenate([[0.0], -np.expm1(np.cumsum(np.log1p(-betas)) / 2)])
    if zero_terminal_snr:
        first, last = alpha[1], alpha[-1]
        scale = first / (first - last)
        alpha[1:] = scale * (alpha[1:] - last)
        rest[1:] = scale * rest[1:] - rest[1] * last / (first - last)
    return alpha[::-1], rest[::-1]


def _interpolation(alpha: Floats, rest: Floats) -> tuple[Floats, Floats, Floats]:
    """Coefficients of α by powers of the way from the left knot and of 1 − α by powers of the way from the right one,
    in units of an interval, each `(N, 4)`; and the log-SNR of the knots `(N + 1,)`.
    """
    secant = np.where(alpha[:-1] < 0.5, np.diff(alpha), -np.diff(rest))
    slope = _slopes(secant)
    left, right = slope[:-1], slope[1:]
    rising = [alpha[:-1], left, 3 * secant - 2 * left - right, left + right - 2 * secant]
    falling = [rest[1:], right, 3 * secant - 2 * right - left, left + right - 2 * secant]
    with np.errstate(divide="ignore"):
        log_snr = 2 * np.log(alpha) - np.log(rest) - np.log1p(alpha)
    return np.stack(rising, 1), np.stack(falling, 1), log_snr


def _slopes(secant: Floats) -> Floats:
    """Slopes at the N + 1 knots from the N secants: fourth order, third at the ends, within bounds that keep the cubics
    rising.
    """
    before = [6 * secant[0] - 8 * secant[1] + 3 * secant[2], 3 * secant[0] - 3 * secant[1] + secant[2]]
    after = [3 * secant[-1] - 3 * secant[-2] + secant[-3], 6 * secant[-1] - 8 * secant[-2] + 3 * secant[-3]]
    d = np.concatenate([before, secant, after])
    central = (7 * (d[1:-2] + d[2:-1]) - d[:-3] - d[3:]) / 12
    smaller = np.minimum(np.append(secant, secant[-1]), np.append(secant[0], secant))
    slopes: Floats = np.clip(central, smaller / 2, 2 * smaller)
    return slopes


def _cubic(coefficients: Tensor, u: Tensor) -> Tensor:
    """The polynomial with coefficients `(…, 4)` at u `(…)`."""
    c0, c1, c2, c3 = coefficients.unbind(-1)
    return torch.addcmul(c0, u, torch.addcmul(c1, u, torch.addcmul(c2, u, c3)))


def _slope(coefficients: Tensor, u: Tensor) -> Tensor:
    """Its derivative."""
    _, c1, c2, c3 = coefficients.unbind(-1)
    return torch.addcmul(c1, u, torch.addcmul(2 * c2, u, c3, value=3))


def _chord(coefficients: Tensor, value: Tensor) -> Tensor:
    """Where the chord from 0 to 1 takes the value."""
    return (value - coefficients[..., 0]) / coefficients[..., 1:].sum(-1)


LEFT = 0.1
"""The most of the data, as α(0)/σ(0), that may be left where samples start as noise."""


def ddpm(
    betas: str | Sequence[float] = "linear",
    steps: int | None = None,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    zero_terminal_snr: bool = False,
) -> GaussianPath:
    """The path of a DDPM from standard normal noise.

    Args:
        betas: `linear`, `scaled_linear`, `squared_cosine`, or the noise variances from the data to the noise.
        steps: N; 1000 unless `betas` are numbers. With fewer, `beta_end` must rise: t = 0 is to be noise.
        beta_start, beta_end: β of the first and the last step of the linear schedules.
        zero_terminal_snr: Rescale such that nothing is left of the data at t = 0.

    Raises:
        ValueError: For an unknown name, for β outside (0, 1), for another number of `betas` than `steps`, and for named
            betas that leave too much of the data at t = 0.

    >>> path = ddpm()
    >>> path.span("noise")
    (0.0, 0.999)
    >>> path.alpha(torch.tensor([0.0, 0.999])).square()  # ᾱ of the last index and of the first
    tensor([4.0358e-05, 9.9990e-01])
    """
    if isinstance(betas, str):
        count = steps or 1000
        path = GaussianPath(DDPM(tuple(betas_of(betas, count, beta_start, beta_end)), zero_terminal_snr))
        left = float(path.log_snr(torch.zeros((), dtype=torch.float64)).div(2).exp())
        if left > LEFT:
            raise ValueError(
                f"{count} steps of {betas!r} betas up to {beta_end:g} leave α(0)/σ(0) = {left:.2g} of the data where "
                f"samples start as noise, at most {LEFT:g} is harmless; raise beta_end to about "
                f"{min(20 / count, 0.99):g} (a network that was trained so is given its betas as a list)"
            )
        return path
    if steps is not None and steps != len(betas):
        raise ValueError(f"{len(betas)} betas are given, for as many steps; got steps = {steps}; leave it out")
    return GaussianPath(DDPM(tuple(betas), zero_terminal_snr))
