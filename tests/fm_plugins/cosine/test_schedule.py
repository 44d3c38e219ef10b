"""The cosine path: a quarter turn."""

from __future__ import annotations

import math

import torch

from fm_core import Prediction
from fm_plugins.cosine.schedule import cosine


def test_the_velocity_is_v_but_for_a_factor() -> None:
    """`dx_t/dt = −(π/2)·v`: a turn at constant speed."""
    x0, x1 = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = cosine().interpolate(x0, x1, torch.linspace(0, 1, 9, dtype=torch.float64))
    v, velocity = (cosine().target(sample, kind) for kind in (Prediction.V, Prediction.VELOCITY))
    torch.testing.assert_close(velocity, -math.pi / 2 * v, rtol=1e-14, atol=1e-14)


def test_noise_is_gone_at_the_data_exactly() -> None:
    assert float(cosine().sigma(torch.tensor(1.0))) == 0.0
    assert float(cosine().alpha(torch.tensor(0.0))) == 0.0
