"""The flow of any Gaussian path in one variable, in which it has no singular end.

With `r = √(α² + σ²)`, the angle `θ = atan2(α, σ)` and `z = x/r`, and with D = E[x1|x], N = E[x0|x], the flow
`dx/dt = α'·D + σ'·N` of a path becomes

    dz/dθ = cos θ·D − sin θ·N,        α = r·sin θ,  σ = r·cos θ,

since `x = α·D + σ·N`; D and N depend on (z, θ) alone. So all paths between one source and one law of data are the same
curves z(θ), run through at different speeds and scales: only their ends, θ(0) and θ(1), differ. The right-hand side is
the velocity of α = sin θ, σ = cos θ, finite where σ' of the path is not.

For a mixture Σ_k w_k·N(m_k, s_k²·I), with c_k = sin²θ·s_k² + cos²θ and the posterior weights r_k ∝ w_k·N(z; sin θ·m_k,
c_k·I), it is

    dz/dθ = Σ_k r_k·(cos θ·m_k + g_k·(z − sin θ·m_k)),        g_k = sin θ·cos θ·(s_k² − 1)/c_k.

References:
    Salimans & Ho 2022, appendix D (the angle). https://arxiv.org/abs/2202.00512
    Hairer, Nørsett & Wanner 1993, II.5 (DOP853). https://doi.org/10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fm_core import DivergenceError
from fm_core.mixture import GaussianMixture

__all__ = ["angle_of", "flow_ends", "mixture_slope"]

TOLERANCE = 1e-12
"""Relative and absolute tolerance of a step."""

TOGETHER = 64
"""Rows that share steps: their errors are averaged, so few keep each of them small."""

Slope = Callable[[Tensor, float, slice], Tensor]
"""dz/dθ at states `(n, *D)`, an angle, of these rows of the batch."""


def angle_of(alpha: Tensor, sigma: Tensor) -> tuple[float, float]:
    """θ in [0, π/2] and r of one α and σ."""
    return math.atan2(float(alpha), float(sigma)), math.hypot(float(alpha), float(sigma))


def mixture_slope(law: GaussianMixture, z: Tensor, theta: float, log_weights: Tensor) -> Tensor:
    """dz/dθ for a mixture whose weights may differ from row to row.

    Args:
        law: The modes.
        z: States `(n, *D)`, float64.
        theta: The angle.
        log_weights: Logarithms of the weights, `(n, K)` or `(K,)`; −∞ for modes that a row's label leaves out.
    """
    sin, cos = math.sin(theta), math.cos(theta)
    flat, means, variances = z.flatten(1), law.means.flatten(1), law.stds.square()
    c = sin**2 * variances + cos**2
    # Differences, not the expanded square, which loses digits.
    squares = torch.cdist(flat, sin * means, compute_mode="donot_use_mm_for_euclid_dist").square()
    r = (log_weights - 0.5 * squares / c - 0.5 * flat.shape[1] * c.log()).softmax(1)
    g = sin * cos * (variances - 1) / c
    return ((r * (cos - sin * g)) @ means + (r @ g)[:, None] * flat).reshape(z.shape)


def flow_ends(slope: Slope, z: Tensor, angles: tuple[float, float], tolerance: float = TOLERANCE) -> Tensor:
    """Carries states from one angle to another by Dormand and Prince's method of order 8 with its error estimates.

    Args:
        slope: dz/dθ.
        z: States `(B, *D)`, float64, on the CPU.
        angles: First and last angle.
        tolerance: Relative and absolute, of every step.

    Raises:
        DivergenceError: If the solver gives up.
    """
    from scipy.integrate import solve_ivp

    ends = []
    for first in range(0, len(z), TOGETHER):
        rows = slice(first, min(first + TOGETHER, len(z)))
        part = z[rows]

        def right(theta: float, flat: np.ndarray, rows: slice = rows, part: Tensor = part) -> np.ndarray:
            return slope(torch.from_numpy(flat).reshape(part.shape), theta, rows).reshape(-1).numpy()

        done = solve_ivp(right, angles, part.reshape(-1).numpy(), method="DOP853", rtol=tolerance, atol=tolerance)
        if not done.success:
            raise DivergenceError(f"the reference solver stopped at the angle {done.t[-1]:.6g}: {done.message}")
        ends.append(torch.from_numpy(done.y[:, -1]).reshape(part.shape))
    return torch.cat(ends)
