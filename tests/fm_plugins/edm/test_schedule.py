"""EDM's path: Karras' noise levels."""

from __future__ import annotations

import pytest
import torch

from fm_plugins.edm.schedule import edm


@pytest.mark.parametrize("steps", [2, 18, 40])
@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_a_uniform_grid_is_karras_rho_grid(steps: int, rho: float) -> None:
    """Equation 5: `σ_i = (σ_max^{1/ρ} + i/(N−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ`, i < N."""
    i = torch.arange(steps, dtype=torch.float64)
    high, low = 80.0 ** (1 / rho), 0.002 ** (1 / rho)
    published = (high + i / (steps - 1) * (low - high)) ** rho
    grid = edm(rho=rho).sigma(torch.linspace(0, 1, steps, dtype=torch.float64))
    torch.testing.assert_close(grid, published, rtol=1e-11, atol=0)
    assert (float(grid[0]), float(grid[-1])) == pytest.approx((80.0, 0.002), rel=1e-12)


def test_rho_must_be_positive() -> None:
    with pytest.raises(ValueError, match="rho"):
        edm(rho=0.0)
