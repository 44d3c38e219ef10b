"""Guidance's machinery: two answers from one call, null conditions, scales, layers, rows, memory, and steps that keep
their noise.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor

import fm_core as fm
from fm_core import guiding
from fm_core.testing import GaussianMixture

PATH = fm.build("path", "linear")
MIXTURE = GaussianMixture([[2.0, -1.0], [-1.0, 0.5]], [0.5, 0.8])


class Counting:
    """A network that shifts a mixture's velocity by its condition, and remembers its batches."""

    predicts = (fm.Prediction.VELOCITY,)
    null = 0.0

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x_t, t, cond=None):
        self.batches.append(len(x_t))
        return MIXTURE.predict(PATH, fm.Prediction.VELOCITY, x_t, t) + (0 if cond is None else cond)


@frozen(eq=False)
class Shift:
    """Adds a constant of every sample's own to the velocity."""

    by: Tensor
    off: bool = False
    layer: int | None = None
    needs = frozenset({fm.Prediction.VELOCITY})
    acts_on = fm.Prediction.VELOCITY
    asked: list[int] = attribute(factory=list)

    def guide(self, field, x_t, t, cond, *, until=None):
        self.asked.append(len(x_t))
        field.memory["calls"] = field.memory.get("calls", 0) + 1
        return field.predict(x_t, t, cond, self.acts_on) + self.by + field.memory["calls"]

    def select(self, rows):
        return evolve(self, by=self.by[rows])


def test_two_answers_come_from_one_call_of_twice_the_batch():
    net = Counting()
    x, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    cond = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    field = fm.Field(net, PATH)
    null = guiding.null_condition(field, cond)
    for kind in ("velocity", "data", "v"):
        with_cond, without = guiding.both(field, x, t, cond, null, kind)
        torch.testing.assert_close(with_cond, field.predict(x, t, cond, kind))
        torch.testing.assert_close(without, field.predict(x, t, None, kind))
    assert net.batches == [6, 3, 3] * 3
    assert field.calls == 9


@pytest.mark.parametrize(
    ("null", "cond"),
    [
        (10, torch.tensor([1, 2, 3])),
        (torch.tensor(10), torch.tensor([1, 2, 3])),
        (torch.tensor([7, 8, 9]), torch.tensor([1, 2, 3])),
        (torch.zeros(3), torch.ones(3, 3)),
        (torch.zeros(1, 4), torch.ones(3, 4)),
        ({"label": 10, "text": torch.zeros(5, 2)}, {"label": torch.tensor([1]), "text": torch.ones(1, 5, 2)}),
    ],
)
def test_a_null_condition_takes_the_form_of_the_condition(null, cond):
    expanded = guiding.expand_condition(null, cond)
    for own, none in zip(*(torch.utils._pytree.tree_leaves(tree) for tree in (cond, expanded)), strict=True):
        assert (none.shape, none.dtype) == (own.shape, own.dtype)
    if isinstance(null, Tensor) and null.shape == (3,) and isinstance(cond, Tensor) and cond.ndim == 2:
        assert (expanded == 0).all()


@pytest.mark.parametrize("null", [torch.zeros(5), {"label": 1}, [1, 2], "none"])
def test_a_null_condition_of_another_form_is_refused(null):
    with pytest.raises(fm.ConditionError, match="the condition that means none"):
        guiding.expand_condition(null, torch.ones(3, 4))


def test_what_is_missing_is_said():
    field = fm.Field(fm.Model(lambda x, t: x, predicts="velocity"), PATH)
    with pytest.raises(fm.ConditionError, match=r"null=10.*negative="):
        guiding.null_condition(field, torch.tensor([1]))
    with pytest.raises(fm.ConditionError, match="cfg needs a condition"):
        guiding.require_condition(None, "cfg")


def test_scales_are_numbers_rows_or_functions_of_the_log_snr():
    x, t = torch.zeros(2, 1, 4, 4), torch.tensor([0.5, 0.8])
    assert guiding.scale_at(3.0, PATH, t, x) == 3.0
    assert guiding.scale_at(torch.tensor([1.0, 2.0]), PATH, t, x).shape == (2, 1, 1, 1)
    scheduled = guiding.scale_at(lambda log_snr: (log_snr > 1).float() + 1, PATH, t, x)
    assert scheduled.flatten().tolist() == [1.0, 2.0]
    with pytest.raises(fm.ShapeError, match=r"here \(2,\); got \(3,\)"):
        guiding.scale_at(torch.ones(3), PATH, t, x)


@pytest.mark.parametrize("pair", [(0.1, 0.3), (0.0, 0.3), (0.5, 1.0), (0.6, 0.2)])
def test_a_renoised_change_moves_the_data_and_leaves_the_noise(path, pair):
    """α_s·D* + σ_s·N* = α_s·(D + Δ) + σ_s·N for N, N* the noise of D, D* at x_t."""
    t, s = torch.tensor(pair, dtype=torch.float64)
    x, data, change = torch.randn(3, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = guiding.renoised(path, t[None], s[None])[0]

    def step(d):
        return path.alpha(s) * d + path.sigma(s) * (x - path.alpha(t) * d) / path.sigma(t)

    torch.testing.assert_close(step(data + factor * change), step(data) + path.alpha(s) * change)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "3", True, None])
def test_what_is_no_scale_is_refused(scale):
    with pytest.raises(TypeError, match="finite number"):
        fm.build("guidance", "cfg", scale=scale)


def test_numbers_of_other_libraries_are_scales():
    x, t = torch.zeros(2, 3), torch.tensor([0.5, 0.8])
    assert guiding.scale_at(np.float32(2.0), PATH, t, x) == 2.0
    assert guiding.scale_at(lambda log_snr: 2.0, PATH, t, x) == torch.tensor(2.0)


def test_where_there_is_no_step_nothing_is_renoised():
    """The closing data prediction asks at t = until, at t = 1 even where σ is 0 on both sides."""
    t = torch.tensor([0.3, 1.0])
    assert guiding.renoised(PATH, t, t).tolist() == [1.0, 1.0]


def test_guidance_that_is_off_leaves_no_trace():
    pipe = fm.compose(path=PATH, model=MIXTURE.model(PATH, "noise"), solver="heun")
    off = pipe.replace(guidance=[Shift(torch.zeros(5, 1), off=True)])
    assert torch.equal(pipe.sample((5, 2), steps=4, seed=0).x, off.sample((5, 2), steps=4, seed=0).x)
    assert off.guidance[0].asked == []


def test_what_guidance_holds_for_every_sample_follows_the_chunks():
    by = torch.arange(7.0)[:, None]
    shift = Shift(by)
    pipe = fm.compose(path=PATH, model=MIXTURE.model(PATH), solver="euler", guidance=[shift])
    whole = pipe.sample((7, 2), steps=3, seed=0).x
    torch.testing.assert_close(pipe.sample((7, 2), steps=3, seed=0, chunk=2).x, whole)
    assert shift.asked == [7] * 3 + [2] * 9 + [1] * 3


def test_memory_lasts_a_run():
    """Else the second run, or the second chunk, would start from the count of the first."""
    pipe = fm.compose(path=PATH, model=MIXTURE.model(PATH), solver="euler", guidance=[Shift(torch.zeros(4, 1))])
    first = pipe.sample((4, 2), steps=3, seed=0).x
    assert torch.equal(pipe.sample((4, 2), steps=3, seed=0).x, first)
    torch.testing.assert_close(pipe.sample((4, 2), steps=3, seed=0, chunk=1).x, first)


def test_calls_of_a_model_beside_are_counted_with_ones_own():
    field = fm.Field(Counting(), PATH, (Shift(torch.zeros(1, 1)),))
    x, t = torch.zeros(1, 2), torch.full((1,), 0.5)
    other = field.beside(MIXTURE.model(PATH, "noise"))
    other.predict(x, t, None, "data")
    field.predict(x, t, None, "data")
    assert field.calls == other.calls == 2
    assert other.guidances == ()


def test_a_term_inside_an_extrapolation_is_refused():
    adds, extrapolates = Shift(torch.zeros(1), layer=1), Shift(torch.zeros(1), layer=0)
    anywhere = Shift(torch.zeros(1))
    compose = {"path": PATH, "model": MIXTURE.model(PATH)}
    fm.compose(**compose, guidance=[anywhere, extrapolates, anywhere, extrapolates, adds, anywhere])
    with pytest.raises(fm.CompatError, match="list it the other way round") as caught:
        fm.compose(**compose, guidance=[adds, anywhere, extrapolates])
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("predicts", ["noise", "score"])
def test_a_schedule_refuses_what_says_nothing_where_it_begins(predicts):
    schedule = evolve(PATH.schedule)

    class ZeroTerminal:
        alpha, sigma = schedule.alpha, schedule.sigma
        refused = frozenset({fm.Prediction.NOISE, fm.Prediction.SCORE})

    path = fm.GaussianPath(ZeroTerminal())
    with pytest.raises(fm.CompatError, match="train the network to predict 'v' or 'data'"):
        fm.compose(path=path, model=MIXTURE.model(path, predicts))
    fm.compose(path=path, model=MIXTURE.model(path, "v"))
    fm.compose(path=path, model=MIXTURE.model(path, ("data", "noise")))


def test_the_data_prediction_closes_a_path_that_ends_in_noise():
    """At t = 1 the state still carries σ(1); the last row is E[x1 | x_1], and final='none' keeps the noise."""

    class Noisy:
        closing = True

        def alpha(self, t):
            return torch.ones_like(t)

        def sigma(self, t):
            return 10 * (1 - t) + 0.1

    path = fm.GaussianPath(Noisy())
    data = GaussianMixture([[2.0, -1.0]], 1e-9)
    pipe = fm.compose(path=path, model=data.model(path), solver="heun")
    closed = pipe.sample((50, 2), steps=20, seed=0, dtype=torch.float64, trajectory=True)
    torch.testing.assert_close(closed.x, data.means.expand(50, 2), rtol=0, atol=1e-7)
    assert (closed.nfe, len(closed.trajectory), closed.times[-2:].tolist()) == (41, 22, [1.0, 1.0])
    left = pipe.sample((50, 2), steps=20, seed=0, dtype=torch.float64, final="none")
    assert 0.05 < (left.x - data.means).std() < 0.2
