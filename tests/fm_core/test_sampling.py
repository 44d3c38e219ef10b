"""Sampling: budgets, seeds, shapes, what was spent, and what is said when it fails."""

from __future__ import annotations

import gc
import threading
from itertools import pairwise

import pytest
import torch
from attrs import frozen

import fm_core as fm
from fm_core.testing import GaussianMixture

MIXTURE = GaussianMixture([[2.0, -1.0], [-1.0, 0.5]], [0.5, 0.8])


def _pipe(predicts="velocity", solver="heun", **parts):
    path = parts.pop("path", None) or fm.build("path", "linear")
    return fm.compose(path=path, model=MIXTURE.model(path, predicts), solver=solver, **parts)


def _ancestral(path, times):
    """y_s = y_t + h·p + ½√h·z: no method of anyone's, but noise in every row."""
    grid = times.tolist()
    rows = [
        fm.Row(s, ((i, 1.0),), ((i, s - t),), noise=0.5 * (s - t) ** 0.5) for i, (t, s) in enumerate(pairwise(grid))
    ]
    return fm.Plan("velocity", grid[0], rows)


NOISY = fm.TableSolver(_ancestral, space="velocity", order=1, stochastic=True)


@pytest.mark.parametrize("solver", ["heun", NOISY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_depends_on_the_seed_and_its_index_alone(solver, dtype):
    """Not on how many are drawn beside it, nor on the chunks: rounding of the network's own sums apart."""
    pipe = _pipe(solver=solver)
    whole = pipe.sample((150, 2), steps=7, seed=5, dtype=dtype).x
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    for n in (1, 63, 64, 65):
        torch.testing.assert_close(pipe.sample((n, 2), steps=7, seed=5, dtype=dtype).x, whole[:n], **tolerance)
    for chunk in (1, 50, 64, 149):
        chunked = pipe.sample((150, 2), steps=7, seed=5, dtype=dtype, chunk=chunk).x
        torch.testing.assert_close(chunked, whole, **tolerance)
    assert not torch.equal(pipe.sample((150, 2), steps=7, seed=6, dtype=dtype).x, whole)


@pytest.mark.usefixtures("global_rng_untouched")
def test_equal_seeds_give_equal_samples_whatever_the_global_seed():
    pipe = _pipe(solver=NOISY)
    first = pipe.sample((10, 2), steps=4, seed=1)
    generator = torch.Generator().manual_seed(9)
    drawn = pipe.sample((10, 2), steps=4, generator=generator)
    assert torch.equal(first.x, pipe.sample((10, 2), steps=4, seed=1).x)
    assert torch.equal(drawn.x, pipe.sample((10, 2), steps=4, seed=drawn.seed).x)
    unseeded = pipe.sample((10, 2), steps=4)
    assert torch.equal(unseeded.x, pipe.sample((10, 2), steps=4, seed=unseeded.seed).x)


@pytest.mark.parametrize(("solver", "cost"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_nfe_is_the_most_that_fits_and_what_was_spent(solver, cost):
    calls = []
    model = MIXTURE.model(fm.build("path", "linear"))
    counting = fm.Model(lambda x, t: calls.append(t) or model(x, t), predicts="velocity")
    pipe = fm.compose(path="linear", model=counting, solver=solver)
    for budget in (cost, 9, 16):
        calls.clear()
        out = pipe.sample((3, 2), nfe=budget, seed=0)
        assert out.nfe == len(calls) == budget // cost * cost


def test_adaptive_solvers_say_what_they_spent_and_obey_their_tolerances():
    pipe = _pipe(solver="dopri5")
    loose, tight = (pipe.sample((20, 2), rtol=tol, atol=tol, seed=0, dtype=torch.float64) for tol in (1e-3, 1e-8))
    exact = _pipe(solver="rk4").sample((20, 2), steps=800, seed=0, dtype=torch.float64).x
    assert loose.nfe < tight.nfe
    assert (tight.x - exact).abs().max() < 1e-6 < (loose.x - exact).abs().max()


def test_a_network_in_any_prediction_gives_the_same_samples():
    """The span keeps away from where a conversion does not exist, and the data prediction closes the run."""
    samples = {
        kind: _pipe(kind, "rk4").sample((200, 2), steps=60, seed=0, dtype=torch.float64)
        for kind in ("velocity", "v", "data", "noise", "score")
    }
    for kind, out in samples.items():
        assert (out.x - samples["velocity"].x).abs().max() < 2e-2, kind
        closed = kind in {"data", "score"}
        assert out.nfe == 240 + closed, kind
        assert float(out.times[-1]) == 1.0
    short = _pipe("data", "rk4").sample((5, 2), steps=60, seed=0, final="none")
    assert short.nfe == 240
    assert float(short.times[-1]) == pytest.approx(0.999)


def test_a_solver_that_is_no_table_is_closed_by_the_data_prediction_too():
    @frozen
    class ByHand:
        needs = frozenset({fm.Prediction.VELOCITY})
        order, evals_per_step = 1, 1

        def solve(self, field, x, times, *, cond=None, generator=None, on_step=None):
            for t, s in pairwise(times):
                x = x + (s - t) * field.predict(x, t, cond, "velocity")
            return x

    euler, by_hand = (
        _pipe("data", solver).sample((6, 2), nfe=11, seed=0, dtype=torch.float64) for solver in ("euler", ByHand())
    )
    torch.testing.assert_close(by_hand.x, euler.x)
    assert by_hand.nfe == euler.nfe == 11


def test_the_trajectory_starts_at_the_source_and_ends_at_the_samples():
    pipe = _pipe()
    x0 = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    seen = []
    out = pipe.sample(x0=x0, steps=4, trajectory=True, on_step=lambda t, x: seen.append((t, x)))
    assert out.trajectory.shape == (5, 5, 2)
    assert torch.equal(out.trajectory[0], x0)
    assert torch.equal(out.trajectory[-1], out.x)
    assert [t for t, _ in seen] == out.times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_editing_starts_from_noised_data():
    """From a time close to the data the samples stay close to it; from t = 0 they know nothing of it."""
    pipe = _pipe()
    x1 = MIXTURE(400, torch.Generator().manual_seed(0)).float()
    near, far = (pipe.sample(x1=x1, start=start, steps=20, seed=0).x for start in (0.95, 0.0))
    assert (near - x1).square().mean().sqrt() < 0.2
    assert (far - x1).square().mean().sqrt() > 1.0
    assert float(pipe.sample(x1=x1[:1], start=0.4, steps=3, seed=0).times[0]) == 0.4


def test_the_source_is_scaled_by_sigma_where_the_path_starts():
    """On α = 1 paths the first state is σ(0)·x0, not x0."""

    @frozen
    class Exploding:
        def alpha(self, t):
            return torch.ones_like(t)

        def sigma(self, t):
            return 10.0 * 0.01**t

    path = fm.GaussianPath(Exploding())
    pipe = fm.compose(path=path, model=MIXTURE.model(path), solver="rk4")
    x0 = torch.ones(1, 2)
    assert torch.equal(pipe.sample(x0=x0, steps=1, trajectory=True).trajectory[0], 10 * x0)
    samples = pipe.sample((4000, 2), steps=60, seed=0).x
    assert (samples.mean(0) - MIXTURE.means.mean(0)).abs().max() < 0.15


@pytest.mark.parametrize(
    ("budget", "error", "says"),
    [
        ({}, fm.BudgetError, "one of steps=, nfe= and times="),
        ({"steps": 3, "nfe": 6}, fm.BudgetError, "steps= and nfe="),
        ({"steps": 0}, fm.BudgetError, "whole number"),
        ({"steps": 2.5}, fm.BudgetError, "whole number"),
        ({"nfe": 1}, fm.BudgetError, "at least nfe=2"),
        ({"steps": 3, "rtol": 1e-3}, fm.BudgetError, "fixed grid"),
        ({"times": [0.0, 0.5, 0.5, 1.0]}, fm.TimeError, r"times\[1\] = 0.5 is followed by times\[2\] = 0.5"),
        ({"times": [0.0, 1.5]}, fm.TimeError, "got 1.5"),
        ({"times": [1.0, 0.0]}, fm.TimeError, "times must rise"),
        ({"times": [0.0]}, fm.TimeError, "at least two"),
        ({"times": [0.0, float("nan")]}, fm.TimeError, "finite"),
        ({"steps": 3, "start": 0.5}, fm.TimeError, "go together"),
        ({"steps": 3, "seed": 0, "generator": torch.Generator()}, fm.BudgetError, "not both"),
        ({"steps": 3, "cond": torch.zeros(4)}, fm.ShapeError, "batch first"),
        ({"steps": 3, "final": "noise"}, fm.BudgetError, "'data' or 'none'"),
    ],
)
def test_contradictory_requests_are_refused_before_any_network_call(budget, error, says):
    calls = []
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: calls.append(1) or x, "velocity"), solver="heun")
    with pytest.raises(error, match=says):
        pipe.sample((5, 2), **budget)
    assert not calls


@pytest.mark.parametrize("budget", [{"steps": 4}, {"nfe": 10}])
def test_an_adaptive_solver_refuses_a_fixed_budget(budget):
    with pytest.raises(fm.BudgetError, match="max_nfe"):
        _pipe(solver="dopri5").sample((5, 2), **budget)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({}, "one of"),
        ({"shape": (3, 2), "x0": torch.zeros(3, 2)}, "one of"),
        ({"shape": 3}, "does not remember"),
        ({"shape": (3,)}, "at least one dimension"),
        ({"shape": (0, 2)}, "B ≥ 1"),
        ({"x0": torch.zeros(3, 2, dtype=torch.int64)}, "floating point"),
        ({"x0": torch.zeros(3, 2), "x1": torch.zeros(4, 2), "start": 0.5}, "one shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(request_, says):
    with pytest.raises(fm.ShapeError, match=says):
        _pipe().sample(**request_, steps=2)


def test_a_network_of_another_shape_is_named():
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x[:, :1], "velocity"), solver="euler")
    with pytest.raises(fm.ShapeError, match=r"the state's shape \(5, 2\); got \(5, 1\) in call 1"):
        pipe.sample((5, 2), steps=2)


def test_states_given_that_are_not_finite_are_not_put_down_to_the_network():
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="euler")
    with pytest.raises(fm.DivergenceError, match=r"first state, at t = 0, .* 1 of 2 samples, before any network call"):
        pipe.sample(x0=torch.tensor([[0.0], [torch.nan]]), steps=2)


def test_divergence_says_which_step_which_time_and_how_many():
    def net(x, t):
        late = (t > 0.45) & (torch.arange(len(t)) < 2) | (t > 0.75) & (torch.arange(len(t)) < 3)
        return torch.where(late[:, None], float("nan"), x)

    pipe = fm.compose(path="linear", model=fm.Model(net, "velocity"), solver="euler")
    with pytest.raises(fm.DivergenceError, match=r"step 6: the network's output \(call 6\) at t = 0\.5 .* 2 of 7 .*3"):
        pipe.sample((7, 2), steps=10, seed=0)
    out = pipe.sample((7, 2), steps=10, seed=0, throw=False)
    assert out.status.tolist() == [False] * 3 + [True] * 4
    assert out.x[3:].isfinite().all()


def _spoilt(x, t, cond):
    """The linear path to 0, NaN where the condition is 1."""
    return torch.where(cond[:, None] == 1, torch.nan, -x)


@pytest.mark.parametrize("trajectory", [False, True])
def test_an_error_in_a_late_chunk_leaves_what_is_finished(trajectory):
    """Hours of work are not lost to the last chunk, nor to Ctrl-C: the error holds the samples before it."""
    pipe = fm.compose(path="linear", model=fm.Model(_spoilt, "velocity"), solver="heun")
    cond = torch.zeros(150)
    asked = {"steps": 3, "seed": 0, "chunk": 40, "trajectory": trajectory}
    whole = pipe.sample((150, 2), cond=cond, **asked)
    cond[100] = 1

    def interrupt(t, x):
        if len(x) == 30 and t:
            raise KeyboardInterrupt

    for error, finished, given in (
        (fm.DivergenceError, 80, {"cond": cond}),
        (KeyboardInterrupt, 120, {"cond": torch.zeros(150), "on_step": interrupt}),
    ):
        with pytest.raises(error) as caught:
            pipe.sample((150, 2), **asked, **given)
        left = caught.value.finished
        assert torch.equal(left.x, whole.x[:finished])
        assert left.status.tolist() == [True] * finished
        assert (left.nfe, left.seed) == (whole.nfe, 0)
        assert not trajectory or torch.equal(left.trajectory, whole.trajectory[:, :finished])
        assert f"first {finished} of 150" in caught.value.__notes__[0]
    with pytest.raises(fm.DivergenceError) as caught:
        pipe.sample((150, 2), cond=torch.ones(150), **asked)
    assert not hasattr(caught.value, "finished")


def test_chunks_are_written_where_they_belong_not_joined_at_the_end(monkeypatch):
    """Joined, a batch near the size of the memory would need it twice."""
    joined, cat = [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, *a: joined.append(cat(parts, *a).numel()) or cat(parts, *a))
    pipe = _pipe(codec=type("Twofold", (), {"encode": lambda _, x: x / 2, "decode": lambda _, z: z.repeat(1, 2)})())
    out = pipe.sample((300, 2), steps=3, seed=0, chunk=64, trajectory=True)
    assert max(joined, default=0) < out.x.numel()
    monkeypatch.undo()
    whole = _pipe().sample((300, 2), steps=3, seed=0, trajectory=True)
    torch.testing.assert_close(out.x, whole.x.repeat(1, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.trajectory, whole.trajectory, rtol=0, atol=1e-5)


@frozen
class GivesUp:
    """A stranger's solver that raises for the whole batch, as adaptive ones do."""

    needs, order, evals_per_step = frozenset({fm.Prediction.VELOCITY}), 1, 1

    def solve(self, field, x, times, *, cond=None, generator=None, on_step=None):
        for t, s in pairwise(times):
            x = x + (s - t) * field.predict(x, t, cond, "velocity")
            if not x.isfinite().all():
                raise fm.DivergenceError("something is not finite")
            if on_step and s == times[-1]:
                on_step(float(s), x)
        return x


@pytest.mark.parametrize("solver", ["dopri5", GivesUp()], ids=["dopri5", "stranger"])
@pytest.mark.parametrize("bad", [[0], [3, 4, 11], list(range(12))])
def test_samples_that_a_solver_gives_up_do_not_take_the_others_along(solver, bad):
    pipe = fm.compose(path="linear", model=fm.Model(_spoilt, "velocity"), solver=solver)
    cond = torch.zeros(12)
    budget = {"seed": 0} | ({} if solver == "dopri5" else {"steps": 4})
    good = pipe.sample((12, 2), cond=cond, **budget)
    cond[bad] = 1
    with pytest.raises(fm.DivergenceError):
        pipe.sample((12, 2), cond=cond, **budget)
    for chunk in (None, 5):
        out = pipe.sample((12, 2), cond=cond, throw=False, trajectory=solver == "dopri5", chunk=chunk, **budget)
        assert (~out.status).nonzero().flatten().tolist() == bad
        torch.testing.assert_close(out.x[out.status], good.x[out.status], rtol=0, atol=1e-5)
        assert out.x[bad].isnan().all()
        assert out.nfe > good.nfe or len(bad) == 12 or chunk
        assert out.trajectory is None or out.trajectory.shape == (len(out.times), 12, 2)


@pytest.mark.parametrize("solver", ["adams_pc", "sa_solver", "predictor_corrector", "annealed_langevin"])
@pytest.mark.parametrize("chunk", [None, 5])
def test_every_kind_of_solver_says_of_each_sample_whether_it_is_finite(solver, chunk):
    """Tables with history and noise, samplers that are no table: in one piece and in chunks, of which the second alone
    is without fault."""
    path = fm.build("path", "vp")
    mixture = MIXTURE.model(path, "noise")

    def net(x, t, cond):
        return torch.where(((cond == 1) & (t > 0.45))[:, None], torch.nan, mixture(x, t))

    pipe = fm.compose(path=path, model=fm.Model(net, "noise"), solver=solver)
    asked = {"steps": 4, "seed": 0, "dtype": torch.float64}
    cond = torch.zeros(14)
    good = pipe.sample((14, 2), cond=cond, **asked)
    cond[[0, 3, 12]] = 1
    with pytest.raises(fm.DivergenceError, match=r"at t = 0\.[4-9]\d* .* [123] (of|samples)"):
        pipe.sample((14, 2), cond=cond, chunk=chunk, **asked)
    out = pipe.sample((14, 2), cond=cond, chunk=chunk, throw=False, **asked)
    assert (~out.status).nonzero().flatten().tolist() == [0, 3, 12]
    torch.testing.assert_close(out.x[out.status], good.x[out.status], rtol=0, atol=1e-12)


GUIDED = {
    "cfg": ({"name": "cfg", "scale": 2.0}, "ddpm"),
    "momentum": ({"name": "apg", "scale": 2.0, "momentum": -0.5, "parallel": 0.2}, "sa_solver"),
    "posterior": (
        lambda: fm.build("guidance", "dps", y=torch.ones(70, 1), operator=lambda x: x[:, :1], noise=0.5),
        "euler_maruyama",
    ),
    "langevin": ((), "annealed_langevin"),
    "norms": ((), "predictor_corrector"),
}


@pytest.mark.parametrize("title", GUIDED)
def test_noise_and_guidance_do_not_depend_on_the_chunks(title):
    """Broken by noise drawn for a chunk rather than a sample, by memory shared between chunks, and by what a guidance
    holds for every sample but is not cut with them."""
    guidance, solver = GUIDED[title]
    path = fm.build("path", "vp")
    plain = MIXTURE.model(path, "noise")
    model = fm.Model(lambda x, t, cond: plain(x + 0.1 * torch.where(cond == 3, 0, cond)[:, None], t), "noise", null=3)
    pipe = fm.compose(path=path, model=model, solver=solver, guidance=guidance() if callable(guidance) else guidance)
    asked = {"cond": torch.arange(70) % 3, "steps": 5, "seed": 4, "dtype": torch.float64}
    whole = pipe.sample((70, 2), **asked).x
    for chunk in (9, 64):
        torch.testing.assert_close(pipe.sample((70, 2), chunk=chunk, **asked).x, whole, rtol=0, atol=1e-10)


def test_a_solver_that_tells_of_no_step_diverges_in_none():
    pipe = fm.compose(path="linear", model=fm.Model(_spoilt, "velocity"), solver=GivesUp())
    with pytest.raises(fm.DivergenceError) as caught:
        pipe.sample((3, 2), cond=torch.ones(3), steps=4, seed=0)
    assert "step" not in str(caught.value)


def test_sampling_leaves_the_network_in_its_mode_and_runs_it_in_evaluation():
    net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2))
    net[0].eval()
    modes = []
    model = fm.Model(net, "velocity", call=lambda n, x, t, c: modes.append(n.training) or n(x))
    pipe = fm.compose(path="linear", model=model, solver="euler")
    with pytest.raises(ZeroDivisionError):
        pipe.sample((2, 2), steps=2, on_step=lambda t, x: 1 / 0 if t else None)
    assert modes == [False]
    assert net.training
    assert not net[0].training


def test_gradients_flow_only_when_asked():
    x0 = torch.randn(4, 2, requires_grad=True)
    pipe = _pipe()
    assert not pipe.sample(x0=x0, steps=3).x.requires_grad
    pipe.sample(x0=x0, steps=3, grad=True).x.sum().backward()
    assert x0.grad.abs().sum() > 0


def test_images_conditions_and_single_samples():
    def net(x, t, cond):
        return x * 0 + cond["shift"][:, None, None, None]

    pipe = fm.compose(path="linear", model=fm.Model(net, "velocity"), solver="euler")
    x0 = torch.zeros(3, 1, 8, 8)
    shift = torch.tensor([1.0, 2.0, 3.0])
    for chunk in (None, 1, 2):
        out = pipe.sample(x0=x0, cond={"shift": shift}, steps=4, chunk=chunk)
        torch.testing.assert_close(out.x, shift[:, None, None, None].expand_as(x0))
    assert pipe.sample(x0=x0[:1], cond={"shift": shift[:1]}, steps=4).x.shape == (1, 1, 8, 8)


def test_two_threads_share_one_pipeline():
    pipe = _pipe()
    alone = [pipe.sample((50, 2), steps=20, seed=seed).x for seed in range(2)]
    together: dict[int, torch.Tensor] = {}

    def work(seed):
        for _ in range(5):
            together[seed] = pipe.sample((50, 2), steps=20, seed=seed).x

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[seed], alone[seed]) for seed in range(2))


def test_grids_are_used_in_the_order_caller_pipeline_solver():
    own = fm.TableSolver(
        fm.build("solver", "euler").plan, space="velocity", order=1, grid=fm.build("grid", "quadratic")
    )
    path = fm.build("path", "linear")
    quadratic, cosine = (fm.build("grid", name).times(path, 4) for name in ("quadratic", "cosine"))
    assert torch.equal(_pipe(solver=own).sample((1, 2), steps=4).times, quadratic)
    assert torch.equal(_pipe(solver=own, grid="cosine").sample((1, 2), steps=4).times, cosine)
    assert _pipe(solver=own, grid="cosine").sample((1, 2), times=[0.0, 0.3, 1.0]).times.tolist() == [0.0, 0.3, 1.0]


def test_a_codec_stands_between_data_and_path():
    class Scaled:
        def encode(self, x):
            return x / 10

        def decode(self, z):
            return z * 10

    pipe = _pipe(codec=Scaled())
    assert torch.equal(pipe.sample((5, 2), steps=3, seed=0).x, 10 * _pipe().sample((5, 2), steps=3, seed=0).x)
    x1 = 10 * MIXTURE(5, torch.Generator().manual_seed(0)).float()
    near = pipe.sample(x1=x1, start=0.99, steps=3, seed=0).x
    assert (near - x1).abs().max() < 2.0


@pytest.mark.parametrize(("solver", "window"), [("euler", 1), ("heun", 3), ("rk4", 5)])
def test_a_long_run_holds_the_window_of_its_table_alone(solver, window):
    """States and predictions alive when the network is called: those of one step, at any of 1,000 steps."""
    calls, alive = 0, []

    def net(x, t):
        nonlocal calls
        calls += 1
        if calls in {5, 500, 998, 999}:
            alive.append(sum(type(o) is torch.Tensor and o.shape == (3, 1234) for o in gc.get_objects()))
        return torch.zeros_like(x)

    model = fm.Model(net, predicts="velocity")
    fm.compose(path="linear", model=model, solver=solver).sample((3, 1234), steps=1000, seed=0)
    assert max(alive) == window


@frozen
class Clip:
    """Clipping of the data prediction, as every image sampler does it."""

    needs = frozenset({fm.Prediction.DATA})
    acts_on = fm.Prediction.DATA

    def guide(self, field, x_t, t, cond, *, until=None):
        return field.predict(x_t, t, cond, "data", until=until).clamp(-1, 1)


@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
@pytest.mark.parametrize("predicts", ["velocity", "noise"])
def test_guidance_in_its_own_space_keeps_the_span_of_every_conversion(solver, predicts):
    """A guidance that hands on data cannot be asked for a velocity at σ = 0, whatever the network predicts."""
    pipe = _pipe(predicts, solver, guidance=Clip())
    out = pipe.sample((50, 2), seed=0, **({} if solver == "dopri5" else {"steps": 20}))
    assert out.x.abs().max() <= 1 + 1e-3
    assert float(out.times[-1]) == 1.0


def test_a_budget_counts_what_a_guidance_calls():
    @frozen
    class Twice:
        needs, evals = frozenset(), 2

        def guide(self, field, x_t, t, cond, *, until=None):
            return (field.predict(x_t, t, cond, "velocity") + field.predict(x_t, t, cond, "velocity")) / 2

    assert _pipe("velocity", "heun", guidance=[Twice()]).sample((3, 2), nfe=9, seed=0).nfe == 8


def test_noise_drawn_from_the_generator_itself_is_not_that_of_the_source():
    """A stranger's solver may draw from it directly; its noise must not repeat x0."""
    drawn = []

    @frozen
    class Stranger:
        needs, order, evals_per_step, stochastic = frozenset({fm.Prediction.VELOCITY}), 1, 1, True

        def solve(self, field, x, times, *, cond=None, generator=None, on_step=None):
            drawn.extend([x, torch.randn(x.shape, generator=generator)])
            return x

    _pipe(solver=Stranger()).sample((64, 2), steps=1, seed=0)
    assert abs(float(torch.corrcoef(torch.stack([d.flatten() for d in drawn]))[0, 1])) < 0.3


def test_grids_in_float32_are_the_grids_they_mean():
    assert float(_pipe("data").sample((2, 2), times=torch.linspace(0, 0.999, 5)).times[-1]) == 1.0
    x1 = torch.zeros(2, 2)
    assert _pipe().sample(x1=x1, start=0.4, times=torch.tensor([0.4, 0.7, 1.0])).times[0] == 0.4
    for times in ([0.5, 0.75, 1.0], torch.tensor([[0.0, 0.5], [0.7, 1.0]])):
        with pytest.raises(fm.TimeError, match=r"must begin at 0|list of at least two"):
            _pipe().sample((2, 2), times=times)
    with pytest.raises(fm.TimeError, match="closes the run at t = 1 by itself"):
        _pipe("data").sample((2, 2), times=[0.0, 0.5, 1.0])


def test_a_network_that_returns_no_tensor_is_named():
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: None, "velocity"), solver="euler")
    with pytest.raises(fm.ShapeError, match=r"got NoneType in call 1, at t = 0"):
        pipe.sample((5, 2), steps=2)


def test_a_table_must_declare_its_noise():
    silent = fm.TableSolver(_ancestral, space="velocity", order=1)
    with pytest.raises(ValueError, match="stochastic=True"):
        _pipe(solver=silent).sample((2, 2), steps=2)


def test_a_run_in_inference_mode_leaves_later_gradients_alone():
    net = torch.nn.Linear(2, 2)
    model = fm.Model(net, "velocity", call=lambda n, x, t, c: n(x) * t[:, None])
    pipe = fm.compose(path="linear", model=model, solver="euler")
    with torch.inference_mode():
        pipe.sample((2, 2), steps=3, seed=0)
    pipe.sample((2, 2), steps=3, seed=0, grad=True).x.sum().backward()
    assert net.weight.grad is not None


def test_one_thread_does_not_end_the_evaluation_mode_of_another():
    modes, inside, done = set(), threading.Event(), threading.Event()

    def call(net, x, t, cond):
        if cond is not None:
            inside.set()
            done.wait(5)
        modes.add(net.training)
        return x

    model = fm.Model(torch.nn.Linear(2, 2), "velocity", call=call)
    pipe = fm.compose(path="linear", model=model, solver="euler")
    long = threading.Thread(target=lambda: pipe.sample((2, 2), steps=2, cond=torch.zeros(2)))
    long.start()
    inside.wait(5)
    pipe.sample((2, 2), steps=1)
    done.set()
    long.join()
    assert modes == {False}
    assert model.net.training


def test_a_path_without_linear_conversions_is_closed_by_its_own_data_prediction():
    class Short:
        """The linear path up to t = 0.99, by protocol alone."""

        provides = frozenset({fm.Prediction.DATA, fm.Prediction.VELOCITY})
        own = fm.build("path", "linear")
        sample_source, interpolate, target, convert = own.sample_source, own.interpolate, own.target, own.convert

        def span(self, src, needs):
            return 0.0, 0.99

    pipe = fm.compose(path=Short(), model=MIXTURE.model(Short.own), solver="heun")
    out = pipe.sample((4, 2), nfe=21, seed=0)
    assert out.nfe == 21
    assert float(out.times[-1]) == 1.0


@pytest.mark.parametrize(
    ("request_", "says"), [({"chunk": 0}, "≥ 1"), ({"chunk": -1}, "≥ 1"), ({"steps": True}, "whole number")]
)
def test_odd_numbers_are_refused(request_, says):
    with pytest.raises(fm.BudgetError, match=says):
        _pipe().sample((2, 2), **({"steps": 2} | request_))


@pytest.mark.parametrize("starts_blind", [False, True])
def test_a_table_starts_where_its_space_says_something(starts_blind):
    """At α = 0 the noise prediction is the state: a step in it knows nothing of the data."""
    times = []

    def plan(path, grid):
        times.append(float(grid[0]))
        return fm.Plan("noise", float(grid[0]), [fm.Row(float(grid[-1]), ((0, 1.0),), ((0, 0.1),))])

    solver = fm.TableSolver(plan, space="noise", order=1, starts_blind=starts_blind)
    path = fm.build("path", "linear")
    _pipe(path=path, solver=solver).sample((2, 2), steps=1, seed=0)
    assert set(times) == {0.0 if starts_blind else path.margin}


def test_a_function_runs_in_the_dtype_of_what_it_is_given():
    x0 = torch.zeros(3, 2, dtype=torch.float64)
    assert _pipe().sample(x0=x0, steps=2).x.dtype == torch.float64
    assert _pipe().sample(x0=x0, steps=2, dtype=torch.float32).x.dtype == torch.float32


class _Between:
    def __init__(self, low, high, dtype=torch.float64):
        self.ends, self.dtype = (low, high), dtype

    def times(self, path, steps, span=(0.0, 1.0)):
        low, high = (end if own is None else own for own, end in zip(self.ends, span, strict=True))
        return torch.linspace(low, high, steps + 1, dtype=self.dtype)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.0, 0.8), (0.3, 1.0), (-1.0, 1.0)])
def test_a_grid_of_other_ends_is_refused(low, high):
    pipe = _pipe(grid=_Between(low, high))
    for run in (lambda: pipe.sample((2, 2), steps=4), lambda: pipe.encode(torch.zeros(2, 2), steps=4)):
        with pytest.raises(fm.TimeError, match=r"the grid '_Between' goes from t = .*; expected 0 to 1"):
            run()


def test_a_grid_in_float32_is_the_grid_it_means():
    pipe = _pipe("data", grid=_Between(None, None, torch.float32))  # asked up to 0.999
    given = pipe.replace(grid=None).sample((2, 2), times=torch.linspace(0, 0.999, 5), seed=0)
    torch.testing.assert_close(pipe.sample((2, 2), steps=4, seed=0).x, given.x)


def test_times_where_the_solver_cannot_begin_are_its_own_fault():
    with pytest.raises(fm.TimeError, match=r"'deis' cannot begin at t = 0: .* noise .*times begin at 0.001, or take"):
        _pipe(solver="deis").sample((2, 2), times=torch.linspace(0, 1, 6))


def test_a_solver_that_writes_into_its_state_leaves_the_caller_s_alone():
    class InPlace:
        needs, order, evals_per_step, stochastic = frozenset({fm.Prediction.VELOCITY}), 1, 1, False

        def solve(self, field, x, times, *, cond=None, generator=None, on_step=None):
            return x.add_(1.0)

    x = torch.zeros(2, 2)
    assert (_pipe(solver=InPlace()).sample(x0=x, steps=2).x == 1).all()
    assert (_pipe(solver=InPlace()).encode(x, steps=2).x == 1).all()
    assert (x == 0).all()
