"""A recommendation is the best of what was measured on the pipeline itself, within the budget, with its evidence."""

from __future__ import annotations

import functools
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.bench.recommendation import Recommendation
from fm_core.errors import ArgumentError, BudgetError, CompatError, ConditionError, DivergenceError, FMError, ShapeError


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
    """Two grids that differ by chance alone have one error; another solver has not."""
    found = recommended(only=["heun", "heun@power(exponent=1.0005)", "euler"])
    assert found.level == (found.rows[1].name,)
    assert found.rows[2].verdict == "worse"
    assert all(row.error is not None and row.error.low is not None for row in found.rows)
    assert "no difference" in str(found)


def test_of_those_that_take_the_same_steps_the_plainest_is_named() -> None:
    """Within one call Adams's and UniPC's tables are Euler's step."""
    found = recommended(budget="1nfe", only=["adams_bashforth(order=3)", "euler@power(exponent=2)", "unipc", "euler"])
    assert found.name == "euler"
    assert set(found.same) == {"adams_bashforth(order=3)", "euler@power(exponent=2)", "unipc"}
    assert "take the same steps" in str(found)
    assert recommended(only=["adams_pc(order=3)", "euler"]).name == "adams_pc(order=3)", (
        "the best first, where it is one"
    )


def test_what_is_recommended_within_a_time_was_run_in_that_time() -> None:
    """With so many calls as are recommended, on this batch, on the threads that the answer names."""
    found = recommended(budget="20ms", only=["euler", "heun"], seeds=2)
    assert found.budget == "20ms"
    assert all(row.seconds is not None and 0 < row.seconds <= 0.02 for row in found.rows)
    began = time.perf_counter()
    found.pipeline.sample((16, 1), nfe=found.nfe, seed=0)
    assert time.perf_counter() - began < 0.5, "about within the budget, on a machine that is shared"
    assert f"times are of a batch of 16 on {torch.get_num_threads()} thread" in str(found)
    more, less = (recommended(budget=time, only="euler", seeds=2).nfe for time in ("30ms", "5ms"))
    assert more > less


def test_calls_are_timed_too() -> None:
    (row,) = recommended(only=["heun"], seeds=2).rows
    assert row.seconds is not None
    assert 0 < row.seconds < 1


def rough(shape: tuple[int, ...], rows: list[int]) -> fm.Pipeline:
    """A network that knows time by waves of 1000·t, as U-Nets do, and counts the rows that it is asked for."""
    waves = 1000 * torch.logspace(0, -2, 8)

    def net(x: Tensor, t: Tensor) -> Tensor:
        rows.append(len(x))
        wave = (t[:, None] * waves).sin().sum(1).reshape(-1, *[1] * len(shape))
        return (x + 0.001 * wave).tanh() - x

    return fm.compose(path="linear", model=fm.Model(net, predicts="velocity"))


def test_a_network_that_is_rough_in_time_is_judged_at_a_cost_that_is_bounded() -> None:
    """No reference refined without end: steps are added only while contenders are not told from it."""
    rows: list[int] = []
    found = fm.recommend(
        rough((1, 8, 8), rows), (4, 1, 8, 8), budget=6, only=["euler", "heun"], seeds=3, progress=False
    )
    assert sum(rows) < 3 * 16 * 250
    assert found.reference_steps <= 160
    assert found.rows[0].error is not None
    assert 0 < 10 * found.reference_error < found.rows[0].error.median
    assert f"right to {found.reference_error:.2g}" in str(found)


def test_the_reference_is_as_fine_as_the_best_contender_asks_for() -> None:
    coarse, fine = (recommended(budget=nfe, only="adams_pc(order=3)", seeds=2) for nfe in (4, 60))
    assert fine.reference_steps > coarse.reference_steps
    assert fine.rows[0].error is not None
    assert fine.reference_error * 10 <= fine.rows[0].error.median * 1.5


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


@pytest.mark.parametrize("budget", ["10", "fast", "-3nfe", "0nfe", "2.5nfe", "", "0ms", "0s", 0, "1000000nfe"])
def test_a_budget_that_is_none_is_refused(budget: str | int) -> None:
    with pytest.raises(BudgetError, match=r"budget|whole number|more than"):
        recommended(budget=budget)


def explodes(x: Tensor, t: Tensor) -> Tensor:
    return x * torch.where(t > 0.9, torch.inf, 1.0)[:, None]


def labelled(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    if cond is None:
        raise ConditionError("this network needs labels")
    return -x


@pytest.mark.parametrize(
    ("net", "error", "why"), [(explodes, DivergenceError, "not finite"), (labelled, ConditionError, "needs labels")]
)
def test_what_is_wrong_with_the_pipeline_is_said_and_not_that_no_solver_is_fast_enough(
    net: Any, error: type[FMError], why: str
) -> None:
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"))
    with pytest.raises(error, match=why):
        fm.recommend(pipe, (4, 2), budget=4, only=["heun"], seeds=2, progress=False)


@pytest.mark.parametrize("shape", [(4, 3), (0, 2), (4,), (-1, 2)])
def test_a_shape_that_is_none_or_another_is_refused(shape: Any) -> None:
    pipe = fm.recipe("cfm", model=fm.build("model", "mlp", shape=2, seed=0))
    with pytest.raises(ShapeError, match=r"states \(B, 2\)|B ≥ 1"):
        fm.recommend(pipe, shape, budget=4, only=["heun"], seeds=2, progress=False)


@pytest.mark.parametrize(
    "given",
    [
        {"only": []},
        {"only": ["heun", "heun"]},
        {"seeds": 0},
        {"seeds": 1},
        {"seeds": [3, 3]},
        {"seeds": "5"},
        {"samples": 1},
        {"budget": None},
        {"budget": 2.5},
    ],
)
def test_what_is_no_comparison_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        recommended(**given)


def test_one_contender_is_a_name_and_seeds_may_be_named() -> None:
    found = recommended(only="heun", seeds=[7, 9, 11])
    assert [row.name for row in found.rows] == ["heun"]
    assert found.rows[0].error is not None
    assert set(found.rows[0].error.by_seed) == {7, 9, 11}


def test_two_seeds_tell_nothing_and_it_is_said() -> None:
    found = recommended(only=["heun", "euler"], seeds=2)
    assert found.rows[1].verdict == "untold"
    assert "so few seeds" in str(found)


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


def test_a_solver_that_spends_more_than_it_was_given_is_not_named() -> None:
    class Twice:
        needs, order, evals_per_step, stochastic, grid = frozenset({fm.Prediction.VELOCITY}), 1, 1, False, None
        geometries = frozenset({"euclidean"})

        def solve(self, field: Any, x: Tensor, times: Tensor, **more: Any) -> Tensor:
            fine = torch.linspace(float(times[0]), float(times[-1]), 2 * len(times) - 1)
            for a, b in itertools.pairwise(fine):
                x = x + float(b - a) * field.predict(x, float(a), None, fm.Prediction.VELOCITY)
            return x

    fm.registry.register(fm.Component("solver", "twice", Twice, summary="planted"))
    found = recommended(only=["euler", "twice"])
    assert found.name == "euler"
    assert found.rows[1].verdict == "failed: it made 16 network calls where 8 were asked for"
