"""Inversion: what is encoded is sampled back to the solver's order, at every end a path can have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

import fm_core as fm
from fm_core.testing import GaussianMixture

MIXTURE = GaussianMixture([[2.0, -1.0], [-1.0, 0.5]], [0.5, 0.8])
X1 = MIXTURE(64, torch.Generator().manual_seed(0)).double()


def _pipe(path: Any = "linear", predicts: str = "velocity", solver: Any = "heun", **parts: Any) -> fm.Pipeline:
    path = fm.build("path", path) if isinstance(path, str) else path
    return fm.compose(path=path, model=MIXTURE.model(path, predicts), solver=solver, **parts)


def _round_trip(pipe: fm.Pipeline, **budget: Any) -> float:
    """The median over samples of how far they come back from where they were."""
    back = pipe.sample(x0=pipe.encode(X1, **budget).x, seed=0, **budget).x
    return float((back - X1).norm(dim=1).median())


@pytest.mark.parametrize("path", ["linear", "vp", "ddpm", "cosine", "ve"])
@pytest.mark.parametrize(
    ("solver", "steps", "order", "within"),
    [("ddim", 40, 1, 0.2), ("heun", 20, 2, 0.1), ("rk4", 12, 4, 2e-2), ("adams_pc", 24, 2, 0.2), ("unipc", 40, 2, 0.1)],
)
def test_encoding_and_sampling_is_the_identity_to_the_solvers_order(path, solver, steps, order, within):
    """Broken by a step in the wrong direction, a wrong scale at either end, or a data end met less exactly."""
    pipe = _pipe(path, "noise" if path in {"vp", "ddpm"} else "velocity", solver)
    coarse, fine = (_round_trip(pipe, steps=n) for n in (steps, 2 * steps))
    assert coarse < within
    assert math.log2(coarse / fine) > order - 0.3


@pytest.mark.parametrize("path", ["linear", "vp", "ve"])
def test_an_adaptive_solver_inverts_to_its_tolerance(path):
    assert _round_trip(_pipe(path, solver="dopri5"), rtol=1e-7, atol=1e-7) < 1e-5


@pytest.mark.parametrize("path", ["linear", "vp", "cosine", "ve"])
@pytest.mark.parametrize("predicts", ["velocity", "noise", "data"])
def test_a_gaussian_is_encoded_to_its_source_in_closed_form(path, predicts):
    """Standard deviations flow as √(α²v + σ²), and x1 is the data prediction of the last state, m + gain·(y − α·m)."""
    mean, variance = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.25
    data = GaussianMixture([[1.0, -2.0]], 0.5)
    path = fm.build("path", path)
    x1 = data(32, torch.Generator().manual_seed(1)).double()
    encoded = fm.compose(path=path, model=data.model(path, predicts), solver="rk4").encode(x1, steps=100)
    (begin, end), alpha = encoded.times[[0, -1]], path.alpha
    std = [(alpha(t).square() * variance + path.sigma(t).square()).sqrt() for t in (begin, end)]
    centred = (x1 - mean) * std[0].square() / (alpha(begin) * variance) * std[1] / std[0]
    exact = (alpha(end) * mean + centred) / path.sigma(end)
    torch.testing.assert_close(encoded.x, exact, rtol=0, atol=5e-4)


def test_without_the_closing_data_prediction_the_data_are_the_last_states():
    pipe = _pipe("vp", "noise", "heun")
    back = pipe.sample(x0=pipe.encode(X1, steps=80, final="none").x, steps=80, final="none", seed=0)
    assert (back.x - X1).norm(dim=1).median() < 1e-3
    other = pipe.sample(x0=pipe.encode(X1, steps=80).x, steps=80, final="none", seed=0).x
    assert (other - X1).abs().max() > 2 * (back.x - X1).abs().max()


def test_the_data_end_is_solved_for_the_state_not_just_scaled():
    """α·x1 alone is off by σ²·score: what comes back would be 1e-4 away on a grid as fine as one likes."""
    assert _round_trip(_pipe("vp", "noise", "rk4"), steps=60) < 5e-5


def test_a_run_that_goes_on_to_the_data_by_itself_is_turned_round_to_its_order():
    """On VP `auto` reaches σ = 0, where encoding cannot begin: taken for a closing, that end would leave σ²/2, 1e-4."""
    pipe = _pipe("vp", "noise", "auto")
    coarse, fine = (_round_trip(pipe, steps=n) for n in (40, 160))
    assert fine < 3e-6
    assert math.log2(coarse / fine) / 2 > 2.7
    assert pipe.encode(X1, steps=40).nfe == 41


@pytest.mark.parametrize("solver", ["ddim", "unipc", "auto"])
def test_the_first_state_inside_is_where_the_flow_comes_by_to_fourth_order(solver):
    """For Gaussian data standard deviations flow as √(α²v + σ²)."""
    mean, variance = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.25
    data = GaussianMixture([[1.0, -2.0]], 0.5)
    x1, schedule = data(8, torch.Generator().manual_seed(1)).double(), fm.build("path", "vp").schedule
    left, levels = [], []
    for margin in (0.04, 0.02):
        path = fm.GaussianPath(schedule, margin=margin)
        pipe = fm.compose(path=path, model=data.model(path, "noise"), solver=solver)
        first = pipe.encode(x1, steps=3, trajectory=True).trajectory[0]
        t = torch.tensor(1 - margin, dtype=torch.float64)
        alpha, sigma = path.alpha(t), path.sigma(t)
        flow = alpha * mean + (x1 - mean) * (alpha.square() + sigma.square() / variance).sqrt()
        left.append(float((first - flow).norm()))
        levels.append(float(sigma))
    assert math.log(left[0] / left[1]) / math.log(levels[0] / levels[1]) > 3.7


def test_calls_are_counted_and_a_budget_is_kept_with_the_ends():
    for path, solver, ends in (("linear", "heun", 0), ("vp", "heun", 1), ("linear", "ddim", 2)):
        pipe = _pipe(path, "velocity", solver)
        encoded = pipe.encode(X1, nfe=12)
        assert encoded.nfe <= 12
        assert encoded.nfe == (len(encoded.times) - 1) * pipe.solver.evals_per_step + ends
    with pytest.raises(fm.BudgetError, match="ends of this inversion cost 2"):
        _pipe("linear", solver="ddim").encode(X1, nfe=2)


def test_the_sampling_runs_own_grid_is_turned_round():
    pipe = _pipe("linear", solver="ddim")
    times = pipe.sample((1, 2), steps=40, seed=0).times
    encoded = pipe.encode(X1, times=times)
    assert len(encoded.times) == 41
    assert encoded.times.diff().lt(0).all()
    torch.testing.assert_close(encoded.times[1:-1], times[1:-1].flip(0))
    torch.testing.assert_close(encoded.x, pipe.encode(X1, times=times.flip(0)).x)


def test_grids_fall_as_they_rise():
    @frozen
    class Squares:
        def times(self, path: Any, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
            u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
            return span[0] + (span[1] - span[0]) * u.square()

    assert _pipe(grid=Squares()).encode(X1, steps=4).times.tolist() == [1, 9 / 16, 4 / 16, 1 / 16, 0]


def test_chunks_shapes_and_trajectories():
    pipe = _pipe(solver="heun")
    whole = pipe.encode(X1, steps=5, trajectory=True)
    chunked = pipe.encode(X1, steps=5, chunk=7, trajectory=True)
    torch.testing.assert_close(chunked.x, whole.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(chunked.trajectory, whole.trajectory, rtol=0, atol=1e-12)
    assert torch.equal(whole.trajectory[0], X1)
    assert torch.equal(whole.trajectory[-1], whole.x)
    model = fm.Model(lambda x, t, cond: cond[:, None, None, None] * x, predicts="velocity")
    images = fm.compose(path="linear", model=model, solver="euler")
    x1, cond = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(3.0)
    encoded = images.encode(x1, cond=cond, steps=4, chunk=2)
    torch.testing.assert_close(encoded.x, (1 - cond / 4)[:, None, None, None].pow(4) * x1)
    assert images.encode(x1[:1].double(), cond=cond[:1].double(), steps=4).x.dtype == torch.float64


def test_a_codec_encodes_first():
    class Scaled:
        def encode(self, x: Tensor) -> Tensor:
            return x / 10

        def decode(self, z: Tensor) -> Tensor:
            return z * 10

    assert torch.equal(_pipe(codec=Scaled()).encode(10 * X1, steps=3).x, _pipe().encode(10 * X1 / 10, steps=3).x)


def test_guidances_of_single_samples_go_with_their_rows():
    @frozen(eq=False)
    class Pull:
        towards: Tensor
        needs = frozenset()
        acts_on = None

        def guide(self, field: Any, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
            return field.predict(x_t, t, cond, field.native, until=until) + self.towards - x_t

        def select(self, rows: slice) -> Pull:
            return Pull(self.towards[rows])

    pipe = _pipe(guidance=[Pull(X1 + 1)])
    torch.testing.assert_close(pipe.encode(X1, steps=3, chunk=5).x, pipe.encode(X1, steps=3).x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "budget", "error", "says"),
    [
        ("ddpm", {"steps": 5}, fm.TimeError, r"'ddpm' is stochastic and cannot invert.*heun"),
        ("predictor_corrector", {"steps": 5}, fm.TimeError, "cannot invert"),
        ("heun", {}, fm.BudgetError, "fixed grid"),
        ("heun", {"steps": 3, "nfe": 6}, fm.BudgetError, "one of steps"),
        ("heun", {"times": [0.0, 0.5]}, fm.TimeError, "times must reach from the data, t = 1, to the source, t = 0"),
        ("heun", {"steps": 3, "final": "zero"}, fm.BudgetError, "final must be"),
        ("heun", {"steps": 3, "chunk": 0}, fm.BudgetError, "chunk"),
        ("heun", {"steps": 3, "cond": torch.zeros(2)}, fm.ShapeError, "cond must have the batch first"),
        ("dopri5", {"steps": 3}, fm.BudgetError, "chooses its own steps"),
    ],
)
def test_what_cannot_be_inverted_is_refused_before_any_network_call(solver, budget, error, says):
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: 1 / 0, predicts="velocity"), solver=solver)
    with pytest.raises(error, match=says):
        pipe.encode(X1, **budget)


@pytest.mark.parametrize("x1", [torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64), torch.zeros(0, 2), None])
def test_data_of_a_wrong_kind_are_named(x1):
    with pytest.raises(fm.ShapeError, match="data are a floating-point tensor"):
        _pipe().encode(x1, steps=3)


def test_divergence_is_located_or_reported():
    model = fm.Model(lambda x, t: x / (t[:, None] - 0.5).clamp(min=0), predicts="velocity")
    pipe = fm.compose(path="linear", model=model, solver="euler")
    with pytest.raises(fm.DivergenceError, match=r"step 3: the network's output \(call 3\) at t = 0.5"):
        pipe.encode(X1, steps=4)
    assert not pipe.encode(X1, steps=4, throw=False).status.any()


@pytest.mark.parametrize("solver", ["heun", "dopri5"])
@pytest.mark.parametrize("chunk", [None, 5])
def test_data_that_diverge_do_not_take_the_others_along(solver, chunk):
    """Not the rest of their batch, nor the chunks that were finished before them."""
    path = fm.build("path", "linear")
    mixture = MIXTURE.model(path)
    model = fm.Model(lambda x, t, cond: torch.where(cond[:, None] == 1, torch.nan, mixture(x, t)), "velocity")
    pipe = fm.compose(path=path, model=model, solver=solver)
    asked = {} if solver == "dopri5" else {"steps": 4}
    cond = torch.zeros(12)
    good = pipe.encode(X1[:12], cond=cond, dtype=torch.float64, trajectory=True, **asked)
    cond[7] = 1
    out = pipe.encode(X1[:12], cond=cond, dtype=torch.float64, trajectory=True, throw=False, chunk=chunk, **asked)
    assert (~out.status).nonzero().flatten().tolist() == [7]
    torch.testing.assert_close(out.x[out.status], good.x[out.status], rtol=0, atol=1e-3)
    torch.testing.assert_close(out.trajectory[:, out.status], good.trajectory[:, out.status], rtol=0, atol=1e-3)
    with pytest.raises(fm.DivergenceError) as caught:
        pipe.encode(X1[:12], cond=cond, dtype=torch.float64, chunk=chunk, **asked)
    assert hasattr(caught.value, "finished") == (chunk is not None)
    if chunk:
        torch.testing.assert_close(caught.value.finished.x, good.x[:5], rtol=0, atol=1e-3)
        assert "first 5 of 12" in caught.value.__notes__[0]


@pytest.mark.usefixtures("global_rng_untouched")
def test_encoding_draws_nothing_and_keeps_gradients_only_when_asked():
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: w * x, predicts="velocity"), solver="euler")
    assert not pipe.encode(X1, steps=3).x.requires_grad
    encoded = pipe.encode(X1, steps=10, grad=True)
    (by_w,) = torch.autograd.grad(encoded.x.sum(), w)
    torch.testing.assert_close(by_w, (X1 * 10 * -0.1 * (1 - 0.07) ** 9).sum())
