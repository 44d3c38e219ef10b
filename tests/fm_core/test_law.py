"""The exact law of a plan's output: against exact solutions, against draws, and the published bias of DDPM."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import GaussianPath, Plan, Prediction, Row
from fm_core.executing import execute
from fm_core.field import Field
from fm_core.law import output_law, state_laws
from fm_core.testing import GaussianMixture

KINDS = ("data", "noise", "score", "v", "velocity")
MEAN = torch.tensor([1.5, -0.7], dtype=torch.float64)
VARIANCE = torch.tensor([0.25, 1.7], dtype=torch.float64)


def noisy_plan(kind: str) -> Plan:
    """A plan that uses everything a table may: old states and predictions, noise twice, states off the grid."""
    rows = (
        Row(0.4, ((0, 0.9),), ((0, 0.2),), 0.3, accepted=False),
        Row(0.5, ((0, 0.3), (1, 0.5)), ((0, -0.1), (1, 0.4))),
        Row(0.7, ((1, 0.2), (2, 0.7)), ((0, 0.1), (2, 0.3)), 0.5),
    )
    return Plan(Prediction(kind), 0.3, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_law_is_that_of_many_draws(path: GaussianPath, kind: str) -> None:
    plan, n = noisy_plan(kind), 200_000
    data = GaussianMixture(torch.tensor([[1.5]]), torch.tensor([0.5]))
    start, spread = 0.4, 1.3
    x = start + math.sqrt(spread) * torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = execute(plan, data.field(path, kind), x, generator=torch.Generator().manual_seed(1))
    mean, variance = output_law(plan, path, 1.5, 0.25, start=(torch.tensor(start), torch.tensor(spread)))
    assert abs(float(x.mean() - mean)) < 5 * math.sqrt(variance / n)
    assert abs(float(x.var() / variance - 1)) < 5 * math.sqrt(2 / n)


def test_law_does_not_depend_on_the_space_in_which_the_plan_is_written(path: GaussianPath) -> None:
    plan = noisy_plan("data")
    expected = torch.stack(output_law(plan, path, MEAN, VARIANCE))
    for kind in KINDS:
        got = torch.stack(output_law(plan.rebase(path, Prediction(kind)), path, MEAN, VARIANCE))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_an_exact_step_gives_the_exact_law(path: GaussianPath) -> None:
    """The probability-flow map of one Gaussian is `x → α_s·m + c_s/c_t·(x − α_t·m)`, affine in x and in its own data
    prediction.
    """
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    m, v = 1.5, 0.25
    c = (alpha.square() * v + sigma.square()).sqrt()
    stretch = float(c[1] / c[0])
    # D = offset + gain·x with offset·x-independent part: written with the score, whose offset is α·m/c²
    score = float(c[0].square() * stretch - c[0].square() * alpha[1] / alpha[0])
    row = Row(0.7, ((0, float(alpha[1] / alpha[0])),), ((0, -score),))
    mean, variance = output_law(Plan(Prediction.SCORE, 0.2, (row,)), path, m, v)
    torch.testing.assert_close(mean, alpha[1] * m, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(variance, c[1].square(), rtol=1e-12, atol=1e-12)


def test_directions_are_independent_of_each_other_and_keep_their_shape(path: GaussianPath) -> None:
    plan = noisy_plan("noise")
    mean, variance = output_law(plan, path, MEAN[:, None].expand(2, 3), VARIANCE[:, None].expand(2, 3))
    assert mean.shape == variance.shape == (2, 3)
    for i in range(2):
        alone = output_law(plan, path, float(MEAN[i]), float(VARIANCE[i]))
        assert torch.equal(torch.stack([mean[i, 1], variance[i, 1]]), torch.stack(alone))


def test_a_covariance_is_the_law_in_its_eigenbasis(path: GaussianPath) -> None:
    plan, covariance = noisy_plan("data"), torch.tensor([[0.4, 0.1], [0.1, 0.3]], dtype=torch.float64)
    v, basis = torch.linalg.eigh(covariance)
    m, spread = output_law(plan, path, basis.T @ MEAN, v)
    mean, whole = output_law(plan, path, MEAN, covariance=covariance.tolist())
    torch.testing.assert_close(mean, basis @ m, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole, basis @ spread.diag() @ basis.T, rtol=1e-12, atol=1e-12)
    mean, whole = output_law(plan, path, MEAN, covariance=VARIANCE.diag())
    m, spread = output_law(plan, path, MEAN, VARIANCE)
    torch.testing.assert_close(torch.stack([mean, whole.diag()]), torch.stack([m, spread]), rtol=1e-12, atol=1e-12)
    assert abs(float(whole[0, 1])) < 1e-12


def test_a_covariance_and_a_start_of_another_are_those_of_many_draws(paths: dict[str, GaussianPath]) -> None:
    """A start whose axes are not the data's: the first state's noise turns on the way."""
    path, plan, n = paths["linear"], noisy_plan("data"), 200_000
    covariance = torch.tensor([[0.4, 0.25], [0.25, 0.3]], dtype=torch.float64)
    begin = torch.tensor([0.2, 0.4], dtype=torch.float64)
    spread = torch.tensor([[1.0, -0.6], [-0.6, 0.8]], dtype=torch.float64)

    def data(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = path.alpha(t[0]), path.sigma(t[0])
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2).double())
        return MEAN + (x - alpha * MEAN) @ gain.T

    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = begin + z @ torch.linalg.cholesky(spread).T
    field = Field(fm.Model(data, predicts="data"), path)
    x = execute(plan, field, x, generator=torch.Generator().manual_seed(1))
    mean, whole = output_law(plan, path, MEAN, covariance=covariance, start=(begin, spread))
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(x.T.cov(), whole, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (
            {"variance": [[0.4, 0.1], [0.1, 0.3]]},
            fm.ShapeError,
            r"got shape \(2, 2\)\. A matrix is given as covariance=",
        ),
        ({"mean": 0.0, "variance": torch.eye(2)}, fm.ShapeError, "A matrix is given as covariance="),
        ({"variance": [0.1, 0.2, 0.3]}, fm.ShapeError, r"got shape \(3,\)"),
        ({"variance": -1.0}, fm.DataError, "finite and ≥ 0"),
        ({"variance": math.nan}, fm.DataError, "finite and ≥ 0"),
        ({"variance": [0.1, 0.2], "start": (0.0, -1.0)}, fm.DataError, "variance of the first state"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, fm.DataError, "along some direction"),
        ({"covariance": [[1.0, 2.0], [0.0, 1.0]]}, fm.DataError, "symmetric"),
        ({"covariance": [[math.nan, 0.0], [0.0, 1.0]]}, fm.DataError, "symmetric and finite"),
        ({"covariance": [1.0, 2.0]}, fm.ShapeError, r"\(D, D\)"),
        ({}, fm.ArgumentError, "one of the two"),
        ({"variance": 1.0, "covariance": [[1.0]]}, fm.ArgumentError, "one of the two"),
    ],
)
def test_what_is_no_variance_is_refused(paths: dict[str, GaussianPath], given: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        output_law(noisy_plan("data"), paths["linear"], **{"mean": [0.0, 1.0], **given})


def test_data_without_spread_are_refused_where_nothing_is_known_of_them(paths: dict[str, GaussianPath]) -> None:
    plan = fm.build("solver", "heun").plan(paths["linear"], torch.linspace(0, 1, 4, dtype=torch.float64))
    with pytest.raises(fm.DataError, match=r"asks for the velocity at t = 1, .* variance > 0"):
        output_law(plan, paths["linear"], 1.0, 0.0)
    plan = fm.build("solver", "euler").plan(paths["linear"], torch.linspace(0, 1, 4, dtype=torch.float64))
    mean, variance = output_law(plan, paths["linear"], 1.0, 0.0)
    assert (float(mean), float(variance)) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_laws_of_the_trajectory_are_at_the_accepted_states(path: GaussianPath) -> None:
    laws = list(state_laws(noisy_plan("data"), path, MEAN, VARIANCE))
    assert [t for t, _, _ in laws] == [0.3, 0.5, 0.7]
    t = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(laws[0][1], path.alpha(t) * MEAN)
    torch.testing.assert_close(laws[0][2], path.alpha(t).square() * VARIANCE + path.sigma(t).square())


@pytest.mark.parametrize(("steps", "percent"), [(10, -55), (50, -21), (200, -7)])
def test_ddpm_variance_is_too_small_even_with_the_exact_denoiser(
    paths: dict[str, GaussianPath], steps: int, percent: int
) -> None:
    """VP with β from 20 to 0.1, uniform grid, posterior variance, data of standard deviation ½."""
    path = paths["vp"]
    low, high = path.span("noise", {"data"})
    plan = fm.build("solver", "ddpm").plan(path, torch.linspace(low, high, steps + 1, dtype=torch.float64))
    _, variance = output_law(plan.denoised(path), path, 0.0, 0.25)
    assert round(100 * (float(variance) / 0.25 - 1)) in {percent, percent - 1}


def test_scores_are_known_where_there_is_no_noise(paths: dict[str, GaussianPath]) -> None:
    """−noise/σ is 0/0 at σ = 0, but the score of the data is −(x − m)/v."""
    plan = Plan(Prediction.SCORE, 1.0, (Row(1.0, ((0, 1.0),), ((0, 0.25),)),))
    mean, variance = output_law(plan, paths["linear"], 2.0, 0.25)
    assert (float(mean), float(variance)) == (2.0, 0.0)


def test_paths_without_noise_levels_are_refused() -> None:
    with pytest.raises(fm.CompatError, match=r"noise levels"):
        output_law(noisy_plan("data"), object(), 0.0, 1.0)
