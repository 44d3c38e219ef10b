"""Straight coordinates: every Gaussian path is the linear one, so one table errs alike on all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import registry
from fm_core.errors import CompatError
from fm_core.randomness import make_generator
from fm_core.straight import clock, straight_space, straight_velocity, straightened, times_of_clock
from fm_core.testing import GaussianMixture

MIXTURE = GaussianMixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]]), torch.tensor([0.3, 0.2, 0.4]))
CURVED = ["vp", "cosine", "ve", "stranger", "linear_sigma_min"]
ADAMS = {"kind": "solver", "name": "adams_pc", "order": 4}


def _noise(n: int = 16) -> torch.Tensor:
    return torch.randn(n, 2, generator=make_generator(3), dtype=torch.float64)


@pytest.mark.parametrize("name", ["linear", *CURVED])
def test_the_clock_rises_and_is_inverted(paths: dict[str, Any], name: str) -> None:
    path, t = paths[name], torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    tau, scale = clock(path, t)
    assert bool((tau.diff() > 0).all())
    assert torch.allclose(scale * tau, path.alpha(t), atol=1e-12)
    inner = slice(1, -1)
    assert torch.allclose(times_of_clock(path, tau)[inner], t[inner], atol=1e-8)


@pytest.mark.parametrize("src", ["data", "noise", "v", "velocity"])
def test_the_straight_velocity_is_data_less_noise(paths: dict[str, Any], src: str) -> None:
    for name in CURVED:
        path, kind = paths[name], fm.Prediction(src)
        t = torch.full((5,), 0.3, dtype=torch.float64)
        x0, x1 = _noise(5), _noise(5).flip(0)
        sample = path.interpolate(x0, x1, t)
        m, k = straight_velocity(path, t, kind)
        got = m[:, None] * sample.x_t + k[:, None] * path.target(sample, kind)
        assert torch.allclose(got, x1 - x0, atol=1e-9, rtol=1e-9), name


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("table", [ADAMS, {"kind": "solver", "name": "rk4"}])
def test_a_table_gives_the_states_of_the_linear_path(paths: dict[str, Any], name: str, table: dict[str, Any]) -> None:
    """At the same noise levels, stages between grid points included, κ apart."""
    path, linear = paths[name], paths["linear"]
    times = torch.tensor([0.1, 0.3, 0.4, 0.65, 0.8, 0.9], dtype=torch.float64)
    tau, scale = clock(path, times)
    x = _noise()
    plain = registry.from_config("solver", table)
    straight = fm.build("solver", "straight", solver=table)
    there = plain.solve(MIXTURE.field(linear), x, tau)
    here = straight.solve(MIXTURE.field(path), scale[0] * x, times)
    assert torch.allclose(here / scale[-1], there, atol=1e-9)


def test_on_the_linear_path_nothing_changes(paths: dict[str, Any]) -> None:
    path, times = paths["linear"], torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0], dtype=torch.float64)
    plan = fm.build("solver", "adams_pc").plan(path, times)
    same = straightened(plan, path, times)
    assert same.space == plan.space == straight_space(path)
    for a, b in zip(same.rows, plan.rows, strict=True):
        assert (a.t, a.accepted) == (b.t, b.accepted)
        for mine, theirs in ((a.states, b.states), (a.predictions, b.predictions)):
            kept = {j: w for j, w in mine if abs(w) > 1e-14}
            assert kept == pytest.approx(dict(theirs), abs=1e-14)


def test_velocities_are_asked_for_where_they_last(paths: dict[str, Any]) -> None:
    spaces = {name: str(straight_space(path)) for name, path in paths.items()}
    assert spaces["linear"] == spaces["cosine"] == "velocity"
    assert spaces["vp"] == "data"


def test_grids_keep_their_noise_levels(paths: dict[str, Any]) -> None:
    grid = fm.build("grid", "straight", grid={"kind": "grid", "name": "power", "exponent": 1.5})
    plain = fm.build("grid", "power", exponent=1.5)
    path = paths["vp"]
    low, high = clock(path, torch.tensor([0.0, 1.0], dtype=torch.float64))[0].tolist()
    tau = clock(path, grid.times(path, 7))[0]
    assert torch.allclose(tau, plain.times(paths["linear"], 7, (low, high)), atol=1e-9)
    assert torch.equal(grid.times(paths["linear"], 7)[[0, -1]], torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_only_tables_of_velocities_go_straight() -> None:
    for solver in ("ddim", "dpm_solver_pp", "dopri5"):
        with pytest.raises(ValueError, match="tables of velocities"):
            fm.build("solver", "straight", solver=fm.build("solver", solver))


def test_a_path_without_noise_levels_is_refused() -> None:
    class Other:
        provides = frozenset({fm.Prediction.VELOCITY})

    with pytest.raises(CompatError, match="noise levels"):
        clock(Other(), torch.tensor([0.5], dtype=torch.float64))  # type: ignore[arg-type]


def test_a_schedule_without_closed_forms_is_inverted_by_bisection(
    paths: dict[str, Any], without_closed_forms: Any
) -> None:
    bare = without_closed_forms(paths["cosine"])
    tau = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=torch.float64)
    assert torch.allclose(times_of_clock(bare, tau), times_of_clock(paths["cosine"], tau), atol=1e-9)


@pytest.mark.parametrize(("solver", "within"), [("heun", 4e-4), ("rk4", 1e-5)])
def test_tables_that_ask_at_the_end_stop_by_the_margin_where_data_say_nothing_there(solver: str, within: float) -> None:
    """On VP the velocity at σ = 0 is 0/0 in data; the flow over the margin is told to fourth order all the same."""
    path = fm.build("path", "vp")
    pipe = fm.compose(path=path, model=MIXTURE.model(path, "noise"), solver="auto")
    x0 = _noise(16)
    fine = pipe.sample(x0=x0, steps=400).x
    pipe = pipe.replace(solver={"name": "straight", "solver": {"kind": "solver", "name": solver}})
    assert (pipe.sample(x0=x0, steps=160).x - fine).norm(dim=1).median() < within
    pipe = pipe.replace(grid={"name": "straight", "grid": {"kind": "grid", "name": "beta", "alpha": 0.6, "beta": 0.6}})
    drawn = pipe.sample(x0=x0, steps=100)
    assert drawn.times[-1] == 1.0
    assert len(drawn.times) == 101
    assert drawn.nfe == 100 * pipe.solver.evals_per_step + 1
    assert (drawn.x - fine).norm(dim=1).median() < within
