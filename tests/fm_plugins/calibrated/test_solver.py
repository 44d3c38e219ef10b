"""Calibrated tables: numbers that run as they stand, are saved and loaded, and refuse what they were not fitted to."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import torch

import fm_core as fm
from fm_core import registry
from fm_core.errors import BudgetError, CompatError, TimeError
from fm_core.field import Field, schedule_fingerprint
from fm_core.gaussian import GaussianPath
from fm_core.randomness import make_generator
from fm_core.testing import GaussianMixture, check

MIXTURE = GaussianMixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5]]), torch.tensor([0.3, 0.2]))
TIMES = [0.0, 0.3, 0.8, 1.0]
PROVENANCE = {"nfe": 3, "path": "linear", "calibrated": {"median": 0.01, "rms": 0.02}}


def _options(path: GaussianPath) -> dict[str, Any]:
    """Adams–Bashforth 2 of three steps, as numbers."""
    return {
        "space": "velocity",
        "times": TIMES,
        "weights": [[0.3], [0.5 - 0.5 * (1 + 5 / 6), 0.5 * (1 + 5 / 6)], [0.0, -0.04, 0.24]],
        "schedule": list(schedule_fingerprint(path)),
        "predicts": ["velocity"],
        "provenance": PROVENANCE,
    }


@pytest.fixture
def linear() -> GaussianPath:
    return fm.build("path", "linear")  # type: ignore[no-any-return]


def test_it_runs_as_the_table_that_it_holds(linear: GaussianPath) -> None:
    solver = fm.build("solver", "calibrated", **_options(linear))
    same = fm.build("solver", "adams_bashforth", order=2)
    x = torch.randn(6, 2, generator=make_generator(0), dtype=torch.float64)
    field, times = MIXTURE.field(linear), torch.tensor(TIMES, dtype=torch.float64)
    assert torch.allclose(solver.solve(field, x, times), same.solve(field, x, times), atol=1e-13)


def test_it_survives_json(linear: GaussianPath) -> None:
    solver = fm.build("solver", "calibrated", **_options(linear))
    text = json.dumps(registry.to_config(solver))
    loaded = registry.from_config("solver", json.loads(text))
    assert loaded.plan == solver.plan
    assert loaded.predicts == (fm.Prediction.VELOCITY,)
    assert loaded.provenance == PROVENANCE
    assert len(text) < 1500


def test_a_saved_pipeline_holds_it(tmp_path: Any, linear: GaussianPath) -> None:
    solver = fm.build("solver", "calibrated", **_options(linear))
    net = fm.build("model", "mlp", shape=2)
    pipe = fm.compose(path=linear, model=net, objective="cfm", solver=solver)
    pipe.save(tmp_path / "saved")
    loaded = fm.load(tmp_path / "saved")
    assert loaded.solver.plan == solver.plan
    assert loaded.solver.provenance == PROVENANCE
    assert torch.equal(loaded.sample((5, 2), nfe=3, seed=0).x, pipe.sample((5, 2), nfe=3, seed=0).x)


def test_it_refuses_another_path_prediction_budget_span_or_grid(linear: GaussianPath, paths: dict[str, Any]) -> None:
    solver = fm.build("solver", "calibrated", **_options(linear))
    times = torch.tensor(TIMES, dtype=torch.float64)
    x = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(CompatError, match="other α and σ than 'linear'"):
        solver.solve(MIXTURE.field(paths["cosine"]), x, times)
    with pytest.raises(CompatError, match="predicts data, and that one predicted velocity"):
        solver.solve(MIXTURE.field(linear, "data"), x, times)
    field = MIXTURE.field(linear)
    with pytest.raises(BudgetError, match="calibrated for 3 steps"):
        solver.solve(field, x, torch.linspace(0, 1, 6, dtype=torch.float64))
    with pytest.raises(TimeError, match="times of its own"):
        solver.solve(field, x, torch.tensor([0.0, 0.4, 0.8, 1.0], dtype=torch.float64))
    with pytest.raises(TimeError, match="invert"):
        solver.solve(field, x, times.flip(0))
    assert solver.steps_for(field, 3, lambda n: times) == 3
    with pytest.raises(BudgetError, match="for 3 predictions"):
        solver.steps_for(field, 4, lambda n: times)


def test_a_network_of_the_same_field_in_another_kind_may_be_let_in(linear: GaussianPath) -> None:
    """Without `predicts` any prediction serves, and gives the same states."""
    solver = fm.build("solver", "calibrated", **(_options(linear) | {"predicts": []}))
    x = torch.randn(4, 2, generator=make_generator(0), dtype=torch.float64)
    times = torch.tensor(TIMES, dtype=torch.float64)
    plain = solver.solve(MIXTURE.field(linear), x, times)
    other = solver.solve(Field(MIXTURE.model(linear, "v"), linear), x, times)
    assert torch.allclose(plain, other, atol=1e-12)


def test_numbers_that_make_no_table_are_refused(linear: GaussianPath) -> None:
    with pytest.raises(ValueError, match="rows of weights of 1 … 3 numbers"):
        fm.build("solver", "calibrated", **(_options(linear) | {"weights": [[0.3], [0.1], [0.0, 0.0, 0.2]]}))
    with pytest.raises(TimeError, match="strictly increasing"):
        fm.build("solver", "calibrated", **(_options(linear) | {"times": [0.0, 0.8, 0.3, 1.0]}))


def test_composing_says_at_once_that_a_table_is_another_paths_and_another_networks(
    linear: GaussianPath, paths: dict[str, Any]
) -> None:
    """The times of another path's network end elsewhere as well: what is wrong is said before they are looked at."""
    solver = fm.build("solver", "calibrated", **_options(linear))
    fitting = fm.compose(path=linear, model=MIXTURE.model(linear), solver=solver)
    with pytest.raises(CompatError) as raised:
        fm.compose(path=paths["vp"], model=MIXTURE.model(paths["vp"], "noise"), solver=solver)
    network, path = raised.value.problems
    assert "predicts noise, and that one predicted velocity" in network.why
    assert "other α and σ than 'linear'" in path.why
    with pytest.raises(CompatError, match="other α and σ"):
        fitting.replace(path=paths["cosine"], model=MIXTURE.model(paths["cosine"]))
    assert fitting.replace(solver="heun", path=paths["cosine"], model=MIXTURE.model(paths["cosine"])).solver


def test_rounding_at_the_ends_is_said_as_none(linear: GaussianPath) -> None:
    solver = fm.build("solver", "calibrated", **(_options(linear) | {"times": [2.220446049250313e-16, *TIMES[1:]]}))
    with pytest.raises(TimeError, match=r"from t = 0 to 1; got 0 to 0\.5"):
        solver.grid.times(linear, 3, (1e-17, 0.5))


@pytest.mark.parametrize(("predicts", "times"), [("velocity", TIMES), ("noise", [1e-3, *TIMES[1:]])])
def test_a_published_table_passes_the_kit_on_its_own_path_and_prediction(
    linear: GaussianPath, predicts: str, times: list[float]
) -> None:
    config = {"name": "calibrated", **_options(linear), "predicts": [predicts], "times": times}
    results = check(_published(config))
    assert not [f"{r.check}: {r.why}" for r in results if r.status == "FAIL"]
    passed = {r.check for r in results if r.status == "PASS"}
    assert {"shapes_and_dtypes", "gradients_pass", "condition_reaches_the_network", "plans_are_values"} <= passed


@pytest.mark.parametrize(
    ("path", "changed", "why"),
    [
        ("vp", {}, "made for one path, and the kit's closed forms are on others: linear and trigonometric"),
        ("linear", {"times": [0.0, 0.3, 0.8]}, "closes a run"),
        ("linear", {"times": [0.1, 0.3, 0.8, 1.0]}, "none of a run without guidance"),
    ],
)
def test_the_kit_skips_a_table_that_it_cannot_run_and_says_why(
    paths: dict[str, Any], path: str, changed: dict[str, Any], why: str
) -> None:
    results = check(_published({"name": "calibrated", **_options(paths[path]), **changed}))
    assert not [f"{r.check}: {r.why}" for r in results if r.status == "FAIL"]
    assert why in {r.check: r.why for r in results if r.status == "SKIP"}["seeds"]


def _published(config: dict[str, Any]) -> fm.Component:
    """A component as a package that ships tables declares it."""
    return fm.Component("solver", "my_net_3", functools.partial(registry.from_config, "solver", config))
