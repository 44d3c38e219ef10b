"""Figures of a method, on flows whose figures are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fm_core import Model, Pipeline, build, compose
from fm_core.bench.judging import Exam, judge, oracle, velocity_error
from fm_core.bench.papers import Budget, Task
from fm_core.testing import GaussianMixture

STD = 3.0
TASK = Task(
    {"name": "eight_gaussians", "radius": 0.0, "std": STD}, oracle={"name": "gaussian", "mean": 0.0, "std": STD}
)
"""N(0, I) → N(0, 9·I): W2² = 2·(3 − 1)² = 8, by the map x ↦ 3x, whose flow is x·(1 + 2t) and spends as much."""

BUDGET = Budget(n=1_000, euler=100)
EXAM = Exam(TASK, BUDGET, seed=0)
OPTIMUM = 2 * (STD - 1) ** 2


def flow(velocity: object, **parts: object) -> Pipeline:
    return compose(**{"path": "linear", "solver": "euler", "model": Model(velocity, predicts="velocity"), **parts})  # type: ignore[arg-type]


def optimal(x: Tensor, t: Tensor) -> Tensor:
    return (STD - 1) * x / (1 + (STD - 1) * t[:, None])


def marginal(x: Tensor, t: Tensor) -> Tensor:
    """The velocity of independent pairs, of the flow x0·√(t²s² + (1 − t)²)."""
    return GaussianMixture(torch.zeros(1, 2), STD).predict(build("path", "linear"), "velocity", x, t)


def test_optimal_transport_has_least_energy_and_straight_lines() -> None:
    figures = judge(flow(optimal), EXAM)
    assert figures["path_energy"] == pytest.approx(OPTIMUM, rel=0.1)  # the sample's own E‖x0‖²
    assert figures["npe"] < 0.1
    assert figures["straightness"] == pytest.approx(0, abs=1e-9)
    assert figures["w2"] < 1.5 * EXAM.floor()["w2"]
    assert figures["nfe"] == 100


def test_energy_of_independent_pairs_is_that_of_their_flow() -> None:
    """x0·c(t), c = √(t²s² + (1 − t)²), spends 2·∫c'² dt on a standard normal source."""
    t = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    slope = (STD**2 * t - (1 - t)) / (STD**2 * t**2 + (1 - t) ** 2).sqrt()
    energy = 2 * float(torch.trapezoid(slope.square(), t))
    figures = judge(flow(marginal), EXAM)
    own = float(EXAM.x0.square().sum(1).mean()) / 2
    assert figures["path_energy"] == pytest.approx(energy * own, rel=0.06)  # Euler's steps and the points' own law
    assert figures["straightness"] == pytest.approx((energy - OPTIMUM) * own, rel=0.2)
    assert figures["npe"] > 3 * judge(flow(optimal), EXAM)["npe"]


def test_a_flow_that_stays_is_as_far_as_its_source() -> None:
    figures = judge(flow(lambda x, t: torch.zeros_like(x)), EXAM)
    assert figures["w2"] == pytest.approx(math.sqrt(EXAM.squared_w2))
    assert figures["npe"] == 1
    assert figures["energy_distance"] > 20 * EXAM.floor()["energy_distance"]


def test_stochastic_samplers_have_no_energy() -> None:
    law = GaussianMixture(torch.zeros(1, 2), STD)
    path = build("path", "linear")
    sampled = compose(path=path, model=law.model(path), solver={"name": "ddim", "eta": 1.0})
    assert judge(sampled, EXAM).keys() == {"w2", "energy_distance", "nfe"}


@pytest.mark.parametrize(("path", "kind"), [("linear", "velocity"), ("vp", "noise"), ("edm", "data")])
def test_velocity_error_is_zero_for_the_truth_and_one_for_nothing(path: str, kind: str) -> None:
    """Networks of any prediction are asked for their velocity. One that says v = 0 is wrong by as much as there is."""
    law = GaussianMixture(torch.zeros(1, 2), STD)
    own = build("path", path)
    right = compose(path=own, model=law.model(own, kind), solver="ddim")
    exact = oracle(TASK, right)
    assert exact is not None
    assert velocity_error(right, exact, EXAM) < 1e-4
    still = Pipeline(path=own, model=Model(lambda x, t: torch.zeros_like(x), predicts="velocity"))
    if path == "linear":
        assert velocity_error(still, exact, EXAM) == pytest.approx(1)


def test_no_oracle_where_the_regression_has_another_minimiser() -> None:
    """Paired by optimal transport, from another source, smoothed by a third noise, or of data without closed form."""
    assert oracle(TASK, flow(optimal)) is not None
    assert oracle(TASK, flow(optimal, coupling="independent")) is not None
    assert oracle(TASK, flow(optimal, coupling="minibatch_ot")) is None
    assert oracle(TASK, flow(optimal, path={"name": "icfm", "sigma": 0.1})) is None
    assert oracle(Task({"name": "moons"}), flow(optimal)) is None


def test_points_of_an_exam_depend_on_its_seed_alone() -> None:
    again, other = Exam(TASK, BUDGET, seed=0), Exam(TASK, BUDGET, seed=1)
    assert torch.equal(again.x0, EXAM.x0)
    assert torch.equal(again.x1, EXAM.x1)
    assert not torch.equal(other.x0, EXAM.x0)
    assert not torch.equal(EXAM.x0 * STD, EXAM.x1)


def test_the_floor_is_between_two_sets_of_data() -> None:
    floor = EXAM.floor()
    assert 0.05 < floor["w2"] < 0.2 * math.sqrt(EXAM.squared_w2)
    assert 0 < floor["energy_distance"] < 0.02
    assert floor["squared_w2"] == EXAM.squared_w2


def test_noise_levels_above_one_start_from_their_own_source() -> None:
    """EDM's first state is 80·x0: W2² is from there, not from x0."""
    law, path = GaussianMixture(torch.zeros(1, 2), STD), build("path", "edm")
    figures = judge(compose(path=path, model=law.model(path, "data"), solver="ddim"), EXAM)
    assert figures["squared_w2"] == pytest.approx(2 * (80 - STD) ** 2, rel=0.1)
    assert figures["path_energy"] >= 0.99 * figures["squared_w2"]
