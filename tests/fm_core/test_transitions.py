"""Transition log-probabilities: equal to the formulas written out, to the joint Gaussian, and to finite differences."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

import fm_core as fm
from fm_core.testing import GaussianMixture
from fm_core.transitions import joined

MIXTURE = GaussianMixture([[2.0, -1.0], [-1.0, 0.5]], [0.5, 0.8])
ETA = {"name": "ddim", "eta": 0.7}
STOCHASTIC = ["ddpm", ETA, "euler_maruyama", "stochastic_heun", "sde_dpm_solver_pp", "seeds", "sa_solver"]
EXACT = {"rtol": 0, "atol": 1e-8}


def _pipe(solver: Any = "ddpm", path: str = "linear", predicts: str = "velocity") -> fm.Pipeline:
    built = fm.build("path", path)
    return fm.compose(path=built, model=MIXTURE.model(built, predicts), solver=solver)


def _run(pipe: fm.Pipeline, **options: Any) -> fm.Samples:
    return pipe.sample((10, 2), seed=0, dtype=torch.float64, **({"steps": 6, "log_prob": True} | options))


def test_the_log_probability_is_that_of_the_row_written_out():
    """log N(y; mean, noise²) of one-step rows, by torch.distributions."""
    pipe = _pipe(ETA)
    out = _run(pipe)
    steps, field = out.transitions, fm.Field(pipe.model, pipe.path)
    states = [steps.first, *steps.states]
    for i, (before, after) in enumerate(pairwise(states)):
        row = steps.plan.rows[i]
        (_, a), (_, b) = *row.states, *row.predictions
        mean = a * before + b * field.predict(before, steps.plan.state_times[i], None, steps.plan.space)
        expected = Normal(mean, row.noise).log_prob(after).sum(1)
        torch.testing.assert_close(out.log_prob[:, i], expected, **EXACT)


def test_ddim_with_eta_has_the_published_transition():
    """p(x_s | x_t) = N(α_s·D + √(σ_s² − σ_η²)·N, σ_η²), σ_η² = η²·(σ_s²/σ_t²)·(1 − ᾱ_t/ᾱ_s) with ᾱ = α² on VP."""
    pipe = _pipe(ETA, "vp", "noise")
    out = _run(pipe)
    steps, field, path = out.transitions, fm.Field(pipe.model, pipe.path), pipe.path
    grid = torch.tensor((steps.plan.t0, *steps.times), dtype=torch.float64)
    alpha, sigma = path.alpha(grid), path.sigma(grid)
    before = steps.first
    for i, after in enumerate(steps.states):
        data, noise = field.predict(before, float(grid[i]), None, "data", "noise")
        variance = 0.7**2 * (sigma[i + 1] / sigma[i]) ** 2 * (1 - (alpha[i] / alpha[i + 1]) ** 2)
        mean = alpha[i + 1] * data + (sigma[i + 1] ** 2 - variance).sqrt() * noise
        torch.testing.assert_close(out.log_prob[:, i], Normal(mean, variance.sqrt()).log_prob(after).sum(1), **EXACT)
        before = after


@pytest.mark.parametrize("solver", STOCHASTIC, ids=str)
@pytest.mark.parametrize("path", ["linear", "vp"])
def test_the_same_network_finds_the_probabilities_that_drew(solver, path):
    """Histories, stages and correctors between the noisy rows are computed again from what was recorded."""
    pipe = _pipe(solver, path, "noise" if path == "vp" else "velocity")
    out = _run(pipe)
    assert out.log_prob.shape == (10, sum(bool(row.noise) for row in out.transitions.plan.rows))
    again = fm.transition_log_prob(pipe, out.transitions)
    torch.testing.assert_close(again, out.log_prob, rtol=0, atol=1e-6)


def _affine(gain: float) -> fm.Model:
    return fm.Model(lambda x, t: gain * x + t[:, None], predicts="velocity")


def _history(path: Any, times: Tensor) -> fm.Plan:
    """Two noisy rows that look two predictions back, then one without noise that the next of noise builds on."""
    rows = (
        fm.Row(0.25, ((0, 1.0),), ((0, 0.3),), noise=0.5),
        fm.Row(0.5, ((1, 0.9),), ((1, 0.4), (0, -0.2)), noise=0.2),
        fm.Row(0.75, ((2, 1.0), (0, 0.1)), ((2, 0.3),)),
        fm.Row(1.0, ((3, 1.0),), ((3, 0.2), (1, 0.1)), noise=0.3),
    )
    return fm.Plan("velocity", 0.0, rows)


HISTORY = fm.TableSolver(_history, space="velocity", order=1, stochastic=True)


def test_the_probabilities_multiply_to_the_joint_density():
    """With an affine field all noisy states are jointly Gaussian given the first; their density is the product."""
    pipe = fm.compose(path="linear", model=_affine(0.8), solver=HISTORY)
    out = pipe.sample((5, 1), times=[0.0, 0.25, 0.5, 0.75, 1.0], seed=3, log_prob=True, dtype=torch.float64)
    first, noise = out.transitions.first, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)

    def states(z: Tensor, x: Tensor) -> Tensor:
        p = lambda y, t: 0.8 * y + t  # noqa: E731
        a = x + 0.3 * p(x, 0.0) + noise[0] * z[0]
        b = 0.9 * a + 0.4 * p(a, 0.25) - 0.2 * p(x, 0.0) + noise[1] * z[1]
        c = b + 0.1 * x + 0.3 * p(b, 0.5)
        return torch.stack([a, b, c + 0.2 * p(c, 0.75) + 0.1 * p(a, 0.25) + noise[2] * z[2]])

    for i, x in enumerate(first[:, 0]):
        zero = torch.zeros(3, dtype=torch.float64)
        spread = torch.func.jacrev(lambda z, x=x: states(z, x))(zero)
        joint = MultivariateNormal(states(zero, x), spread @ spread.T)
        torch.testing.assert_close(out.log_prob[i].sum(), joint.log_prob(out.transitions.states[:, i, 0]), **EXACT)
    again = fm.transition_log_prob(pipe, out.transitions)
    torch.testing.assert_close(again, out.log_prob, **EXACT)


@pytest.mark.parametrize("solver", [HISTORY, "stochastic_heun", "ddpm"], ids=["history", "stochastic_heun", "ddpm"])
def test_gradients_to_the_network_are_those_of_finite_differences(solver):
    w = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    budget = {"times": [0.0, 0.25, 0.5, 0.75, 1.0]} if solver is HISTORY else {"steps": 4}

    def pipe(gain: Any) -> fm.Pipeline:
        return fm.compose(path="linear", model=_affine(gain), solver=solver)

    run = _run(pipe(0.8), **({"steps": None} | budget)).transitions
    (grad,) = torch.autograd.grad(fm.transition_log_prob(pipe(w), run).sum(), w)
    above, below = (fm.transition_log_prob(pipe(0.8 + h), run).sum() for h in (1e-5, -1e-5))
    assert float(grad) == pytest.approx(float(above - below) / 2e-5, rel=1e-6)


def test_the_score_function_has_mean_zero():
    """E[∇ log p] = 0: broken if the recorded states were not drawn from the probabilities that are computed."""
    w = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    pipe = fm.compose(path="linear", model=_affine(w), solver="ddpm")
    run = pipe.sample((200, 1), steps=3, seed=0, log_prob=True, dtype=torch.float64).transitions
    probabilities = fm.transition_log_prob(pipe, run).sum(1)
    shifts = torch.stack([torch.autograd.grad(p, w, retain_graph=True)[0] for p in probabilities[:200]])
    assert abs(float(shifts.mean())) < 4 * float(shifts.std()) / math.sqrt(200)


def test_parts_of_a_run_are_those_of_the_whole():
    """By chunk, by sample, by transition: and only the network calls that are needed are made."""
    pipe = _pipe("ddpm")
    whole = pipe.sample((70, 2), steps=5, seed=1, log_prob=True, dtype=torch.float64)
    for chunk in (1, 33, 64):
        part = pipe.sample((70, 2), steps=5, seed=1, log_prob=True, dtype=torch.float64, chunk=chunk)
        torch.testing.assert_close(part.log_prob, whole.log_prob, rtol=0, atol=1e-10)
        torch.testing.assert_close(part.transitions.states, whole.transitions.states, rtol=0, atol=1e-10)
    some = whole.transitions.select(torch.tensor([3, 69]))
    torch.testing.assert_close(fm.transition_log_prob(pipe, some), whole.log_prob[[3, 69]], **EXACT)
    calls = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t[0]))
        return pipe.model(x, t)

    counted = pipe.replace(model=fm.Model(net, predicts="velocity"))
    two = fm.transition_log_prob(counted, whole.transitions, only=[3, 1])
    torch.testing.assert_close(two, whole.log_prob[:, [3, 1]], **EXACT)
    assert calls == [whole.transitions.plan.state_times[j] for j in (1, 3)]


def test_recording_changes_nothing_and_images_sum_over_the_event():
    pipe = _pipe("ddpm")
    assert torch.equal(_run(pipe).x, _run(pipe, log_prob=False).x)
    assert _run(pipe, log_prob=False).log_prob is None
    images = fm.compose(path="linear", model=fm.Model(lambda x, t: -x, predicts="velocity"), solver="ddpm")
    out = images.sample((3, 2, 4, 5), steps=3, seed=0, log_prob=True)
    again = fm.transition_log_prob(images, out.transitions)
    assert out.log_prob.shape == again.shape
    torch.testing.assert_close(again, out.log_prob, rtol=0, atol=2e-3)
    flat = fm.compose(path="linear", model=fm.Model(lambda x, t: -x, predicts="velocity"), solver="ddpm")
    torch.testing.assert_close(
        flat.sample((3, 40), steps=3, seed=0, log_prob=True).log_prob, out.log_prob, rtol=0, atol=1e-3
    )


def test_a_network_of_another_prediction_is_asked_in_its_own():
    run = _run(_pipe("ddpm", predicts="noise"))
    other = _pipe("ddpm", predicts="velocity")
    torch.testing.assert_close(fm.transition_log_prob(other, run.transitions), run.log_prob, rtol=0, atol=1e-6)


def test_conditions_reach_the_network():
    model = fm.Model(lambda x, t, cond: x * cond[:, None], predicts="velocity")
    pipe = fm.compose(path="linear", model=model, solver="ddpm")
    cond = torch.linspace(-1, 1, 10, dtype=torch.float64)
    out = _run(pipe, cond=cond)
    torch.testing.assert_close(fm.transition_log_prob(pipe, out.transitions, cond), out.log_prob, **EXACT)
    with pytest.raises(fm.ShapeError, match="cond must have the batch first"):
        fm.transition_log_prob(pipe, out.transitions, cond[:3])


@pytest.mark.parametrize(("solver", "why"), [("heun", "adds no noise"), ("predictor_corrector", "no rows of a table")])
def test_solvers_without_known_transitions_are_refused_before_any_network_call(solver, why):
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: 1 / 0, predicts="velocity"), solver=solver)
    with pytest.raises(fm.CompatError, match=why):
        _run(pipe)


def test_transitions_that_do_not_exist_are_named():
    pipe = _pipe("ddpm")
    with pytest.raises(fm.ShapeError, match=r"only= names transitions 0 … \d of this run; got \[99\]"):
        fm.transition_log_prob(pipe, _run(pipe).transitions, only=[99])


@pytest.mark.parametrize("samples", [[100], "first", 3, torch.tensor([99])])
def test_samples_that_are_none_of_the_run_are_refused(samples):
    with pytest.raises(fm.ShapeError, match="select"):
        _run(_pipe()).transitions.select(samples)


def test_a_mask_selects_as_its_places_do():
    steps, mask = _run(_pipe()).transitions, torch.zeros(10, dtype=torch.bool)
    mask[[2, 5]] = True
    assert torch.equal(steps.select(mask).states, steps.select([2, 5]).states)


@pytest.mark.parametrize("only", ["a", 3, [0.5], [True], [None]])
def test_places_that_are_no_numbers_are_refused(only):
    pipe = _pipe()
    with pytest.raises(fm.ArgumentError, match="only= lists places"):
        fm.transition_log_prob(pipe, _run(pipe).transitions, only=only)


def test_what_are_no_transitions_is_refused():
    pipe = _pipe()
    with pytest.raises(fm.ArgumentError, match=r"transitions are what .* holds; got Tensor"):
        fm.transition_log_prob(pipe, _run(pipe).x)


def test_transitions_of_another_path_are_refused():
    """The table's weights are those of one schedule; on another the same states would get other probabilities."""
    pipe = _pipe("ddpm", "linear")
    steps = _run(pipe).transitions
    torch.testing.assert_close(fm.transition_log_prob(pipe, steps), steps.log_prob, **EXACT)
    for chosen in (steps, steps.select([0, 3]), joined([steps, steps])):
        with pytest.raises(fm.CompatError, match="drawn on a path with other noise levels"):
            fm.transition_log_prob(_pipe("ddpm", "cosine"), chosen)


def _guided(guidance: str | fm.Guidance) -> tuple[fm.Pipeline, fm.Samples, torch.Tensor]:
    def net(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return cond[:, None] * torch.tanh(x) - t[:, None] * x

    model = fm.Model(net, predicts="velocity", null=0.0)
    pipe, cond = fm.compose(path="linear", model=model, solver="ddpm", guidance=guidance), torch.linspace(0.1, 0.9, 6)
    return pipe, pipe.sample((6, 2), steps=5, seed=0, cond=cond, log_prob=True, dtype=torch.float64), cond


@pytest.mark.parametrize(
    "guidance",
    [
        fm.build("guidance", "cfg", scale=torch.arange(1.0, 7.0)),
        fm.build("guidance", "apg", scale=torch.arange(1.0, 7.0), momentum=-0.5),
        fm.build("guidance", "inpaint", known=torch.arange(12.0).view(6, 2), mask=torch.tensor([1.0, 0.0])),
    ],
    ids=["cfg", "apg", "inpaint"],
)
@pytest.mark.parametrize("chunk", [None, 4])
def test_a_minibatch_has_its_own_rows_of_the_guidance(guidance, chunk):
    pipe, run, cond = _guided(guidance)
    if chunk:
        run = pipe.sample((6, 2), steps=5, seed=0, cond=cond, log_prob=True, dtype=torch.float64, chunk=chunk)
    for chosen in ([5, 4, 3, 2, 1, 0], [2, 3], [4], torch.tensor([0, 1, 0, 1, 0, 1], dtype=torch.bool)):
        some = run.transitions.select(chosen)
        torch.testing.assert_close(fm.transition_log_prob(pipe, some, cond[chosen]), run.log_prob[chosen], **EXACT)
    again = run.transitions.select([5, 3, 1]).select([2, 0])
    torch.testing.assert_close(fm.transition_log_prob(pipe, again, cond[[1, 5]]), run.log_prob[[1, 5]], **EXACT)


def test_a_guidance_that_remembers_is_asked_in_the_order_of_the_run():
    pipe, run, cond = _guided("apg(scale=3, momentum=-0.5)")
    for only in ([3], [4, 1], [0, 1, 2, 3, 4]):
        again = fm.transition_log_prob(pipe, run.transitions, cond, only=only)
        torch.testing.assert_close(again, run.log_prob[:, only], **EXACT)


def test_no_transitions_have_no_probabilities():
    pipe = _pipe("ddpm")
    assert fm.transition_log_prob(pipe, _run(pipe).transitions, only=[]).shape == (len(_run(pipe).x), 0)
