"""Rectified flow's times."""

from __future__ import annotations

import math

import pytest
import torch

import fm_core as fm


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.8)])
def test_times_are_logit_normal(mean, std):
    """Their logits are N(mean, std²), by the Kolmogorov–Smirnov distance of 20,000 draws."""
    path = fm.build("path", "linear")
    objective = fm.build("objective", "rectified_flow", mean=mean, std=std)
    t = objective.sample_time(path, 20_000, generator=torch.Generator().manual_seed(0))
    assert ((t > 0) & (t < 1)).all()
    logits = torch.logit(t.double()).sort().values
    exact = 0.5 * (1 + torch.erf((logits - mean) / std / math.sqrt(2)))
    empirical = torch.arange(1, 20_001) / 20_000
    assert (exact - empirical).abs().max() < 1.63 / math.sqrt(20_000)  # the 1 % quantile


def test_it_regresses_on_the_velocity():
    assert fm.build("objective", "rectified_flow").needs == {"velocity"}
