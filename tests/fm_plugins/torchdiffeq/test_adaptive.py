"""Adaptive solvers: tolerance, interval, budget, divergence, gradients; against closed forms."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fm_core.errors import BudgetError, DivergenceError, TimeError
from fm_core.field import Field, Model
from fm_core.gaussian import GaussianPath
from fm_core.prediction import Prediction
from fm_core.protocols import Solver
from fm_plugins.torchdiffeq.adaptive import METHODS, AdaptiveODE, adaptive_heun, bosh3, dopri5, dopri8, fehlberg2

F64 = torch.float64
UNIT = torch.tensor([0.0, 1.0], dtype=F64)
FACTORIES = [dopri5, dopri8, bosh3, fehlberg2, adaptive_heun]
every_method = pytest.mark.parametrize("method", list(METHODS))


@frozen
class Linear:
    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)


PATH = GaussianPath(Linear())
MEAN, STD = 2.0, 0.5


def field_of(net: Callable[..., Any], predicts: str = "velocity") -> Field:
    return Field(Model(net, predicts=predicts), PATH)


def over(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The velocity of N(MEAN, STD²) on the linear path: α'm + (αα's² + σσ')/(α²s² + σ²)·(x − αm)."""
    t = over(t, x)
    return MEAN + (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2) * (x - t * MEAN)


def gaussian_flow(x: Tensor, s: float, t: float) -> Tensor:
    """Its flow from time s to t: the standardised state (x − αm)/√(α²s² + σ²) is constant."""
    scale = [math.sqrt(u**2 * STD**2 + (1 - u) ** 2) for u in (s, t)]
    return t * MEAN + scale[1] / scale[0] * (x - s * MEAN)


def states(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Recorded:
    """A velocity that notes the times it is asked at, and how often."""

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.net, self.times = net, list[Tensor]()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1]
        self.times.append(t)
        return self.net(x, t)


class Small(nn.Module):
    """A smooth network in float64."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(3, 8, generator=g, dtype=F64))
        self.second = nn.Parameter(torch.randn(8, 2, generator=g, dtype=F64))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        inputs = torch.cat([x, t[:, None]], 1)
        shift = 0 if cond is None else cond
        hidden: Tensor = torch.tanh(inputs @ self.first) @ self.second + shift
        return hidden


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_factories_build_the_method_of_their_name(factory: Callable[..., AdaptiveODE]) -> None:
    solver = factory(rtol=1e-3, atol=1e-4, max_nfe=7, adjoint=True)
    assert solver == AdaptiveODE(factory.__name__, 1e-3, 1e-4, 7, True)
    assert isinstance(solver, Solver)
    assert factory() == AdaptiveODE(factory.__name__)


@every_method
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (5, 1), (3, 1, 4, 4), (4,)], ids=str)
def test_gaussian_flow_is_followed_to_tolerance(method: str, shape: tuple[int, ...]) -> None:
    x = states(*shape)
    end = AdaptiveODE(method, rtol=1e-5, atol=1e-5).solve(field_of(gaussian), x, UNIT)
    assert end.shape == shape
    assert end.dtype == F64
    torch.testing.assert_close(end, gaussian_flow(x, 0, 1), rtol=0, atol=3e-4)


@every_method
def test_error_falls_with_the_tolerance(method: str) -> None:
    x, errors = states(16, 2), []
    for tolerance in (1e-2, 1e-6):
        end = AdaptiveODE(method, tolerance, tolerance).solve(field_of(gaussian), x, UNIT)
        errors.append((end - gaussian_flow(x, 0, 1)).abs().max().item())
    assert errors[1] < errors[0] / 100
    assert errors[1] < 1e-5


@every_method
def test_order_is_the_order_of_convergence(method: str) -> None:
    """Under loose tolerances steps grow tenfold from 1e-4, so nearly all is one step h and the error ~ h^(order + 1).

    Over all phases, since at any one the leading error may happen to cancel.
    """
    order, errors = METHODS[method][0], []
    x, phase = torch.ones(1, 64, dtype=F64), torch.arange(64, dtype=F64) * (2 * math.pi / 64)
    field = field_of(lambda x, t: x * torch.cos(8 * over(t, x) + phase))
    for h in (0.09, 0.05):
        times = torch.tensor([0.1, 0.1 + 0.0111 + h], dtype=F64)
        end = AdaptiveODE(method, 1e9, 1e9).solve(field, x, times)
        angles = 8 * times[:, None] + phase
        exact = torch.exp((angles[1].sin() - angles[0].sin()) / 8)
        errors.append((end - exact).square().mean().sqrt().item())
    measured = math.log(errors[0] / errors[1]) / math.log(0.09 / 0.05)
    assert abs(measured - (order + 1)) < 0.2


@frozen
class Noting:
    """A guidance that changes nothing and notes (t, until) of every call."""

    noted: list[tuple[float, float]]

    needs = frozenset({Prediction.VELOCITY})
    acts_on = None

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Any:
        assert until is not None
        assert until.shape == t.shape == x_t.shape[:1]
        self.noted.append((t[0].item(), until[0].item()))
        return field.predict(x_t, t, cond, Prediction.VELOCITY)


@every_method
@pytest.mark.parametrize("falling", [False, True])
def test_evals_per_step_is_what_a_step_costs(method: str, falling: bool) -> None:
    """Two calls choose the first step; the rest comes in whole steps, each of which asks just before its end."""
    solver, guidance = AdaptiveODE(method), Noting([])
    times = UNIT.flip(0) if falling else UNIT
    last = times[-1].item()
    solver.solve(Field(Model(gaussian, predicts="velocity"), PATH, (guidance,)), states(3, 2), times)
    chosen, tried = guidance.noted[:2], guidance.noted[2:]
    assert [until for _, until in chosen] == [last, last]
    steps = [tried[i : i + solver.evals_per_step] for i in range(0, len(tried), solver.evals_per_step)]
    assert len(steps[-1]) == solver.evals_per_step
    for step in steps:
        assert len({until for _, until in step}) == 1
        assert step[-1][0] == pytest.approx(step[-1][1], abs=1e-12)
    assert steps[-1][0][1] == last
    # A step that went beyond the end would ask at it exactly, where the wrapper stops it; one that ends there does not.
    assert last not in [t for t, _ in tried]


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("ends", [(0.3, 0.7), (0.7, 0.3), (0.1, 0.999), (0.0, 1.0), (1.0, 0.0)], ids=str)
def test_field_is_never_asked_outside_the_interval(method: str, dtype: torch.dtype, ends: tuple[float, float]) -> None:
    """Not by overshooting the end, nor by the trial step of a slow field, nor by rounding to float32."""
    low, high = min(ends), max(ends)
    for velocity in (gaussian, lambda x, t: 1e-4 * x):
        net = Recorded(velocity)
        AdaptiveODE(method).solve(field_of(net), states(3, 2, dtype=dtype), torch.tensor(ends, dtype=F64))
        asked = torch.stack(net.times).double()
        assert {t.dtype for t in net.times} == {dtype}
        assert low <= asked.min()
        assert asked.max() <= high


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("velocity", [0.0, 1.0, -3.0])
def test_constant_field_moves_exactly_its_length(method: str, dtype: torch.dtype, velocity: float) -> None:
    x = states(4, 3, dtype=dtype)
    field = field_of(lambda x, t: torch.full_like(x, velocity))
    for ends, length in (((0.3, 0.7), 0.4), ((0.7, 0.3), -0.4)):
        end = AdaptiveODE(method).solve(field, x, torch.tensor(ends, dtype=F64))
        torch.testing.assert_close(end, x + length * velocity, rtol=0, atol=1e-13 if dtype == F64 else 2.5e-7)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_backward_undoes_forward(method: str, dtype: torch.dtype) -> None:
    x, solver, field = states(5, 2, dtype=dtype), AdaptiveODE(method), field_of(gaussian)
    there = solver.solve(field, x, UNIT)
    back = solver.solve(field, there, UNIT.flip(0))
    assert there.dtype == back.dtype == dtype
    assert (there - x).abs().max() > 1
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_states_keep_their_dtype_and_lose_only_the_networks_rounding(dtype: torch.dtype) -> None:
    """In bfloat16 itself the clock would stand still (1/256 is its resolution near 1) and small steps would vanish."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        assert (x.dtype, t.dtype) == (dtype, torch.float32)
        return gaussian(x, t).to(dtype)

    x = states(4, 2).to(dtype)
    end = dopri5().solve(field_of(net), x, UNIT)
    assert end.dtype == dtype
    resolution = torch.finfo(dtype).eps
    torch.testing.assert_close(end.double(), gaussian_flow(x.double(), 0, 1), rtol=0, atol=4 * resolution + 1e-4)


def test_a_hard_sample_keeps_its_tolerance_among_many_easy_ones() -> None:
    """Under one mean over the batch, 999 resting samples would lend the moving one √1000 times its tolerance."""
    x = torch.zeros(1000, 2, dtype=F64)
    x[0] = 1.0
    field = field_of(lambda x, t: 20 * torch.cos(20 * over(t, x)) * x.ne(0) - 0.0 * x)
    alone = dopri5(rtol=1e-4, atol=1e-4).solve(field, x[:1], UNIT)
    among = dopri5(rtol=1e-4, atol=1e-4).solve(field, x, UNIT)
    torch.testing.assert_close(among[:1], alone, rtol=0, atol=1e-12)
    assert among[1:].abs().max() == 0


@every_method
def test_equal_rows_give_equal_results(method: str) -> None:
    x = states(1, 2).expand(4, 2)
    end = AdaptiveODE(method).solve(field_of(gaussian), x, UNIT)
    assert torch.equal(end, end[:1].expand(4, 2))


@every_method
@pytest.mark.parametrize("falling", [False, True])
def test_reported_states_are_on_the_flow_and_change_nothing(method: str, falling: bool) -> None:
    x, times = states(3, 2), torch.tensor([0.0, 0.2, 0.55, 0.9, 1.0], dtype=F64)
    times = times.flip(0) if falling else times
    solver, reported = AdaptiveODE(method), list[tuple[float, Tensor]]()
    plain, watched = Recorded(gaussian), Recorded(gaussian)
    alone = solver.solve(field_of(plain), x, times[[0, -1]])
    end = solver.solve(field_of(watched), x, times, on_step=lambda t, y: reported.append((t, y)))
    assert torch.equal(end, alone)
    assert len(plain.times) == len(watched.times)
    assert [t for t, _ in reported] == times.tolist()
    assert torch.equal(reported[0][1], x)
    assert torch.equal(reported[-1][1], end)
    for t, y in reported:
        torch.testing.assert_close(y, gaussian_flow(x, times[0].item(), t), rtol=0, atol=5e-3)


def test_a_network_of_another_prediction_is_converted() -> None:
    """E[x1|x_t] of the Gaussian, on an interval where it determines the velocity."""

    def data(x: Tensor, t: Tensor) -> Tensor:
        t = over(t, x)
        return MEAN + t * STD**2 / (t**2 * STD**2 + (1 - t) ** 2) * (x - t * MEAN)

    x, times = states(3, 2), torch.tensor([0.0, 0.9], dtype=F64)
    end = dopri5().solve(field_of(data, predicts="data"), x, times)
    torch.testing.assert_close(end, gaussian_flow(x, 0, 0.9), rtol=0, atol=1e-4)


def test_condition_reaches_the_network() -> None:
    x, shift = torch.zeros(3, 2, dtype=F64), torch.tensor([[0.0], [1.0], [2.0]], dtype=F64)
    end = dopri5().solve(field_of(lambda x, t, cond: cond.expand_as(x)), x, UNIT, cond=shift)
    torch.testing.assert_close(end, shift.expand(3, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("max_nfe", [1, 2, 20])
def test_budget_is_kept_and_named(max_nfe: int) -> None:
    net = Recorded(lambda x, t: 50 * torch.cos(200 * over(t, x)) + 0 * x)
    with pytest.raises(BudgetError, match=rf"after {max_nfe} network calls \(rtol = 1e-09, atol = 1e-05\).*max_nfe"):
        dopri5(rtol=1e-9, max_nfe=max_nfe).solve(field_of(net), states(2, 2), UNIT)
    assert len(net.times) == max_nfe


def test_budget_that_is_just_enough_is_enough() -> None:
    net = Recorded(gaussian)
    dopri5().solve(field_of(net), states(2, 2), UNIT)
    dopri5(max_nfe=len(net.times)).solve(field_of(gaussian), states(2, 2), UNIT)
    with pytest.raises(BudgetError, match=r"got as far as t = 0\.\d+"):
        dopri5(max_nfe=len(net.times) - 1).solve(field_of(gaussian), states(2, 2), UNIT)


UNASSERTED = """
import torch
torch.set_num_threads(1)
from fm_core.errors import BudgetError, DivergenceError
from fm_core.field import Field, Model
from fm_plugins.torchdiffeq.adaptive import AdaptiveODE
assert False, "asserts are off"
times, x = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
fields = {
    "rough": lambda x, t: torch.where(torch.sin(1e6 * x.sum(1, keepdim=True)) > 0, 1e3, -1e3) + 0 * x,
    "nan": lambda x, t: torch.where(t[:, None] > 0.5, torch.nan, 1.0) + 0 * x,
    "jump": lambda x, t: torch.where(t[:, None] < 0.5, 1.0, 1e30) + 0 * x,
}
for name, net in fields.items():
    try:
        AdaptiveODE("dopri5", max_nfe=2000).solve(Field(Model(net, predicts="velocity"), None), x, times)
    except (BudgetError, DivergenceError) as error:
        print(name, type(error).__name__)
"""


def test_nothing_runs_for_ever_without_asserts() -> None:
    """torchdiffeq's own guards vanish under `python -O`."""
    command = [sys.executable, "-O", "-c", UNASSERTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["rough BudgetError", "nan DivergenceError", "jump DivergenceError", ""]


@every_method
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_field_that_is_not_finite_is_named_with_time_and_samples(method: str, value: float) -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        bad = over(t > 0.5, x) & torch.tensor([False, True, True])[:, None]
        return torch.where(bad, value, gaussian(x, t))

    with pytest.raises(
        DivergenceError, match=r"velocity is not finite at t = 0\.[5-9]\d* for 2 of 3 samples \(the first is 1\)"
    ):
        AdaptiveODE(method).solve(field_of(net), states(3, 2), UNIT)


def test_finite_field_whose_sum_overflows_is_no_divergence() -> None:
    field = field_of(lambda x, t: torch.full_like(x, 3e38))
    end = dopri5().solve(field, torch.zeros(8, 2), torch.tensor([0.0, 0.1], dtype=F64))
    assert end.isfinite().all()


def test_state_that_is_not_finite_at_the_start_is_named() -> None:
    x = states(3, 2)
    x[2, 0] = math.nan
    with pytest.raises(DivergenceError, match=r"state is not finite at t = 0 for 1 of 3 samples \(the first is 2\)"):
        dopri5().solve(field_of(gaussian), x, UNIT)


def test_state_that_overflows_is_a_divergence() -> None:
    """dx/dt = x² from 2 is infinite at t = 1/2."""
    with pytest.raises(DivergenceError, match=r"t = 0\.5"):
        dopri5(max_nfe=100_000).solve(field_of(lambda x, t: x.square()), torch.full((2, 2), 2.0, dtype=F64), UNIT)


def test_step_size_that_falls_to_zero_is_a_divergence() -> None:
    field = field_of(lambda x, t: torch.where(over(t, x) < 0.5, 1.0, 1e30) + 0 * x)
    with pytest.raises(DivergenceError, match=r"step size fell to zero at t = 0\.5.*rtol = 1e-05"):
        dopri5().solve(field, torch.zeros(1, 2, dtype=F64), UNIT)


def test_an_assertion_of_the_network_is_its_own() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine"):
        dopri5().solve(field_of(net), states(2, 2), UNIT)


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [0.0, 0.5, 0.4], [0.0, 1.5], [0.0, math.nan]], ids=str)
def test_times_that_are_no_grid_are_refused(times: list[float]) -> None:
    with pytest.raises(TimeError):
        dopri5().solve(field_of(gaussian), states(2, 2), torch.tensor(times, dtype=F64))


@pytest.mark.parametrize(
    "options",
    [{"method": "dopri6"}, {"rtol": -1.0}, {"atol": 0.0}, {"rtol": math.nan}, {"atol": math.inf}, {"max_nfe": 0}],
    ids=str,
)
def test_options_without_meaning_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        AdaptiveODE(**options)


def test_grad_mode_is_the_callers() -> None:
    x = states(2, 2)
    for adjoint in (False, True):
        solver, field = dopri5(adjoint=adjoint), field_of(Small())
        assert solver.solve(field, x, UNIT).requires_grad
        with torch.no_grad():
            assert not solver.solve(field, x, UNIT).requires_grad
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled()


def test_without_gradients_adjoint_changes_nothing() -> None:
    net = Small()
    plain, adjoint = Recorded(net), Recorded(net)
    with torch.no_grad():
        first = dopri5().solve(field_of(plain), states(2, 2), UNIT)
        assert torch.equal(dopri5(adjoint=True).solve(field_of(adjoint), states(2, 2), UNIT), first)
    assert len(plain.times) == len(adjoint.times)


def test_gradient_through_the_steps_is_the_flows() -> None:
    """d x(1)/d x(0) of the Gaussian flow is STD; also of a sample at 0, where a norm has no gradient."""
    x = states(3, 2)
    x[1] = 0
    x.requires_grad_(True)
    dopri5(rtol=1e-8, atol=1e-8).solve(field_of(gaussian), x, UNIT).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(x.grad, torch.full_like(x, STD), rtol=0, atol=1e-6)


def gradients(
    solver: AdaptiveODE, net: Small, times: Tensor, cond: Tensor | None, *, report: bool = False
) -> list[Tensor]:
    """Of a loss at the last time by x, the parameters and a leaf behind the condition."""
    x = states(4, 2).requires_grad_(True)
    leaves = [x, *net.parameters()]
    on_step = (lambda t, y: None) if report else None
    passed = None if cond is None else cond.exp()
    end = solver.solve(field_of(net), x, times, cond=passed, on_step=on_step)
    loss = (end * torch.arange(8, dtype=F64).reshape(4, 2)).sum() + end.square().sum()
    return list(torch.autograd.grad(loss, leaves if cond is None else [*leaves, cond]))


@every_method
@pytest.mark.parametrize("falling", [False, True])
def test_adjoint_gradients_are_those_through_the_solver(method: str, falling: bool) -> None:
    tolerance = 1e-5 if METHODS[method][0] < 5 else 1e-9
    solver = AdaptiveODE(method, tolerance, tolerance)
    times = UNIT.flip(0) if falling else UNIT
    net = Small()
    direct = gradients(solver, net, times, None)
    adjoint = gradients(evolve(solver, adjoint=True), net, times, None)
    assert min(g.abs().max().item() for g in direct) > 0.1
    allowed = 1e-5 if tolerance == 1e-9 else 1e-2
    torch.testing.assert_close(adjoint, direct, rtol=allowed, atol=allowed)


@pytest.mark.parametrize("falling", [False, True])
def test_adjoint_passes_through_reported_times(falling: bool) -> None:
    net, times = Small(), torch.tensor([0.1, 0.3, 0.8], dtype=F64)
    times = times.flip(0) if falling else times
    solver = dopri5(rtol=1e-9, atol=1e-9)
    direct = gradients(solver, net, times, None)
    torch.testing.assert_close(
        gradients(evolve(solver, adjoint=True), net, times, None, report=True), direct, rtol=0, atol=1e-5
    )


def test_adjoint_reaches_what_no_module_of_the_field_owns() -> None:
    """A condition computed from a leaf elsewhere (an encoder): torchdiffeq alone gives it no gradient, silently."""
    net, cond = Small(), states(4, 2, seed=3).requires_grad_(True)
    solver = dopri5(rtol=1e-9, atol=1e-9)
    direct = gradients(solver, net, UNIT, cond)
    assert direct[-1].abs().max() > 0.1
    torch.testing.assert_close(gradients(evolve(solver, adjoint=True), net, UNIT, cond), direct, rtol=0, atol=1e-5)


def test_adjoint_reaches_parameters_used_at_other_times_only() -> None:
    """An expert that works after t = ½ is in no graph at t = 0."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early = nn.Parameter(torch.ones((), dtype=F64))
            self.late = nn.Parameter(torch.ones((), dtype=F64))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            weight = self.early * 2 * t[0] if t[0] < 0.5 else self.late  # continuous at the hand-over
            return weight + 0 * x

    net = Experts()
    end = dopri5(adjoint=True, rtol=1e-8, atol=1e-8).solve(field_of(net), torch.zeros(1, 1, dtype=F64), UNIT)
    early, late = torch.autograd.grad(end.sum(), [net.early, net.late])
    assert early.item() == pytest.approx(0.25, abs=1e-4)
    assert late.item() == pytest.approx(0.5, abs=1e-4)


def test_adjoint_finds_the_network_inside_wrappers() -> None:
    """The pipeline counts calls in a wrapper around the model."""

    class Wrapper:
        predicts = (Prediction.VELOCITY,)

        def __init__(self, model: Model) -> None:
            self.model = model

        def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Any:
            return self.model(x_t, t, cond)

    net = Small()
    field = Field(Wrapper(Model(net, predicts="velocity")), PATH)
    dopri5(adjoint=True).solve(field, states(2, 2), UNIT).sum().backward()  # type: ignore[no-untyped-call]
    assert net.first.grad is not None
    assert net.first.grad.abs().max() > 0


def test_adjoint_without_a_module_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.nn\.Module.*adjoint=False"):
        dopri5(adjoint=True).solve(field_of(gaussian), states(2, 2), UNIT)


@pytest.mark.parametrize("falling", [False, True])
def test_adjoint_pass_ends_where_the_solve_began_and_keeps_the_budget(falling: bool) -> None:
    class Noting(Small):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            self.times.append(t[0].item())
            return super().forward(x, t)

    net, times = Noting(), torch.tensor([0.7, 0.3] if falling else [0.3, 0.7], dtype=F64)
    end = dopri5(adjoint=True).solve(field_of(net), states(2, 2), times)
    forward = len(net.times)
    (1e6 * end.square()).sum().backward()  # type: ignore[no-untyped-call]
    backward = net.times[forward:]
    assert len(backward) > forward
    # Strictly inside at the far end, as in the forward pass: no step went beyond it.
    assert (0.3 <= min(backward) < max(backward) < 0.7) if falling else (0.3 < min(backward) < max(backward) <= 0.7)
    end = dopri5(adjoint=True, max_nfe=forward).solve(field_of(net), states(2, 2), times)
    with pytest.raises(BudgetError, match="adjoint pass"):
        (1e6 * end.square()).sum().backward()  # type: ignore[no-untyped-call]


def test_one_solver_serves_threads_at_once() -> None:
    solver = dopri5()
    xs = [states(3, 2, seed=seed) for seed in range(8)]
    alone = [solver.solve(field_of(gaussian), x, UNIT) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: solver.solve(field_of(gaussian), x, UNIT), xs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together))
