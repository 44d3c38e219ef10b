"""The generator of weights: integrals that are exact on polynomials, on every path, to the ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fm_core as fm
from fm_core import GaussianPath, Prediction, TimeError
from fm_plugins.multistep.integrals import SPACES, VARIABLES, Clock

TIMES = [0.2, 0.32, 0.5, 0.65, 0.8]


def clock_of(path: Any, space: Prediction, variable: str, times: list[float]) -> Clock:
    return Clock.of(path, space, variable, times)


def by_quadrature(clock: Clock, i: int, j: int, power: Callable[[Any], Any]) -> float:
    """The integral of a function of the variable along a step, in t: another parameter than the generator's."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    start, length = clock.t[i], clock.t[j] - clock.t[i]
    path, times = clock.path, start + length * (nodes + 1) / 2
    inside = Clock.of(path, clock.space, clock.variable, times)
    kernel = np.ones_like(times)
    if clock.space is not Prediction.VELOCITY:
        t = torch.from_numpy(times)
        slope = (path.d_alpha(t) / path.alpha(t) - path.d_sigma(t) / path.sigma(t)).numpy()
        sign, scale = (1, clock.sigma[j]) if clock.space is Prediction.DATA else (-1, -clock.alpha[j])
        kernel = scale * np.exp(sign * inside.log_ratio) * slope
    return float((kernel * power(inside.value) * weights).sum() * length / 2)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("variable", VARIABLES)
def test_step_is_exact_on_polynomials_below_its_order(path: GaussianPath, space: Prediction, variable: str) -> None:
    """Degree k − 1 for order k: a third-order formula with half the second difference fails by 1e-3."""
    clock = clock_of(path, space, variable, TIMES)
    centre, width = clock.value[2], abs(clock.value[3] - clock.value[2])
    for order in (1, 2, 3, 4):
        weights = clock.weights(3, 4, range(3, 3 - order, -1))

        def power(v: Any, degree: int = order - 1) -> Any:
            return ((v - centre) / width) ** degree

        got = sum(weight * power(clock.value[node]) for node, weight in weights.items())
        assert got == pytest.approx(by_quadrature(clock, 3, 4, power), rel=1e-10, abs=1e-11)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("variable", VARIABLES)
def test_corrector_and_falling_steps_are_exact_too(path: GaussianPath, space: Prediction, variable: str) -> None:
    clock = clock_of(path, space, variable, TIMES)
    centre, width = clock.value[2], abs(clock.value[3] - clock.value[2])
    for i, j, nodes in ((2, 3, (3, 2, 1)), (2, 1, (2, 3, 4)), (2, 1, (1, 2, 3))):
        weights = clock.weights(i, j, nodes)
        got = sum(w * ((clock.value[k] - centre) / width) ** 2 for k, w in weights.items())
        expected = by_quadrature(clock, i, j, lambda v: ((v - centre) / width) ** 2)
        assert got == pytest.approx(expected, rel=1e-10, abs=1e-11)


@pytest.mark.parametrize("space", [Prediction.DATA, Prediction.NOISE], ids=str)
@pytest.mark.parametrize("variable", VARIABLES)
def test_order_one_is_ddim_in_any_variable(path: GaussianPath, space: Prediction, variable: str) -> None:
    clock = clock_of(path, space, variable, TIMES)
    for i, j in ((0, 1), (3, 4), (4, 2)):
        (alpha_t, alpha_s), (sigma_t, sigma_s) = clock.alpha[[i, j]], clock.sigma[[i, j]]
        expected = (
            alpha_s - alpha_t * sigma_s / sigma_t if space is Prediction.DATA else sigma_s - sigma_t * alpha_s / alpha_t
        )
        assert clock.weights(i, j, [i])[i] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("tau2", [0.0, 0.7])
def test_weights_of_any_order_have_the_sum_of_order_one(
    path: GaussianPath, space: Prediction, variable: str, tau2: float
) -> None:
    clock = clock_of(path, space, variable, TIMES)
    whole = clock.weights(3, 4, [3], tau2)[3]
    for order in (2, 3, 4):
        assert math.fsum(clock.weights(3, 4, range(3, 3 - order, -1), tau2).values()) == pytest.approx(whole, rel=1e-12)


def test_second_order_data_in_lambda_is_the_closed_form(paths: dict[str, GaussianPath]) -> None:
    """α_s·(1 − (1 − e^{−h})/h) on the slope, for steps from 1e-5 to 12 in λ."""
    path = paths["ve"]
    for h in (1e-5, 1e-2, 0.5, 2.5, 5.0):
        log_ratio = torch.tensor([-2.5 - 0.4, -2.5, -2.5 + h], dtype=torch.float64)
        clock = clock_of(path, Prediction.DATA, "lambda", path.t_of_log_snr(2 * log_ratio).tolist())
        weights, h = clock.weights(1, 2, [1, 0]), clock.log_ratio[2] - clock.log_ratio[1]
        phi = h / 2 - h**2 / 6 + h**3 / 24 if h < 1e-3 else 1 + math.expm1(-h) / h
        slope = clock.alpha[2] * phi * h / (clock.log_ratio[1] - clock.log_ratio[0])
        assert weights[0] == pytest.approx(-slope, rel=1e-9)
        assert weights[1] == pytest.approx(-clock.alpha[2] * math.expm1(-h) + slope, rel=1e-9)


@pytest.mark.parametrize("tau", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("space", [Prediction.DATA, Prediction.NOISE], ids=str)
def test_exact_predictions_keep_the_law_of_a_point_through_noisy_steps(
    path: GaussianPath, space: Prediction, tau: float
) -> None:
    """Data at one point: x_t ~ N(α·m, σ²); a step with D = m, or N = (x − α·m)/σ along it, must give N(α_s·m, σ_s²)."""
    clock = clock_of(path, space, "lambda", TIMES)
    i, j, tau2, m = 1, 3, tau**2, 2.0
    keep, noise = clock.carry(i, j, tau2), clock.noise(i, j, tau2)
    if space is Prediction.DATA:
        mean = keep * clock.alpha[i] * m + clock.weights(i, j, [i], tau2)[i] * m
        assert mean == pytest.approx(clock.alpha[j] * m, rel=1e-12)
        assert keep**2 * clock.sigma[i] ** 2 + noise**2 == pytest.approx(clock.sigma[j] ** 2, rel=1e-12)
    else:
        assert keep == pytest.approx(clock.alpha[j] / clock.alpha[i])
        ratio = (clock.sigma / clock.alpha) ** 2
        assert noise**2 == pytest.approx(tau2 * clock.alpha[j] ** 2 * (ratio[i] - ratio[j]), rel=1e-12)


def test_weights_do_not_know_the_clock_of_the_schedule(paths: dict[str, GaussianPath]) -> None:
    """The same noise levels at other times: data and noise in λ and σ/α have the same weights."""

    class Warped:
        def alpha(self, t: torch.Tensor) -> torch.Tensor:
            return paths["cosine"].alpha(t**2)

        def sigma(self, t: torch.Tensor) -> torch.Tensor:
            return paths["cosine"].sigma(t**2)

    slow = GaussianPath(Warped())
    for space in (Prediction.DATA, Prediction.NOISE):
        for variable in ("lambda", "sigma"):
            one = clock_of(paths["cosine"], space, variable, TIMES).weights(3, 4, [3, 2, 1])
            other = clock_of(slow, space, variable, np.sqrt(TIMES).tolist()).weights(3, 4, [3, 2, 1])
            assert one == pytest.approx(other, rel=1e-11)


def test_data_step_to_no_noise_is_the_last_data_prediction(paths: dict[str, GaussianPath]) -> None:
    clock = clock_of(paths["linear"], Prediction.DATA, "lambda", [0.5, 0.8, 1.0])
    assert clock.weights(1, 2, [1, 0]) == {1: 1.0}
    assert clock.carry(1, 2) == 0.0


def test_data_in_t_extrapolates_to_the_data(paths: dict[str, GaussianPath]) -> None:
    """The kernel has all its mass at t = 1: the value there of the line through 0.5 and 0.8."""
    weights = clock_of(paths["linear"], Prediction.DATA, "t", [0.5, 0.8, 1.0]).weights(1, 2, [1, 0])
    assert weights == pytest.approx({1: 5 / 3, 0: -2 / 3}, rel=1e-14)
    near = clock_of(paths["linear"], Prediction.DATA, "t", [0.5, 0.8, 1.0 - 1e-5]).weights(1, 2, [1, 0])
    assert near == pytest.approx(weights, abs=1e-3)  # its mean time is 1e-5·log(1e5) short of the end


def test_noise_step_to_no_noise_integrates_the_logarithm(paths: dict[str, GaussianPath]) -> None:
    """∫_0^q (−log q' + log q) dq' = q: noise linear in λ has a finite integral up to λ = ∞."""
    clock = clock_of(paths["linear"], Prediction.NOISE, "lambda", [0.5, 0.8, 1.0])
    weights, gap = clock.weights(1, 2, [1, 0]), clock.log_ratio[1] - clock.log_ratio[0]
    level = clock.sigma[1] / clock.alpha[1]
    assert weights == pytest.approx({1: -level * (1 + 1 / gap), 0: level / gap}, rel=1e-12)


def test_nodes_at_infinity_are_left_out(paths: dict[str, GaussianPath]) -> None:
    clock = clock_of(paths["linear"], Prediction.DATA, "lambda", [0.0, 0.3, 0.6])
    assert clock.weights(0, 1, [0]) == pytest.approx({0: 0.3}, rel=1e-14)
    assert list(clock.weights(1, 2, [1, 0])) == [1]
    assert clock.weights(0, 1, [1, 0]) == pytest.approx({1: 0.3}, rel=1e-14)


def test_steps_from_singular_ends_in_the_wrong_space_are_refused(paths: dict[str, GaussianPath]) -> None:
    with pytest.raises(TimeError, match=r"α = 0.*dpm_solver_pp"):
        clock_of(paths["linear"], Prediction.NOISE, "lambda", [0.0, 0.3]).carry(0, 1)
    with pytest.raises(TimeError, match=r"σ = 0.*adams_pc"):
        clock_of(paths["linear"], Prediction.DATA, "lambda", [1.0, 0.3]).carry(0, 1)


@pytest.mark.parametrize("solver", ["dpm_solver", "dpm_solver_multistep", "deis", "pndm", "seeds"])
def test_tables_of_such_steps_are_refused_without_a_warning(paths: dict[str, GaussianPath], solver: str) -> None:
    grid = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64)
    with pytest.raises(TimeError, match=r"cannot begin at t = 0 in the noise space"):
        fm.build("solver", solver).plan(paths["linear"], grid)


def test_velocity_asks_no_schedule() -> None:
    path: Any = object()
    clock = Clock.of(path, Prediction.VELOCITY, "t", [0.0, 0.1, 0.3])
    assert clock.weights(1, 2, [1, 0]) == pytest.approx({1: 0.4, 0: -0.2}, rel=1e-14)
