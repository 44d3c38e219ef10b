"""`auto`: by path and budget a table that is sound, and the table it chooses to the last bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import registry
from fm_core.errors import BudgetError
from fm_core.field import Field
from fm_core.randomness import make_generator
from fm_core.testing import GaussianMixture
from fm_plugins.auto.solver import choice, straight

MIXTURE = GaussianMixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]]), torch.tensor([0.3, 0.2, 0.4]))
KINDS = {"linear": "velocity", "cosine": "velocity", "vp": "noise", "ve": "noise", "edm": "data"}


def _noise(n: int = 64) -> torch.Tensor:
    return torch.randn(n, 2, generator=make_generator(1), dtype=torch.float64)


def _ends(name: str, solver: Any, grid: Any = None, **budget: int) -> fm.Samples:
    path = fm.build("path", name)
    pipe = fm.compose(path=path, model=MIXTURE.model(path, KINDS[name]), solver=solver, grid=grid)
    return pipe.sample(x0=_noise(), **budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("nfe", [5, 10, 20, 40])
@pytest.mark.parametrize("name", list(KINDS))
def test_it_is_the_table_that_it_chooses(name: str, nfe: int) -> None:
    drawn = _ends(name, "auto", nfe=nfe)
    solver, grid = choice(fm.build("path", name), len(drawn.times) - 1 - (name in {"ve", "edm"}))
    plain = _ends(name, straight(solver), grid, nfe=nfe)
    assert drawn.nfe == plain.nfe == nfe
    assert torch.equal(drawn.x, plain.x)


@pytest.mark.parametrize("name", list(KINDS))
def test_it_is_better_than_heun_and_ddim(name: str) -> None:
    fine = _ends(name, {"name": "dpm_solver_pp", "order": 3}, "log_snr", steps=400).x

    def median(drawn: fm.Samples) -> float:
        return float((drawn.x - fine).square().mean(1).sqrt().median())

    for nfe in (10, 20):
        own = median(_ends(name, "auto", nfe=nfe))
        for solver in ("heun", "ddim"):
            assert own < median(_ends(name, solver, nfe=nfe)) / 2, (solver, nfe)


def test_it_errs_alike_on_paths_of_a_kind() -> None:
    """The same data and noise: paths are one another's in straight coordinates."""
    medians = []
    for name in ("linear", "cosine"):
        fine = _ends(name, "auto", steps=320).x
        medians.append(float((_ends(name, "auto", nfe=10).x - fine).square().mean(1).sqrt().median()))
    assert medians[0] == pytest.approx(medians[1], rel=1e-3)


def test_every_number_of_steps_has_a_table(paths: dict[str, Any]) -> None:
    solver = fm.build("solver", "auto")
    spaces = {name: str(solver.space_on(path)) for name, path in paths.items()}
    assert spaces["linear"] == spaces["linear_sigma_min"] == spaces["cosine"] == "velocity"
    assert spaces["vp"] == "data"
    for path in paths.values():
        for steps in (1, 2, 7, 8, 15, 31):
            times = solver.grid.times(path, steps, (0.01, 0.99))
            assert solver.plan(path, times).times == tuple(times.tolist())


def test_a_budget_that_affords_nothing_is_refused() -> None:
    with pytest.raises(BudgetError):
        _ends("ve", "auto", nfe=1)


def test_it_is_saved_by_its_name() -> None:
    assert registry.to_config(fm.build("solver", "auto")) == {"name": "auto"}


def test_where_velocities_are_all_there_is_it_is_adams_on_them() -> None:
    """Independent coupling with a Gaussian around the line: no α, no σ, no data prediction."""
    path = fm.build("path", "icfm")
    times = fm.build("solver", "auto").grid.times(path, 12)
    assert torch.equal(times, choice(path, 12)[1].grid.times(fm.build("path", "linear"), 12))
    plan = fm.build("solver", "auto").plan(path, times)
    assert plan == fm.build("solver", "adams_pc", order=4).plan(path, times)
    field = Field(fm.Model(lambda x, t: -x, predicts="velocity"), path)
    x = _noise()
    torch.testing.assert_close(fm.build("solver", "auto").solve(field, x, times), x / math.e, rtol=1e-4, atol=0)


def test_it_declares_the_lowest_order_of_its_tables() -> None:
    """A promise of at least so much, whatever the path and the number of steps."""
    orders = {choice(fm.build("path", name), steps)[0].order for name in ("linear", "vp") for steps in range(1, 60)}
    assert fm.build("solver", "auto").order == min(orders)
    assert max(orders) > min(orders)
