"""Plans as JSON, as text, and in numpy: the same table everywhere."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import fm_core as fm
from fm_core.executing import execute
from fm_core.plan_export import run_numpy
from fm_core.randomness import make_generator, normal
from fm_core.testing import GaussianMixture

MIXTURE = GaussianMixture([[2.0, -1.0], [-1.0, 0.5]], [0.5, 0.8])
SOLVERS = ["euler", "rk4", "adams_pc", "unipc", "dpm_solver_pp", "ddpm", "stochastic_heun", "sa_solver"]


def _plan(solver: str, path: str = "linear", predicts: str = "velocity", steps: int = 7) -> tuple[fm.Plan, fm.Field]:
    built = fm.build("path", path)
    field = fm.Field(MIXTURE.model(built, predicts), built)
    times = torch.linspace(0.05, 0.95, steps + 1, dtype=torch.float64)
    return fm.build("solver", solver).prepare(field, times), field


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(5, 2), (1, 2), (2, 2)])
def test_numpy_and_torch_run_a_plan_alike(solver, shape):
    """The executor fuses, folds and forgets; the reference does none of it. Equal to rounding, at every grid point."""
    plan, field = _plan(solver)
    x = torch.randn(shape, generator=make_generator(0), dtype=torch.float64)
    seen: list[tuple[float, Any]] = []
    last = execute(plan, field, x, generator=make_generator(3), on_step=lambda t, y: seen.append((t, y.numpy())))
    source = make_generator(3)
    noise = [normal(shape, generator=source, dtype=torch.float64).numpy() for row in plan.rows if row.noise]
    asked: list[float] = []

    def predict(y, t):
        asked.append(t)
        return field.predict(torch.from_numpy(y), t, None, plan.space).numpy()

    found = list(run_numpy(plan.to_json(), predict, x.numpy(), noise=noise))
    np.testing.assert_allclose(found[-1][1], last.numpy(), rtol=0, atol=1e-12)
    assert [t for t, _ in found[: len(seen)]] == [t for t, _ in seen] == list(plan.times)
    for (_, got), (_, expected) in zip(found, seen, strict=False):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert asked == [plan.state_times[j] for j in plan.evaluated]


def test_the_reference_runs_without_torch():
    """A process that has the JSON, numpy and this module, and no torch."""
    plan, _ = _plan("heun")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np; from fm_core.plan_export import run_numpy\n"
        "*_, (t, x) = run_numpy(sys.stdin.read(), lambda x, t: -x, np.ones((1, 2))); print(t, x[0, 0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=plan.to_json(), capture_output=True, text=True, check=True
    )
    h = 0.9 / 7
    t, x = map(float, done.stdout.split())
    assert t == pytest.approx(0.95)
    assert x == pytest.approx((1 - h + h * h / 2) ** 7)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers, st.lists(numbers, min_size=1, max_size=4), st.booleans())
@settings(max_examples=60)
def test_json_gives_back_the_same_plan_to_the_last_bit(t0, noise, weights, accepted):
    terms = tuple((0, weight) for weight in weights)
    plan = fm.Plan("data", t0, [fm.Row(t0 / 3, terms, terms, noise, accepted=accepted), fm.Row(1.0, ((1, 1 / 3),), ())])
    assert fm.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("solver", SOLVERS)
def test_real_plans_survive_json(solver):
    plan, _ = _plan(solver)
    again = fm.Plan.from_json(plan.to_json())
    assert again == plan
    assert again.space is plan.space


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: "{", "cannot be read"),
        (lambda table: [1], "got 'list'"),
        (lambda table: table | {"format": "fm.plan/9"}, "got 'fm.plan/9'"),
        (lambda table: table | {"extra": 1}, "has the keys format, space, t0 and rows"),
        (lambda table: {k: v for k, v in table.items() if k != "t0"}, "has the keys"),
        (lambda table: table | {"rows": [{"t": 1.0}]}, "every row accepted"),
        (lambda table: table | {"rows": []}, "at least one row"),
        (lambda table: table | {"space": "x0"}, "no plan: "),
        (lambda table: table | {"rows": [table["rows"][0] | {"states": [[0.5, 1.0]]}]}, "an index is a whole number"),
        (lambda table: table | {"rows": [table["rows"][0] | {"states": [[7, 1.0]]}]}, "uses index 7"),
        (lambda table: table | {"rows": [table["rows"][0] | {"states": 3}]}, "this JSON is no plan"),
        (
            lambda table: table | {"rows": [table["rows"][0] | {"states": [], "predictions": []}]},
            "uses no state and no prediction",
        ),
        (lambda table: table | {"rows": [table["rows"][0] | {"states": [[0, math.nan]]}]}, "finite numbers; got nan"),
        (lambda table: table | {"rows": [table["rows"][0] | {"noise": "a"}]}, "finite numbers; got 'a'"),
        (lambda table: table | {"rows": [table["rows"][0] | {"accepted": 1}]}, "accepted is true or false"),
        (lambda table: table | {"t0": None}, "finite numbers; got None"),
    ],
)
def test_json_that_is_no_plan_is_refused(change, says):
    """By numpy's reader as by `from_json`: it would give numbers that are none, or a bare KeyError."""
    changed = change(json.loads(_plan("euler")[0].to_json()))
    text = changed if isinstance(changed, str) else json.dumps(changed)
    with pytest.raises(fm.SavedFileError, match=says):
        fm.Plan.from_json(text)
    if says != "no plan: ":  # the space, of which numpy knows nothing
        with pytest.raises(fm.SavedFileError, match=says):
            list(run_numpy(text, lambda x, t: x, np.ones((1, 2))))


@pytest.mark.parametrize("text", [None, 5, ["{}"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(fm.ArgumentError, match=r"the text that plan\.to_json"):
        fm.Plan.from_json(text)
    with pytest.raises(fm.ArgumentError, match=r"the text that plan\.to_json"):
        list(run_numpy(text, lambda x, t: x, np.ones((1, 2))))


def test_states_may_be_lists_and_the_text_bytes():
    plan, _ = _plan("euler")
    as_array = list(run_numpy(plan, lambda x, t: -x, np.array([[1.0, 2.0]])))
    as_lists = list(run_numpy(plan.to_json().encode(), lambda x, t: -x, [[1.0, 2.0]]))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(as_array, as_lists, strict=True))


@pytest.mark.parametrize("digits", [-1, 0, "a", 2.0, True])
def test_digits_of_a_description_are_at_least_one(digits):
    with pytest.raises(fm.ArgumentError, match="digits is a whole number ≥ 1"):
        _plan("euler")[0].describe(digits=digits)


def test_too_little_noise_is_refused():
    plan, _ = _plan("ddpm")
    with pytest.raises(ValueError, match="row 2 of the plan adds noise"):
        list(run_numpy(plan, lambda x, t: x, np.zeros((1, 2)), noise=[np.zeros((1, 2))] * 2))


def test_a_description_says_what_every_row_does():
    text = _plan("heun", steps=2)[0].describe(digits=3)
    assert text.splitlines() == [
        "plan in velocity: 4 rows, 2 steps from t = 0.05 to t = 0.95, 4 network calls (y0 y1 y2 y3), deterministic",
        "y0*  t = 0.05",
        "y1   t = 0.5   1·y0 + 0.45·p0",
        "y2*  t = 0.5   1·y0 + 0.225·p0 + 0.225·p1",
        "y3   t = 0.95  1·y2 + 0.45·p2",
        "y4*  t = 0.95  1·y2 + 0.225·p2 + 0.225·p3",
    ]
    assert "·z" in _plan("ddpm")[0].describe()
    assert "stochastic" in _plan("ddpm")[0].describe()
