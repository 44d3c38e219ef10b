"""The table and its executor: measured orders, folded conversions, nothing evaluated, told or kept beyond the table."""

from __future__ import annotations

import functools
import gc
import itertools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given, settings, strategies as st
from torch import Tensor

from fm_core import BudgetError, Field, GaussianPath, Model, Plan, Prediction, Row, ShapeError, TableSolver, TimeError
from fm_core.executing import execute
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.randomness import BlockGenerator
from fm_core.testing import GaussianMixture
from fm_plugins.cfm.linear import linear
from fm_plugins.runge_kutta.solver import euler, heun, midpoint, rk4, runge_kutta

DATA = GaussianMixture([[-1.0, 0.3], [0.8, -0.5]], [0.6, 0.8], [0.4, 0.6])


def ddim() -> TableSolver:
    """x_s = (σ_s/σ_t)·x_t + (α_s − α_t·σ_s/σ_t)·data: one row a step, with weights that are not those of a velocity."""

    def plan(path: Any, times: Tensor) -> Plan:
        alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
        rows = [
            Row(t, ((s, sigma[s + 1] / sigma[s]),), ((s, alpha[s + 1] - alpha[s] * sigma[s + 1] / sigma[s]),))
            for s, t in enumerate(times.tolist()[1:])
        ]
        return Plan(Prediction.DATA, float(times[0]), rows)

    return TableSolver(plan, space="data", order=1)


def adams_bashforth() -> TableSolver:
    """Two-step Adams–Bashforth on the velocity: a history of predictions; its first step is Euler's."""

    def plan(path: Any, times: Tensor) -> Plan:
        rows, grid = [], times.tolist()
        for s, (t, end) in enumerate(itertools.pairwise(grid)):
            h = end - t
            ratio = h / (t - grid[s - 1]) if s else 0.0
            terms = ((s, h * (1 + ratio / 2)), (s - 1, -h * ratio / 2)) if s else ((0, h),)
            rows.append(Row(end, ((s, 1.0),), terms))
        return Plan(Prediction.VELOCITY, grid[0], rows)

    return TableSolver(plan, space="velocity", order=2)


SOLVERS: dict[str, Callable[[], TableSolver]] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "kutta3": functools.partial(runge_kutta, [[], [1 / 2], [-1, 2]], [1 / 6, 2 / 3, 1 / 6]),
    "rk4": rk4,
    "rk38": functools.partial(runge_kutta, [[], [1 / 3], [-1 / 3, 1], [1, -1, 1]], [1 / 8, 3 / 8, 3 / 8, 1 / 8]),
    "butcher5": functools.partial(
        runge_kutta,
        [[], [1 / 4], [1 / 8, 1 / 8], [0, -1 / 2, 1], [3 / 16, 0, 0, 9 / 16], [-3 / 7, 2 / 7, 12 / 7, -12 / 7, 8 / 7]],
        [7 / 90, 0, 32 / 90, 12 / 90, 32 / 90, 7 / 90],
    ),
    "ddim": ddim,
    "adams_bashforth": adams_bashforth,
}
every_solver = pytest.mark.parametrize("name", SOLVERS)
on_velocity = pytest.mark.parametrize("name", [name for name in SOLVERS if name != "ddim"])


@pytest.fixture(scope="session", params=["linear", "cosine", "vp"])
def smooth(request: pytest.FixtureRequest, paths: dict[str, GaussianPath]) -> GaussianPath:
    """Paths on which orders are measured."""
    return paths[request.param]


def grid(steps: int, start: float = 0.2, end: float = 0.8) -> Tensor:
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)


def states(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def field_of(velocity: Callable[..., Any], predicts: str = "velocity", path: Any = None) -> Field:
    return Field(Model(velocity, predicts), linear() if path is None else path)


# Accuracy


@functools.cache
def reference(path: GaussianPath) -> Tensor:
    return SOLVERS["butcher5"]().solve(DATA.field(path), states(32, 2), grid(400))


@every_solver
def test_solver_has_its_declared_order(smooth: GaussianPath, name: str) -> None:
    """What halving the step makes of the error, on a mixture, whose field is not linear in x."""
    solver = SOLVERS[name]()
    coarse, fine = (12, 24) if solver.order > 2 else (48, 96)
    errors = [
        (solver.solve(DATA.field(smooth), states(32, 2), grid(n)) - reference(smooth)).square().mean().sqrt()
        for n in (coarse, fine)
    ]
    assert errors[1] > 1e-13
    assert float((errors[0] / errors[1]).log2()) == pytest.approx(solver.order, abs=0.35)


@every_solver
def test_solver_converges_to_the_exact_flow_of_a_gaussian(smooth: GaussianPath, name: str) -> None:
    """One Gaussian N(m, s²) flows affinely: x_t − α·m is carried by the ratio of the standard deviations."""
    data, x, solver = GaussianMixture([[1.0, -2.0]], 0.5), states(8, 2), SOLVERS[name]()
    times = grid(64)
    ends = times[[0, -1]]
    alpha, sigma = smooth.alpha(ends)[:, None], smooth.sigma(ends)[:, None]
    std = (alpha.square() * 0.25 + sigma.square()).sqrt()
    exact = alpha[1] * data.means + std[1] / std[0] * (x - alpha[0] * data.means)
    error = (solver.solve(data.field(smooth), x, times) - exact).abs().max()
    assert error < 3 * (0.6 / 64 * 4) ** solver.order


@on_velocity
def test_backward_undoes_forward_to_the_solvers_order(smooth: GaussianPath, name: str) -> None:
    """Inverting is solving on the falling grid; what remains falls with the step at least as fast as the error."""
    solver, field, x = SOLVERS[name](), DATA.field(smooth), states(16, 2)
    coarse, fine = (10, 20) if solver.order > 2 else (40, 80)
    left = []
    for n in (coarse, fine):
        end = solver.solve(field, x, grid(n))
        left.append((solver.solve(field, end, grid(n).flip(0)) - x).square().mean().sqrt())
    assert left[1] < 0.02
    assert float((left[0] / left[1]).log2()) > solver.order - 0.35


@on_velocity
@given(ends=st.tuples(st.integers(0, 64), st.integers(0, 64)).filter(lambda e: e[0] != e[1]), steps=st.integers(1, 6))
@settings(max_examples=10)
def test_a_constant_field_moves_exactly_the_interval(name: str, ends: tuple[int, int], steps: int) -> None:
    """A sub-interval, rising or falling; a solver that ignored it would move a whole unit, or the wrong way."""
    start, end = (e / 64 for e in ends)
    u = torch.tensor([3.0, -1.0], dtype=torch.float64)
    x = states(3, 2)
    times = torch.linspace(start, end, steps + 1, dtype=torch.float64)
    moved = SOLVERS[name]().solve(field_of(lambda x, t: u.expand_as(x)), x, times) - x
    torch.testing.assert_close(moved, ((end - start) * u).expand(3, 2), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in {"ddim", "adams_bashforth"}])
def test_one_step_integrates_polynomials_in_t_below_its_order(name: str) -> None:
    """A tableau's b and c are a quadrature rule of degree order − 1, and not of every higher one."""
    solver, x = SOLVERS[name](), torch.zeros(1, 1, dtype=torch.float64)
    times = torch.tensor([0.25, 0.75], dtype=torch.float64)

    def error(degree: int) -> float:
        exact = (0.75 ** (degree + 1) - 0.25 ** (degree + 1)) / (degree + 1)
        return abs(float(solver.solve(field_of(lambda x, t: t[:, None] ** degree + 0 * x), x, times)) - exact)

    assert all(error(degree) < 1e-13 for degree in range(solver.order))
    assert max(error(degree) for degree in range(solver.order, solver.order + 3)) > 1e-6


# Conversions folded into the table


@every_solver
@pytest.mark.parametrize("native", sorted(GAUSSIAN_KINDS))
def test_folded_conversions_give_the_same_samples(smooth: GaussianPath, name: str, native: Prediction) -> None:
    """Rebased tables ask the network for what it knows; converting each prediction by itself must agree to 1e-12."""
    solver, x, times = SOLVERS[name](), states(5, 2), grid(6)
    net = lambda x, t: (x + t[:, None]).sin()  # noqa: E731 - not an exact field: the algebra holds for any network
    field = field_of(net, native, smooth)
    plan = solver.plan(smooth, times)
    by_field = execute(plan, field, x)
    rebased = solver.prepare(field, times)
    assert rebased.space == native
    assert rebased.nfe == plan.nfe
    torch.testing.assert_close(execute(rebased, field, x), by_field, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solver.solve(field, x, times), by_field, rtol=1e-12, atol=1e-12)


def test_rebasing_adds_up_what_a_row_names_twice() -> None:
    """((0, ½), (0, ½)) is a valid way to say ((0, 1),)."""
    rows = (
        Row(0.5, ((0, 0.5), (0, 0.5)), ((0, 0.25), (0, 0.25))),
        Row(0.75, ((1, 1.0),), ((0, 0.1), (1, 0.1), (0, 0.1))),
    )
    plan, field = Plan("velocity", 0.25, rows), field_of(lambda x, t: x.sin(), "noise")
    torch.testing.assert_close(
        execute(plan.rebase(field.path, field.native), field, states(2, 2)),
        execute(plan, field, states(2, 2)),
        rtol=1e-13,
        atol=1e-13,
    )


def test_rebasing_where_nothing_converts_says_where_and_what_to_do() -> None:
    with pytest.raises(TimeError, match=r"data prediction does not determine the velocity at t = 1,.*path.span"):
        heun().prepare(field_of(lambda x, t: x, "data"), grid(3, 0.5, 1.0))
    assert (
        euler().prepare(field_of(lambda x, t: x, "data"), grid(3, 0.5, 1.0)).nfe == 3
    )  # Euler does not ask at the end


@pytest.mark.parametrize("native", sorted(GAUSSIAN_KINDS))
def test_a_denoised_plan_ends_with_the_data_prediction(smooth: GaussianPath, native: Prediction) -> None:
    """The last state, at 0.8, is replaced by E[x1|x_t] there; it costs one call and ends at t = 1."""
    field, x, times = DATA.field(smooth, native), states(5, 2), grid(4)
    plan = heun().prepare(field, times, final=True)
    before = heun().solve(field, x, times)
    expected = DATA.predict(smooth, Prediction.DATA, before, 0.8)
    torch.testing.assert_close(execute(plan, field, x), expected, rtol=1e-9, atol=1e-9)
    assert plan.nfe == 9
    assert plan.times == (*times.tolist(), 1.0)


# What the network sees


class Spy:
    """Notes the times, and every state, at which the network is asked."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.times: list[Tensor] = []
        self.states: list[Tensor] = []
        self.dtype = dtype

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.times.append(t)
        self.states.append(x)
        return x.sin().to(self.dtype or x.dtype)


@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_network_sees_the_tables_times_one_for_each_sample(name: str, dtype: torch.dtype) -> None:
    spy, solver = Spy(), SOLVERS[name]()
    times = torch.tensor([0.0, 1 / 3, 0.5, 0.999], dtype=torch.float64)
    plan = solver.plan(linear(), times)
    solver.solve(field_of(spy, solver.space), states(3, 3, dtype=dtype), times)
    assert len(spy.times) == plan.nfe
    for j, t in zip(plan.evaluated, spy.times, strict=True):
        assert (t.shape, t.dtype) == ((3,), dtype)
        assert torch.equal(t, torch.full((3,), plan.state_times[j], dtype=dtype))
        assert 0 <= t[0] <= torch.tensor(0.999, dtype=dtype)


def test_bfloat16_states_are_told_float32_times() -> None:
    spy = Spy()
    x = euler().solve(
        field_of(spy), torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor([0.0, 0.999, 1.0], dtype=torch.float64)
    )
    assert x.dtype == torch.bfloat16
    assert spy.times[1].dtype == torch.float32
    assert float(spy.times[1][0]) == pytest.approx(0.999, abs=1e-7)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any table: rows that use any earlier states and predictions, some of them nothing else uses."""
    weights = st.floats(-1.0, 1.0).filter(lambda w: abs(w) > 1e-3)
    rows = []
    for s in range(draw(st.integers(1, 7))):
        terms = st.lists(st.tuples(st.integers(0, s), weights), max_size=4).map(tuple)
        kept = draw(terms), draw(terms)
        rows.append(Row((s + 1) / 8, *(kept if any(kept) else (((s, 1.0),), ())), accepted=draw(st.booleans())))
    return Plan("velocity", 0.0, rows)


@given(plan=plans())
@settings(max_examples=60)
def test_the_executor_computes_the_rows_and_evaluates_what_they_use_once(plan: Plan) -> None:
    """Against the sum written out, for any table."""
    spy, seen = Spy(), []
    x = states(2, 3)
    result = execute(plan, field_of(spy), x, on_step=lambda t, x: seen.append((t, x)))
    y, accepted = [x], [(0.0, x)]
    for row in plan.rows:
        y.append(
            sum((a * y[k] for k, a in row.states), torch.zeros_like(x))
            + sum(b * y[j].sin() for j, b in row.predictions)
        )
        accepted += [(row.t, y[-1])] if row.accepted else []
    torch.testing.assert_close(result, y[-1], rtol=1e-9, atol=1e-9)
    used = {j for row in plan.rows for j, _ in row.predictions}
    assert len(spy.times) == plan.nfe == len(used)
    assert {round(float(t[0]) * 8) for t in spy.times} == used
    assert [t for t, _ in seen] == [t for t, _ in accepted] == list(plan.times)
    for (_, got), (_, expected) in zip(seen, accepted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_until_is_the_next_accepted_time() -> None:
    """Guidances and flow maps are told where the step goes, not where the stage goes."""

    @frozen
    class Listener:
        heard: list[tuple[float, list[float]]]
        needs = frozenset()

        def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
            assert until is not None
            self.heard.append((float(t[0]), until.tolist()))
            return field.predict(x_t, t, cond, field.native)

    listener = Listener([])
    field = Field(Model(lambda x, t: x, "velocity"), linear(), (listener,))
    rk4().solve(field, states(2, 2), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    stages = [(0.0, 0.5), (0.25, 0.5), (0.25, 0.5), (0.5, 0.5), (0.5, 1.0), (0.75, 1.0), (0.75, 1.0), (1.0, 1.0)]
    assert listener.heard == [(t, [until, until]) for t, until in stages]


def test_steps_are_reported_at_the_start_and_at_grid_points_only() -> None:
    seen: list[tuple[float, Tensor]] = []
    x, times = states(2, 2), [0.0, 0.3, 1.0]
    end = rk4().solve(
        field_of(lambda x, t: -x), x, torch.tensor(times, dtype=torch.float64), on_step=lambda t, x: seen.append((t, x))
    )
    assert [t for t, _ in seen] == times
    assert torch.equal(seen[0][1], x)
    assert torch.equal(seen[-1][1], end)


def test_conditions_reach_the_network() -> None:
    cond = torch.tensor([1.0, 2.0], dtype=torch.float64)
    field = field_of(lambda x, t, c: c[:, None].expand_as(x))
    moved = heun().solve(field, torch.zeros(2, 3, dtype=torch.float64), grid(2, 0.0, 1.0), cond=cond)
    torch.testing.assert_close(moved, cond[:, None].expand(2, 3))


# What the executor keeps


def live(shape: tuple[int, ...]) -> int:
    """Distinct tensors of a shape that nothing else has."""
    return len({o.data_ptr() for o in gc.get_objects() if type(o) is Tensor and o.shape == shape})


def window(plan: Plan, looked: set[int]) -> dict[int, int]:
    """How many states and predictions the table itself still needs when the network is asked for p_j, for some j."""
    first: dict[int, int] = {}
    last_state: dict[int, int] = {}
    last_prediction: dict[int, int] = {}
    for s, row in enumerate(plan.rows):
        for i, _ in row.predictions:
            first.setdefault(i, s)
            last_prediction[i] = s
        last_state |= dict.fromkeys([k for k, _ in row.states] + [i for i, _ in row.predictions if first[i] == s], s)
    return {
        j: sum(k <= first[j] <= last for k, last in last_state.items())
        + sum(i < j and first[i] <= first[j] <= last for i, last in last_prediction.items())
        for j in looked
    }


@every_solver
def test_no_more_states_and_predictions_are_held_than_the_window_needs(name: str) -> None:
    """At N = 1000 steps; the history of a run that kept everything would grow with the step."""
    shape, counts = (3, 17, 29), {}
    plan = SOLVERS[name]().plan(linear(), grid(1000, 0.0, 0.999))
    looked = {plan.evaluated[i] for i in (1, 500, -2, -1)}
    evaluated = iter(plan.evaluated)

    def net(x: Tensor, t: Tensor) -> Tensor:
        j = next(evaluated)
        if j in looked:
            counts[j] = live(shape)
        return x * -0.1

    execute(plan, field_of(net, plan.space), torch.ones(shape))
    assert counts == window(plan, looked)


@pytest.mark.parametrize("net_dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_state_keeps_its_dtype_whatever_the_network_returns(dtype: torch.dtype, net_dtype: torch.dtype) -> None:
    spy, x = Spy(net_dtype), states(2, 2, dtype=dtype)
    end = heun().solve(field_of(spy), x, grid(4))
    assert end.dtype == dtype
    assert {state.dtype for state in spy.states} == {dtype}
    assert not torch.equal(end, x)


def test_the_first_state_is_left_as_it_was() -> None:
    for make in SOLVERS.values():
        x = states(2, 2)
        solver = make()
        solver.solve(field_of(lambda x, t: x, solver.space), x, grid(3))
        assert torch.equal(x, states(2, 2))


def test_gradients_flow_through_the_states_and_the_weights_of_the_network() -> None:
    """d/dx of Euler's (1 + h·w)^N·x and d/dw, exactly."""
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = states(2, 2).requires_grad_()
    end = euler().solve(field_of(lambda x, t: w * x), x, grid(10, 0.0, 1.0))
    by_x, by_w = torch.autograd.grad(end.sum(), (x, w))
    torch.testing.assert_close(by_x, torch.full_like(x, float((1 + 0.1 * w.detach()) ** 10)))
    torch.testing.assert_close(by_w, (x.detach() * 10 * 0.1 * (1 + 0.1 * w.detach()) ** 9).sum())


@every_solver
def test_samples_do_not_depend_on_the_rest_of_the_batch(name: str) -> None:
    solver, x = SOLVERS[name](), states(6, 1, 3)
    data = GaussianMixture(states(2, 1, 3), 0.5)
    field = data.field(linear(), "noise")
    together = solver.solve(field, x, grid(5))
    alone = torch.cat([solver.solve(field, x[i : i + 1], grid(5)) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_one_solver_serves_two_threads() -> None:
    """Plans are values: nothing of a run is left in the solver."""
    solver, results = heun(), {}
    fields = {name: DATA.field(path, "noise") for name, path in (("a", linear()), ("b", linear(0.1)))}
    steps = {"a": 40, "b": 70}
    barrier = threading.Barrier(2)

    def run(name: str) -> None:
        barrier.wait()
        results[name] = [solver.solve(fields[name], states(4, 2), grid(steps[name])) for _ in range(3)]

    threads = [threading.Thread(target=run, args=(name,)) for name in fields]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, runs in results.items():
        expected = solver.solve(fields[name], states(4, 2), grid(steps[name]))
        assert all(torch.equal(got, expected) for got in runs)


# Noise


def noisy(steps: int = 4) -> Plan:
    return Plan("velocity", 0.0, tuple(Row((s + 1) / steps, ((s, 1.0),), (), noise=0.5) for s in range(steps)))


@pytest.mark.usefixtures("global_rng_untouched")
def test_noise_is_standard_normal_from_the_generator_alone() -> None:
    """Four rows of noise 0.5 add the variance 1."""
    field, x = field_of(lambda x, t: x), torch.zeros(20_000, 2)
    a, b = (execute(noisy(), field, x, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert float(a.std()) == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(a[:4], execute(noisy(), field, x[:4]))


def test_block_noise_does_not_depend_on_the_chunk() -> None:
    field = field_of(lambda x, t: x)
    whole = execute(noisy(), field, torch.zeros(150, 2), generator=BlockGenerator(0, 0, 150))
    part = execute(noisy(), field, torch.zeros(40, 2), generator=BlockGenerator(0, 50, 90))
    assert torch.equal(whole[50:90], part)


def test_a_table_without_noise_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    rk4().solve(field_of(lambda x, t: x), states(2, 2), grid(3), generator=generator)
    assert torch.equal(before, generator.get_state())
    assert noisy().stochastic
    assert not rk4().plan(linear(), grid(3)).stochastic


# Tables and solvers that are wrong


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ((), "at least one row"),
        ((Row(0.5, (), ()),), r"row 0 of the plan \(to t = 0.5\) uses no state"),
        ((Row(0.5, ((1, 1.0),), ()),), "row 0 of the plan uses index 1"),
        ((Row(0.5, ((0, 1.0),), ((-1, 1.0),)),), "uses index -1"),
        ((Row(0.5, ((0, 1.0),), ()), Row(1.0, ((0, 1.0),), ((2, 0.5),))), "row 1 of the plan uses index 2"),
        ((Row(0.5, ((0, math.inf),), ()),), "weight inf for index 0"),
        ((Row(0.5, ((0, 1.0),), ((0, math.nan),)),), "weight nan"),
        ((Row(0.5, ((0, 1.0),), (), noise=math.nan),), "noise nan"),
        ((Row(math.inf, ((0, 1.0),), ()),), "t inf"),
    ],
)
def test_tables_that_cannot_be_run_are_refused(rows: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Plan("velocity", 0.0, rows)


def test_a_plan_in_another_space_than_declared_is_refused() -> None:
    wrong = evolve(euler(), space="data")
    with pytest.raises(ValueError, match="declares space 'data' but its plan is in 'velocity'"):
        wrong.solve(field_of(lambda x, t: x), states(1, 1), grid(2))


def test_a_stochastic_table_does_not_invert() -> None:
    solver = TableSolver(lambda path, times: noisy(), space="velocity", order=1, stochastic=True)
    with pytest.raises(TimeError, match=r"cannot invert.*falls from 0.8 to 0.2"):
        solver.solve(field_of(lambda x, t: x), states(1, 1), grid(4).flip(0))


def test_a_grid_that_is_not_monotone_is_refused_before_any_call() -> None:
    spy = Spy()
    with pytest.raises(TimeError, match="strictly increasing"):
        heun().solve(field_of(spy), states(1, 1), torch.tensor([0.0, 0.5, 0.5]))
    assert not spy.times


def test_networks_of_a_wrong_shape_fail_at_the_first_call() -> None:
    with pytest.raises(ShapeError, match="the network must return"):
        heun().solve(field_of(lambda x, t: x[:1]), states(2, 2), grid(2))


# Budgets


def budgets() -> Iterator[tuple[str, int, bool, int]]:
    for nfe in (1, 2, 7, 20):
        for final in (False, True):
            yield from ((name, nfe, final, (nfe - final) // SOLVERS[name]().evals_per_step) for name in SOLVERS)


@pytest.mark.parametrize(("name", "nfe", "final", "steps"), list(budgets()))
def test_a_budget_buys_the_most_steps_it_can(name: str, nfe: int, final: bool, steps: int) -> None:
    solver, field = SOLVERS[name](), DATA.field(linear(), "v")

    def times(n: int) -> Tensor:
        return grid(n)

    if steps == 0:
        with pytest.raises(BudgetError, match=f"got nfe={nfe}; give at least nfe={solver.evals_per_step + final}"):
            solver.steps_for(field, nfe, times, final=final)
        return
    tried: list[int] = []
    assert solver.steps_for(field, nfe, lambda n: tried.append(n) or times(n), final=final) == steps
    assert len(tried) <= 4, "a plan of many steps takes long to make"
    calls = 0

    def net(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x

    plan = solver.prepare(field, times(steps), final=final)
    execute(plan, field_of(net, "v"), states(1, 1))
    assert calls == plan.nfe <= nfe
