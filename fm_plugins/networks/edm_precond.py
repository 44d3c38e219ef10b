"""EDM's preconditioning: a network wrapped so that input, output and target have unit variance at every noise level.

On a path with α = 1 (Karras et al., equation 7 and table 1)

    D(x; σ) = c_skip·x + c_out·F(c_in·x, c_noise)
    c_skip = σ_d²/(σ² + σ_d²)   c_out = σ·σ_d/√(σ² + σ_d²)   c_in = 1/√(σ² + σ_d²)   c_noise = ¼·ln σ

is the prediction of the data. Any Gaussian path is such a path in x/α and σ/α. Put in, with
r² = σ² + α²σ_d² = Var(x_t),

    D = (α·σ_d²/r²)·x_t + (σ·σ_d/r)·F(x_t/r, ¼·ln(σ/α)),

which is finite at both ends: D = σ_d·F where α = 0, and D = x_t/α where σ = 0.

Why these (their appendix B.6): x_t/r has variance 1. With c_skip the factor of x_t, F regresses on
(x1 − c_skip·x_t)/c_out, of variance ((1 − c_skip·α)²σ_d² + c_skip²σ²)/c_out². It is 1 for
c_out² = (1 − c_skip·α)²σ_d² + c_skip²σ², and this c_out, by which errors of F are amplified, is smallest for
c_skip = α·σ_d²/r²; then c_out = σ·σ_d/r. A squared error of D is c_out² times one of F, so F is trained evenly over
noise levels by the weight 1/c_out².

References:
    Karras et al. 2022, EDM. https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from fm_core import registry
from fm_core.compat import Problem
from fm_core.errors import CompatError, did_you_mean
from fm_core.shapes import over

__all__ = ["EDMPrecond"]

FINEST = 1e-4
"""c_noise tells noise-to-data ratios σ/α from here to its inverse; beyond, ln would be infinite at the path's ends."""


@final
class EDMPrecond(nn.Module):
    """A network preconditioned for a Gaussian path; it predicts the data: `fm.Model(EDMPrecond(…), predicts="data")`.

    The inner network is called as `net(x, c, cond)` with c = ¼·ln(σ/α), which runs from 1.10 to −1.55 where σ/α runs
    from 80 to 0.002. Networks here take 1000·c into their sinusoids, whose frequencies reach from 1000 to 0.1 per unit
    of c, as they do for a time. `noise="t"` hands on t itself.

    >>> from fm_plugins.networks.mlp import MLP
    >>> net = EDMPrecond(MLP(2, time="fourier", seed=0), path="linear")
    >>> net(torch.zeros(5, 2), torch.linspace(0, 1, 5)).shape
    torch.Size([5, 2])

    Args:
        net: Module, or a configuration `{"kind": "model", "name": …, **options}` of one.
        path: Gaussian path the states live on: the one the pipeline is composed with. An object, a registry name, or a
            configuration.
        sigma_data: Standard deviation of a value of the data, σ_d.
        noise: What the inner network is given as its time, "c_noise" or "t".

    Raises:
        CompatError: For a path without α and σ.
        ValueError: For another `noise`, or a standard deviation that is not above 0.
    """

    def __init__(
        self, net: nn.Module | Mapping[str, Any], *, path: Any, sigma_data: float = 0.5, noise: str = "c_noise"
    ) -> None:
        super().__init__()
        if noise not in {"c_noise", "t"}:
            raise ValueError(f"unknown noise {noise!r}; {did_you_mean(noise, ['c_noise', 't'])}")
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data is a standard deviation above 0; got {sigma_data}")
        self.net = registry.from_config("model", net)
        self.path = registry.from_config("path", path)
        self.sigma_data, self.noise = sigma_data, noise
        if not all(callable(getattr(self.path, name, None)) for name in ("alpha", "sigma")):
            raise CompatError(
                [
                    Problem(
                        f"the path {type(self.path).__name__} has no alpha and sigma",
                        "preconditioning scales by them",
                        "give a Gaussian path, the one the pipeline is composed with",
                    )
                ]
            )

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The data prediction D at states x_t `(B, *D)`, times t `(B,)` and conditions, shape `(B, *D)`."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        skip, out, scale = self.coefficients(alpha, sigma)
        time = t if self.noise == "t" else (sigma / alpha).clamp(FINEST, 1 / FINEST).log() / 4
        x = over(scale, x_t) * x_t
        answer = self.net(x, time) if cond is None else self.net(x, time, cond)
        return over(skip, x_t) * x_t + over(out, x_t) * answer  # type: ignore[no-any-return]

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The factors of x_t, of F, and of x_t inside F: `(α·σ_d²/r², σ·σ_d/r, 1/r)`, elementwise.

        Args:
            alpha, sigma: Schedule at some times, any one shape.
        """
        alpha_d = alpha * self.sigma_data
        r = torch.hypot(sigma, alpha_d)
        return alpha_d * self.sigma_data / r.square(), sigma * self.sigma_data / r, 1 / r
