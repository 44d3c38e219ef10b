"""What a table solver leaves to its plan, and what one that is made for one network refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import BudgetError, CompatError, Plan, ProbabilityPath, Row
from fm_core.randomness import make_generator
from fm_core.testing import GaussianMixture

MIXTURE = GaussianMixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5]]), torch.tensor([0.3, 0.2]))
SPACES = {"linear": "velocity", "vp": "data"}


def _chosen(path: ProbabilityPath, times: Tensor) -> Plan:
    """Euler on straight paths, DDIM on others."""
    name = "euler" if float(path.alpha(torch.tensor(0.5))) == 0.5 else "ddim"  # type: ignore[attr-defined]
    return fm.build("solver", name).plan(path, times)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", list(SPACES))
def test_a_space_left_to_the_plan_is_the_plans(paths: dict[str, Any], name: str) -> None:
    """Spans, inversion and export are those of the solver that it chooses."""
    solver, path = fm.TableSolver(_chosen, order=1), paths[name]
    assert solver.space_on(path) == SPACES[name]
    kept = fm.build("solver", {"velocity": "euler", "data": "ddim"}[SPACES[name]])
    x0 = torch.randn(6, 2, generator=make_generator(0), dtype=torch.float64)
    drawn, plain = (
        fm.compose(path=path, model=MIXTURE.model(path, "noise"), solver=s, grid="uniform") for s in (solver, kept)
    )
    a, b = drawn.sample(x0=x0, nfe=5), plain.sample(x0=x0, nfe=5)
    assert torch.equal(a.x, b.x)
    assert a.nfe == b.nfe == 5
    assert torch.equal(drawn.encode(a.x, steps=5).x, plain.encode(b.x, steps=5).x)


def _euler_of_three(path: ProbabilityPath, times: Tensor) -> Plan:
    rows = [Row(t, ((s, 1.0),), ((s, 1 / 3),)) for s, t in enumerate((1 / 3, 2 / 3, 1.0))]
    return Plan("velocity", 0.0, rows)  # type: ignore[arg-type]


def test_a_table_of_one_length_takes_its_budget_and_no_other(paths: dict[str, Any]) -> None:
    solver = fm.TableSolver(_euler_of_three, space="velocity", order=1, steps=3, predicts=["velocity"])
    field = MIXTURE.field(paths["linear"])

    def times(steps: int) -> Tensor:
        return torch.linspace(0, 1, steps + 1, dtype=torch.float64)

    assert solver.steps_for(field, 3, times) == 3
    for nfe in (1, 2, 4, 30):
        with pytest.raises(BudgetError, match="made for 3 predictions"):
            solver.steps_for(field, nfe, times)


def test_a_network_that_predicts_something_else_is_refused(paths: dict[str, Any]) -> None:
    solver = fm.TableSolver(_euler_of_three, space="velocity", order=1, predicts=["velocity"])
    times = torch.linspace(0, 1, 4, dtype=torch.float64)
    solver.prepare(MIXTURE.field(paths["linear"]), times)
    with pytest.raises(CompatError, match="predicts noise, and that one predicted velocity"):
        solver.prepare(MIXTURE.field(paths["linear"], "noise"), times)


@pytest.mark.parametrize("name", ["heun", "unipc", "auto", "ddim", "ddpm", "pndm"])
@pytest.mark.parametrize(
    "times",
    [[0.2, 0.9, 0.5], [0.2, 2.0], [0.2, float("nan"), 0.9], [0.5], [0.5, 0.5], [], "abc", None, [[0.2, 0.9]]],
    ids=str,
)
def test_every_table_is_asked_for_on_a_grid_that_is_one(paths: dict[str, Any], name: str, times: Any) -> None:
    with pytest.raises(fm.TimeError, match="times must"):
        fm.build("solver", name).plan(paths["linear"], times)


@pytest.mark.parametrize("name", ["heun", "unipc", "auto", "ddim", "ddpm", "pndm"])
def test_a_grid_may_be_a_list_or_single_precision(paths: dict[str, Any], name: str) -> None:
    plan = fm.build("solver", name).plan
    expected = plan(paths["linear"], torch.tensor([0.125, 0.5, 0.875], dtype=torch.float64))
    for times in ([0.125, 0.5, 0.875], torch.tensor([0.125, 0.5, 0.875])):
        assert plan(paths["linear"], times) == expected


def test_a_table_that_asks_for_what_its_path_gives_composes_with_every_path() -> None:
    """`auto` on a path that knows velocities alone is Adams on them."""
    model = fm.Model(lambda x, t: -x, predicts="velocity")
    pipe = fm.compose(path="icfm", model=model, solver="auto")
    x0 = torch.randn(6, 2, generator=make_generator(0), dtype=torch.float64)
    out = pipe.sample(x0=x0, nfe=12)
    assert out.nfe == 12
    torch.testing.assert_close(out.x, x0 / torch.e, rtol=1e-4, atol=0)
