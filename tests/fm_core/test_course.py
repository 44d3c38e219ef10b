from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.errors import ArgumentError, CompatError, TimeError
from fm_core.plan_export import run_numpy


def net(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x) * (1 - t.reshape(-1, *[1] * (x.ndim - 1)))


@pytest.mark.parametrize(
    ("path", "predicts", "solver", "grid"),
    [
        ("linear", "velocity", "heun", None),
        ("linear", "data", "unipc", "log_snr"),
        ("vp", "noise", "heun", None),
        ("vp", "noise", "auto", None),
        ("edm", "data", "dpm_solver_pp", "karras"),
        ("cosine", "v", "ddim", None),
    ],
)
def test_the_plan_is_what_sampling_executes(path: str, predicts: str, solver: str, grid: str | None) -> None:
    """Run by numpy on the bare network it gives the samples, for any budget, its closing data prediction included."""
    pipe = fm.compose(path=path, model=fm.Model(net, predicts=predicts), solver=solver, grid=grid)
    x0 = torch.randn(3, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = pipe.plan(nfe=9)
    first = x0 * pipe.path.sigma(torch.tensor(plan.times[0], dtype=torch.float64))

    def bare(x: np.ndarray, t: float) -> np.ndarray:
        return net(torch.as_tensor(x), torch.full((len(x),), t, dtype=torch.float64)).numpy()

    *_, (_, last) = run_numpy(plan.to_json(), bare, first.numpy())
    run = pipe.sample(x0=x0, nfe=9)
    assert plan.nfe == run.nfe <= 9
    assert np.allclose(last, run.x.numpy(), rtol=1e-9, atol=1e-12)


def test_the_budget_of_a_plan_is_that_of_sampling() -> None:
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="euler")
    run = pipe.sample((1, 2), times=[0, 0.25, 1])
    assert list(pipe.plan(times=[0, 0.25, 1]).times) == [0, 0.25, 1] == run.times.tolist()
    assert pipe.plan(steps=4, start=0.5).times[0] == 0.5
    assert pipe.plan(steps=4) is pipe.plan(steps=4), "it is computed once"
    with pytest.raises(ArgumentError, match="'times' is 'abc'"):
        pipe.plan(times="abc")  # type: ignore[arg-type]


def test_what_has_no_plan_says_so() -> None:
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="dopri5")
    with pytest.raises(CompatError, match=r"a plan of the solver 'dopri5'(?s:.)*take a fixed-grid solver"):
        pipe.plan()


def test_a_grid_with_another_number_of_times_is_refused() -> None:
    class Three:
        def times(self, path: object, steps: int, span: tuple[float, float]) -> Tensor:
            return torch.linspace(*span, 3, dtype=torch.float64)

    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="euler", grid=Three())
    assert pipe.sample((1, 2), steps=2).nfe == 2
    with pytest.raises(TimeError, match="the grid 'Three' has 3 times for 50 steps; expected 51"):
        pipe.sample((1, 2), steps=50)
