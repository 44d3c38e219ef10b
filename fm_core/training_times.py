"""Training times: where on the path an objective looks, and how often.

A sampler draws times inside the span in which the network is asked, `(path, batch, span, generator, device) -> (B,)`.
The density of its times multiplies the weight of the loss: uniform times with the weight w train as times of density p
with the weight w/p, but for the variance of the gradient. Times are float32 and lie inside the span after rounding.

By name: `uniform`, `stratified`, `logit_normal`, `log_snr_uniform`, `lognormal` (EDM's), `noise_level`.

References:
    Kingma & Gao 2023, section 3 (density and weight). https://arxiv.org/abs/2303.00848
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core.errors import TimeError
from fm_core.named import by_name
from fm_core.protocols import ProbabilityPath
from fm_core.randomness import make_generator

__all__ = [
    "LogNormal",
    "LogSNRUniform",
    "LogitNormal",
    "NoiseLevel",
    "TimeSampler",
    "as_time_sampler",
    "stratified",
    "uniform",
]

Span = tuple[float, float]
Generator = torch.Generator | None
Device = torch.device | str | None

TimeSampler = Callable[[ProbabilityPath, int, Span, Generator, Device], Tensor]
"""Draws training times `(path, batch, span, generator, device) -> (B,)` inside `span = (low, high)`."""


def uniform(path: ProbabilityPath, batch: int, span: Span, generator: torch.Generator | None, device: Device) -> Tensor:
    """Times uniform on the span, shape `(B,)`."""
    return _into(_random(torch.rand, batch, generator, device), span)


def stratified(path: ProbabilityPath, batch: int, span: Span, generator: Generator, device: Device) -> Tensor:
    """Times uniform on the span, one in each of B equal cells, in random order: the loss of a batch varies less.

    References:
        Kingma et al. 2021, appendix I.1 (a low-discrepancy sampler of the same purpose).
        https://arxiv.org/abs/2107.00630
    """
    generator = generator or make_generator(device=device or "cpu")
    cells = torch.randperm(batch, generator=generator, device=generator.device)
    return _into(((_random(torch.rand, batch, generator, None) + cells) / batch).to(device or generator.device), span)


@frozen
class LogitNormal:
    """Times `1/(1 + exp(−(mean + std·z)))`, z ~ N(0, 1), mapped from (0, 1) to the span.

    Args:
        mean: Location on the logit scale: positive looks more often near the data (t = 1).
        std: Scale on the logit scale.

    References:
        Esser et al. 2024, section 3.1. https://arxiv.org/abs/2403.03206
    """

    mean: float = 0.0
    std: float = field(default=1.0, validator=validators.gt(0.0))

    def __call__(self, path: ProbabilityPath, batch: int, span: Span, generator: Generator, device: Device) -> Tensor:
        """Times of shape `(B,)`."""
        normal = _random(torch.randn, batch, generator, device)
        return _into(normal.mul_(self.std).add_(self.mean).sigmoid_(), span)


@frozen
class LogSNRUniform:
    """Times at which the log-SNR `2·log(α/σ)` is uniform, between its values at the ends of the span.

    Args:
        low, high: Bounds of the log-SNR, which is infinite where α or σ is 0; those of VDM by default.

    References:
        Kingma et al. 2021, Variational diffusion models. https://arxiv.org/abs/2107.00630
    """

    low: float = -20.0
    high: float = field(default=20.0)

    @high.validator
    def _above_low(self, _: object, value: float) -> None:
        if not self.low < value:
            raise ValueError(f"high must be above low = {self.low}; got {value}")

    def __call__(self, path: ProbabilityPath, batch: int, span: Span, generator: Generator, device: Device) -> Tensor:
        """Times of shape `(B,)`.

        Raises:
            TimeError: If the path has no log-SNR, or none between the bounds.
        """
        first, last = _log_snr_of(path, span)
        low, high = max(self.low, first), min(self.high, last)
        if not low < high:
            raise TimeError(
                f"log_snr_uniform draws between {self.low} and {self.high}, but the log-SNR of this path runs from "
                f"{first:.4g} to {last:.4g}; move the bounds low and high"
            )
        unit = _random(torch.rand, batch, generator, device).double()
        return _at_log_snr(path, low + (high - low) * unit, span)


@frozen
class LogNormal:
    """Times at which the noise level σ/α is log-normal, `ln(σ/α) ~ N(p_mean, p_std²)`, clamped to the span.

    Args:
        p_mean, p_std: Mean and standard deviation of the logarithm, for data of standard deviation 0.5.

    References:
        Karras et al. 2022, Table 1. https://arxiv.org/abs/2206.00364
    """

    p_mean: float = -1.2
    p_std: float = field(default=1.2, validator=validators.gt(0.0))

    def __call__(self, path: ProbabilityPath, batch: int, span: Span, generator: Generator, device: Device) -> Tensor:
        """Times of shape `(B,)`.

        Raises:
            TimeError: If the path has no log-SNR.
        """
        normal = _random(torch.randn, batch, generator, device).double()
        return _at_log_snr(path, (normal * self.p_std + self.p_mean) * -2, span)


@frozen
class NoiseLevel:
    """The one time at which the noise level σ/α is `sigma`, as in Vincent's denoising score matching.

    Args:
        sigma: Noise level, in units of the data.
    """

    sigma: float = field(validator=validators.gt(0.0))

    def __call__(self, path: ProbabilityPath, batch: int, span: Span, generator: Generator, device: Device) -> Tensor:
        """The time B times, shape `(B,)`.

        Raises:
            TimeError: If the path does not reach this level within the span.
        """
        level = -2 * math.log(self.sigma)
        first, last = _log_snr_of(path, span)
        if not first <= level <= last:
            raise TimeError(
                f"the noise level σ/α of this path runs from {math.exp(-first / 2):.4g} down to "
                f"{math.exp(-last / 2):.4g} where the network is asked; got sigma = {self.sigma}"
            )
        t = _at_log_snr(path, torch.tensor(level, dtype=torch.float64), span)
        return torch.full((batch,), float(t), dtype=torch.float32, device=device)


_KNOWN: dict[str, Callable[..., TimeSampler]] = {
    "uniform": lambda: uniform,
    "stratified": lambda: stratified,
    "logit_normal": LogitNormal,
    "log_snr_uniform": LogSNRUniform,
    "lognormal": LogNormal,
    "noise_level": NoiseLevel,
}


def as_time_sampler(value: str | Mapping[str, Any] | TimeSampler) -> TimeSampler:
    """A time sampler from its name, a mapping `{"name": …, **options}`, or itself.

    Raises:
        UnknownNameError: For an unknown name.
        TypeError: For options that it does not take, and for what is none of the three.

    >>> as_time_sampler({"name": "logit_normal", "mean": -0.5})
    LogitNormal(mean=-0.5, std=1.0)
    """
    if isinstance(value, str | Mapping):
        return by_name(value, _KNOWN, "time sampler")  # type: ignore[no-any-return]
    if not callable(value):
        raise TypeError(
            f"times are drawn by a name ({', '.join(_KNOWN)}), a mapping {{'name': …, **options}}, or a function "
            f"(path, batch, span, generator, device) -> (B,); got {value!r}"
        )
    return value


def _random(function: Callable[..., Tensor], batch: int, generator: torch.Generator | None, device: Device) -> Tensor:
    """Float32 numbers `(B,)`, drawn on the generator's device and moved to `device`."""
    generator = generator or make_generator(device=device or "cpu")
    numbers = function(batch, generator=generator, dtype=torch.float32, device=generator.device)
    return numbers if device is None else numbers.to(device)


def _into(unit: Tensor, span: Span) -> Tensor:
    """Numbers in [0, 1] mapped to the span, in place."""
    low, high = span
    if span == (0.0, 1.0):
        return unit
    return unit.mul_(high - low).add_(low).clamp_(*_inner(low, high))


@functools.lru_cache(maxsize=256)
def _inner(low: float, high: float) -> Span:
    """The outermost float32 numbers inside [low, high]."""
    first, last = np.float32(low), np.float32(high)
    if float(first) < low:  # as float64: against a Python float NumPy would round it first
        first = np.nextafter(first, np.float32(np.inf))
    if float(last) > high:
        last = np.nextafter(last, np.float32(-np.inf))
    return float(first), float(last)


def _log_snr_of(path: Any, span: Span) -> Span:
    """The log-SNR at both ends of the span."""
    _need_log_snr(path)
    first, last = path.log_snr(torch.tensor(span, dtype=torch.float64)).tolist()
    return first, last


def _at_log_snr(path: Any, log_snr: Tensor, span: Span) -> Tensor:
    """Times of float64 log-SNRs, float32 and clamped to the span."""
    _need_log_snr(path)
    t: Tensor = path.t_of_log_snr(log_snr)
    return t.to(torch.float32).clamp_(*_inner(*span))


def _need_log_snr(path: object) -> None:
    if not hasattr(path, "log_snr") or not hasattr(path, "t_of_log_snr"):
        raise TimeError(
            f"times by noise level need a path with a log-SNR; {type(path).__name__} has none. Use a Gaussian path, or "
            "the times 'uniform', 'stratified' or 'logit_normal'"
        )
