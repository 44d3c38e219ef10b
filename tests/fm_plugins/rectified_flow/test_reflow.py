"""Reflow: pairs of the teacher's own."""

from __future__ import annotations

import pytest
import torch

import fm_core as fm
from fm_core.testing import GaussianMixture
from fm_plugins.rectified_flow.reflow import reflow

MIXTURE = GaussianMixture([[3.0, 0.0], [-3.0, 0.0]], [0.4, 0.4])


def _teacher(solver="rk4"):
    path = fm.build("path", "linear")
    return fm.compose(path=path, model=MIXTURE.model(path), solver=solver)


def test_the_pairs_are_where_the_teacher_carries_its_source():
    teacher = _teacher()
    pairs = reflow(teacher, (100, 2), steps=20, seed=3)
    assert torch.equal(pairs.x1, teacher.sample(x0=pairs.x0, steps=20).x)
    assert torch.equal(pairs.x1, teacher.sample((100, 2), steps=20, seed=3).x), "the source is that of the seed"
    for part in ("100 pairs", "rk4", "80 network calls", "seed 3"):
        assert part in pairs.provenance


def test_reflow_keeps_the_marginals_and_lowers_the_transport_cost():
    """Liu et al., Theorem 3.5: E‖Z1 − Z0‖² ≤ E‖X1 − X0‖² over independent pairs."""
    pairs = reflow(_teacher(), (2000, 2), steps=20, seed=0)
    independent = MIXTURE(2000, torch.Generator().manual_seed(1)).float()
    cost, before = ((x1 - pairs.x0).square().sum(1).mean() for x1 in (pairs.x1, independent))
    assert cost < 0.8 * before
    assert abs(pairs.x1.abs().mean(0)[0] - 3.0) < 0.1


def test_two_rectified_is_straighter_than_one():
    """Straightness ∫E‖(Z1 − Z0) − v(Z_t, t)‖² dt falls, and one Euler step comes closer to many."""
    data = lambda n, g: MIXTURE(n, g).float()  # noqa: E731
    pipe = fm.recipe("rectified_flow", model=fm.build("model", "mlp", shape=2, seed=0), solver="rk4")
    one = pipe.fit(data, steps=400, batch_size=256, seed=0).pipeline
    two = one.fit(reflow(one, 4000, steps=10, seed=1), steps=400, batch_size=256, seed=1).pipeline
    errors = []
    for stage in (one, two):
        x0 = torch.randn(1000, 2, generator=torch.Generator().manual_seed(2))
        many, single = (stage.replace(solver="euler").sample(x0=x0, steps=steps).x for steps in (50, 1))
        errors.append(float((many - single).square().sum(1).mean()))
    assert errors[1] < 0.5 * errors[0]
    assert not two.model.trained.independent
    assert len(two.model.trained.provenance) == 1
    assert "4000 pairs" in two.model.trained.provenance[0]


def test_provenance_grows_with_every_stage():
    pipe = fm.recipe("rectified_flow", model=fm.build("model", "mlp", shape=2, width=8, depth=1), solver="euler")
    pipe = pipe.fit(torch.randn(64, 2), steps=2, batch_size=16, seed=0).pipeline
    for stage in (1, 2):
        pipe = pipe.fit(reflow(pipe, 64, steps=2, seed=stage), steps=2, batch_size=16, seed=0).pipeline
        assert len(pipe.model.trained.provenance) == stage
    assert "seed 1" in pipe.model.trained.provenance[0]


def test_conditions_ride_along():
    model = fm.Model(lambda x, t, cond: cond[:, None].expand_as(x), "velocity")
    teacher = fm.compose(path="linear", model=model, solver="euler")
    shift = torch.arange(6.0)
    pairs = reflow(teacher, (6, 2), cond=shift, steps=3, seed=0)
    assert torch.equal(pairs.cond, shift)
    torch.testing.assert_close(pairs.x1 - pairs.x0, shift[:, None].expand(6, 2))


def test_a_stochastic_teacher_is_refused():
    noisy = fm.TableSolver(lambda path, times: None, space="velocity", order=1, stochastic=True)
    with pytest.raises(fm.CompatError, match="no such x1"):
        reflow(_teacher(noisy), (4, 2), steps=2)
