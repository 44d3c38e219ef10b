"""The shifted grid of SD3 and FLUX: on the noise level s = 1 − t of a linear path, s ↦ shift·s/(1 + (shift − 1)·s).

In t it is w(u) = u/(u + shift·(1 − u)), whose inverse is the shift by 1/shift; shifts compose by multiplication. For
shift > 1 more steps go to high noise: an image of m pixels needs more noise than one of n < m to be destroyed as much,
and equal uncertainty asks for `shift = √(m/n)`.

The network is told the grid's t as it is. Here the shift is a property of the grid and of nothing else, so it cannot be
applied twice.

References:
    Esser et al. 2024, Stable Diffusion 3, section 5.3.2, eq. 23. https://arxiv.org/abs/2403.03206
    diffusers issue 13243 (applied twice). https://github.com/huggingface/diffusers/issues/13243
"""

from __future__ import annotations

import math
from typing import final

from attrs import field, frozen, validators
from torch import Tensor

from fm_core.protocols import ProbabilityPath
from fm_plugins.grids.warp import warped

__all__ = ["Shift", "flux_shift", "resolution_shift"]


@final
@frozen
class Shift:
    """Noise levels s = 1 − t shifted by `shift·s/(1 + (shift − 1)·s)`.

    >>> Shift(3.0).times(None, 4).tolist()  # halfway the noise level is still 3/4
    [0.0, 0.1, 0.25, 0.5, 1.0]

    Args:
        shift: Factor on the odds s/(1 − s) of noise; 1 is uniform. SD3 samples 1024² images with 3.
    """

    shift: float = field(default=3.0, validator=[validators.gt(0.0), validators.lt(float("inf"))])

    def times(self, path: ProbabilityPath | None, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`.

        Args:
            path: Not looked at; the shift is meant for linear paths, whose noise level is 1 − t.
            steps: Number of steps N.
            span: First and last time, in [0, 1]; falling to invert.

        Returns:
            Times `(N + 1,)`, float64 on the CPU.

        Raises:
            TimeError: For a grid that does not exist.
        """
        k = self.shift
        return warped(lambda u: u / (u + k * (1 - u)), lambda t: k * t / (k * t + (1 - t)), steps, span)


def resolution_shift(pixels: int, base: int) -> float:
    """The shift √(m/n) under which m pixels are as uncertain as n pixels without.

    >>> resolution_shift(1024 * 1024, base=512 * 512)
    2.0

    Args:
        pixels: Pixels (tokens, latent positions) of the samples to draw, m.
        base: Those of the resolution whose grid is known to be good, n.
    """
    return math.sqrt(pixels / base)


def flux_shift(
    tokens: int, *, base_tokens: int = 256, max_tokens: int = 4096, base_mu: float = 0.5, max_mu: float = 1.15
) -> Shift:
    """FLUX's shift e^µ, with µ linear in the number of image tokens.

    >>> round(flux_shift(4096).shift, 4)  # 1024² pixels
    3.1582

    Args:
        tokens: Image tokens: 16 × 16 pixels each in FLUX.
        base_tokens, max_tokens: Two numbers of tokens, and
        base_mu, max_mu: µ there; µ goes on linearly beyond.

    References:
        FLUX, sampling.py. https://github.com/black-forest-labs/flux
    """
    if tokens < 1 or base_tokens >= max_tokens:
        raise ValueError(
            f"flux_shift takes tokens ≥ 1 and base_tokens < max_tokens; got {tokens}, {base_tokens} and {max_tokens}"
        )
    slope = (max_mu - base_mu) / (max_tokens - base_tokens)
    return Shift(math.exp(base_mu + slope * (tokens - base_tokens)))
