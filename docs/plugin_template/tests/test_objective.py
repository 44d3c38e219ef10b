"""The objective's minimiser is the velocity, and its times are what they are said to be."""

from __future__ import annotations

import math

import fm_core as fm
import torch
from torch import Tensor

from my_plugin.objective import LogitNormalMatching

PATH = fm.build("path", "linear")


def test_times_are_logit_normal_and_repeat_with_their_generator() -> None:
    objective = LogitNormalMatching(mean=0.5, std=2.0)
    t, again = (objective.sample_time(PATH, 20_000, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(t, again)
    logit = torch.logit(t.double())
    assert math.isclose(float(logit.mean()), 0.5, abs_tol=0.06)  # four standard errors, 2/√20000 each
    assert math.isclose(float(logit.std()), 2.0, abs_tol=0.05)


def test_the_loss_of_the_target_itself_is_zero_and_per_sample() -> None:
    x0, x1 = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = PATH.interpolate(x0, x1, torch.linspace(0.1, 0.9, 4, dtype=torch.float64))

    def shifted(by: Tensor) -> Tensor:
        model = fm.Model(lambda x, t: x1 - x0 + by[:, None], predicts="velocity")
        return LogitNormalMatching().loss(fm.Field(model, PATH), sample)

    assert torch.equal(shifted(torch.zeros(4, dtype=torch.float64)), torch.zeros(4, dtype=torch.float64))
    by = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(shifted(by), by**2)
