"""A recommendation is the best of what was measured on the pipeline itself, within the budget, with its evidence."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.bench.recommending import Recommendation
from fm_core.errors import BudgetError, CompatError


@functools.cache
def pipeline() -> fm.Pipeline:
    """The exact field of a Gaussian as a user's network: nothing else is known of it."""
    return problem().pipeline.replace(solver="euler")


@functools.cache
def problem() -> Any:
    """One Gaussian, whose flow is known: what is recommended can be judged by the truth."""
    return fm.build("problem", "gaussian", shape=[1])


def recommended(**more: Any) -> Recommendation:
    given = {"budget": "8nfe", "only": ["euler", "heun", "adams_pc(order=3)", "rk4"], "seeds": 3} | more
    return fm.recommend(pipeline(), (16, 1), progress=False, **given)


def test_the_best_is_named_and_is_the_best_when_one_looks() -> None:
    """Its own figures again, by hand: no other contender has a smaller median error on fresh noise."""
    found = recommended()
    assert found.rows[0].verdict == "best"
    assert (found.rows[0].name, found.nfe) == (found.name, 8)
    x0 = torch.randn(400, 1, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    truth = problem().reference(x0)
    errors = {}
    for name in ("euler", "heun", "rk4"):
        out = pipeline().replace(solver=name).sample(x0=x0, nfe=8, seed=0)
        errors[name] = float((out.x - truth).abs().median())
    own = found.pipeline.sample(x0=x0, nfe=found.nfe, seed=0)
    assert own.nfe <= 8
    assert float((own.x - truth).abs().median()) <= min(errors.values()) * 1.05


def test_errors_come_with_intervals_and_ties_are_called_ties() -> None:
    """On the linear path ddim is Euler's method: no difference may be found."""
    found = recommended(only=["euler", "ddim"])
    assert found.level == (found.rows[1].name,)
    assert all(row.error is not None and row.error.low is not None for row in found.rows)
    assert "no difference" in str(found)


def test_a_time_affords_fewer_calls_of_what_is_slower() -> None:
    found = recommended(budget="20ms", only=["euler", "heun"], seeds=2)
    began = time.perf_counter()
    found.pipeline.sample((16, 1), nfe=found.nfe, seed=0)
    assert time.perf_counter() - began < 0.5, "about within the budget, on a machine that is shared"
    assert found.budget == "20ms"
    assert (
        recommended(budget="0.1s", only=["euler"], seeds=2).nfe > recommended(budget="5ms", only=["euler"], seeds=2).nfe
    )


def test_conditions_are_those_that_are_given() -> None:
    seen: set[int] = set()

    def net(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        seen.update(cond.tolist())
        return cond[:, None].to(x) - x

    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"))
    found = fm.recommend(
        pipe, (8, 2), budget=6, cond=torch.tensor([3, 5]), only=["euler", "heun"], seeds=2, progress=False
    )
    assert seen == {3, 5}
    assert found.nfe == 6


def test_a_fitted_table_competes_where_it_is_asked_for() -> None:
    found = recommended(budget="5nfe", only=["euler"], calibrate=True, seeds=2)
    assert {row.name for row in found.rows} == {"euler", "calibrated"}
    assert found.name == "calibrated"


@pytest.mark.parametrize("budget", ["10", "fast", "-3nfe", "0nfe", "2.5nfe", ""])
def test_a_budget_that_is_none_is_refused(budget: str) -> None:
    with pytest.raises(BudgetError, match=r"budget|whole number"):
        recommended(budget=budget)


def test_a_budget_that_nothing_meets_is_an_error() -> None:
    with pytest.raises(BudgetError, match="no solver runs"):
        recommended(budget="1nfe", only=["rk4"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("euler_maruyama", "adds noise"),
        ("dopri5", "tolerances"),
        ("torchdiffeq_rk4@uniform", ""),
        ("torchdiffeq_rk4", ""),
    ],
)
def test_what_no_pathwise_error_or_pipeline_can_hold_is_refused_where_it_is_asked_for(name: str, why: str) -> None:
    """A peer that runs on a grid of ours is a solver like any other."""
    if name.startswith("diffusers"):
        pytest.importorskip("diffusers")
    if why:
        with pytest.raises(CompatError, match=why):
            recommended(only=["euler", name])
    else:
        assert name in {row.name for row in recommended(only=["euler", name]).rows}


def test_a_recommendation_is_a_pipeline_that_can_be_saved(tmp_path: Path) -> None:
    pipe = fm.recipe("cfm", model=fm.build("model", "mlp", shape=2, seed=0))
    found = fm.recommend(pipe, (8, 2), budget=4, only=["heun", "euler@cosine"], seeds=2, progress=False)
    found.pipeline.save(tmp_path / "mine")
    again = fm.load(tmp_path / "mine")
    assert again.sample((3, 2), nfe=4, seed=0).x.isfinite().all()
