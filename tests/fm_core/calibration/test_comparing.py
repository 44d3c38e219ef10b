"""Trajectories that diverge: infinitely bad, and no more than that. Medians, fits and provenance hold beside them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import registry
from fm_core.calibration.comparing import better, median, ranked, robust, said, summary

LOST = (math.nan, math.inf)


def _errors(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("lost", LOST)
def test_a_median_takes_what_diverges_for_the_largest(lost: float) -> None:
    assert median(_errors(lost, 1.0, 2.0, 3.0, lost)) == 3.0
    assert median(_errors(lost, lost, 1.0)) == math.inf


@pytest.mark.parametrize("lost", LOST)
def test_no_gain_on_the_others_makes_a_divergence_good(lost: float) -> None:
    sound, spoilt = torch.full((1000,), 1e100, dtype=torch.float64), torch.full((1000,), 1e-100, dtype=torch.float64)
    spoilt[0] = lost
    assert robust(spoilt, 1e-3) > robust(sound, 1e-3)
    assert ranked(spoilt) > ranked(sound)
    assert not better(spoilt, sound)
    assert better(sound[:1], _errors(lost))


def test_the_loss_still_tells_fits_apart_where_trajectories_diverge_under_both() -> None:
    good, bad = torch.full((100,), 1e-4, dtype=torch.float64), torch.full((100,), 1e-3, dtype=torch.float64)
    good[0] = bad[0] = math.nan
    assert 1.0 < robust(bad, 1e-4) - robust(good, 1e-4) < 3.0  # log 10 = 2.3


def test_the_better_errs_less_in_the_median_and_not_much_more_in_the_root_mean_square_of_what_ends() -> None:
    assert better(_errors(1.0, 1.0, 5.0), _errors(2.0, 2.0, 4.0))
    assert not better(_errors(1.0, 1.0, 9.0), _errors(2.0, 2.0, 4.0))
    assert not better(_errors(2.0, 2.0, 4.0), _errors(2.0, 2.0, 4.0))
    assert better(_errors(1.0, 1.0, 900.0), _errors(2.0, 2.0, math.inf))


def test_a_summary_is_json_and_says_how_many_diverge() -> None:
    assert summary(_errors(3.0, 4.0, math.inf)) == {
        "median": 4.0,
        "rms": pytest.approx(math.sqrt(12.5)),
        "diverged": 1,
    }
    assert summary(_errors(math.nan, math.nan)) == {"median": None, "rms": None, "diverged": 2}
    assert summary(_errors(1e200, 1e200))["rms"] == pytest.approx(1e200)
    assert summary(_errors(0.0, 0.0)) == {"median": 0.0, "rms": 0.0, "diverged": 0}
    assert said(_errors(1.0, math.nan)) == "1 in the median and 1 in the root mean square, with 1 of 2 diverging"


def _cubic(x: Tensor, t: Tensor) -> Tensor:
    """Its flow is x/√(1 + 8t·x²); steps of 1/8 and more overflow from a few of the draws of a normal source."""
    return -4 * x**3


def test_a_field_whose_coarse_trajectories_overflow_is_calibrated_all_the_same() -> None:
    pipe = fm.compose(path="linear", model=fm.Model(_cubic, predicts="velocity"), solver="auto")
    fast = fm.calibrate(pipe, (128, 1), nfe=6, iterations=20)
    config = registry.to_config(fast.solver)
    assert "Infinity" not in json.dumps(config)
    assert "NaN" not in json.dumps(config)
    found = config["provenance"]
    assert found["best_uncalibrated"]["diverged"] > 0
    assert found["calibrated"]["diverged"] <= found["best_uncalibrated"]["diverged"]
    assert found["calibrated"]["median"] < found["best_uncalibrated"]["median"] / 3
    x0 = torch.randn(64, 1, generator=torch.Generator().manual_seed(5))
    error = fast.sample(x0=x0, nfe=6, throw=False).x - x0 / (1 + 8 * x0.square()).sqrt()
    assert median(error[:, 0].abs()) < 2 * found["calibrated"]["median"]
