"""Pipelines: the dry run, sources, placement."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

import fm_core as fm


def _net():
    return fm.build("model", "mlp", shape=2, width=8, depth=1, seed=0)


def test_the_dry_run_accepts_what_works():
    fm.recipe("cfm", model=_net()).check(torch.randn(2, 2))
    images = fm.build("model", "mlp", shape=(1, 8, 8), width=8, depth=1)
    fm.recipe("cfm", model=images).check(torch.randn(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("net", "x1", "cond", "error", "says"),
    [
        (lambda x, t: x[:, :1], torch.randn(2, 2), None, fm.ShapeError, "state's shape"),
        (lambda x, t: x * float("nan"), torch.randn(2, 2), None, fm.DivergenceError, "loss is not finite"),
        (lambda x, t: x, torch.tensor([[1.0, float("inf")]]), None, fm.DataError, "finite"),
        (lambda x, t: x, torch.zeros(2, 2, dtype=torch.uint8), None, fm.DataError, "floating-point"),
        (lambda x, t, c: x, torch.randn(2, 2), torch.zeros(3), fm.ShapeError, "batch first"),
    ],
)
def test_the_dry_run_finds_what_would_fail_later(net, x1, cond, error, says):
    with pytest.raises(error, match=says):
        fm.recipe("cfm", model=net).check(x1, cond)


@pytest.mark.parametrize("kind", ["name", "tensor", "dataset", "callable", "conditional callable"])
def test_a_source_of_any_kind_is_where_paths_start(kind):
    points = torch.full((10, 2), 5.0)
    source = {
        "name": {"name": "eight_gaussians", "radius": 5.0, "std": 0.0},
        "tensor": points,
        "dataset": TensorDataset(points),
        "callable": lambda n, generator: points[:1].expand(n, 2),
        "conditional callable": lambda n, generator: (points[:1].expand(n, 2), torch.zeros(n)),
    }[kind]
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x * 0, "velocity"), source=source, solver="euler")
    x = pipe.sample((70, 2), steps=1, seed=0).x
    assert x.shape == (70, 2)
    torch.testing.assert_close(x.norm(dim=1), torch.full((70,), 5.0 if kind == "name" else 50**0.5))
    assert torch.equal(x, pipe.sample((70, 2), steps=1, seed=0).x)
    assert fm.Prediction.SCORE not in pipe.path.provides


def test_a_source_of_another_shape_is_refused():
    pipe = fm.compose(
        path="linear", model=fm.Model(lambda x, t: x, "velocity"), source=torch.zeros(4, 3), solver="euler"
    )
    with pytest.raises(fm.ShapeError, match="the source gave samples of shape"):
        pipe.sample((5, 2), steps=1)


def test_sources_that_are_none_are_refused():
    for source in (torch.zeros(0, 2), torch.zeros(3, dtype=torch.int64), 3):
        with pytest.raises(fm.DataError, match="source"):
            fm.compose(path="linear", model=fm.Model(lambda x, t: x, "velocity"), source=source)


def test_dtype_and_device_follow_the_network_unless_given():
    pipe = fm.recipe("cfm", model=_net(), dtype=torch.float64)
    assert pipe.placement == (torch.device("cpu"), torch.float64)
    assert pipe.sample((3, 2), steps=1).x.dtype == torch.float64
    assert pipe.to(dtype=torch.float32).sample((3, 2), steps=1).x.dtype == torch.float32


def test_the_event_shape_is_remembered_after_training():
    pipe = fm.recipe("cfm", model=_net()).fit(torch.randn(16, 2), steps=1, batch_size=4, seed=0).pipeline
    assert pipe.sample(6, steps=1).x.shape == (6, 2)


def test_one_plan_serves_every_run_of_a_budget():
    pipe = fm.recipe("cfm", model=_net())
    pipe.sample((3, 2), steps=5)
    pipe.sample((4, 2), steps=5)
    pipe.sample((4, 2), steps=6)
    assert len(pipe.courses) == 2
    assert not pipe.replace(grid="cosine").courses


def test_the_dry_run_leaves_the_network_as_it_was():
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    model = fm.Model(net, "velocity", call=lambda n, x, t, c: n(x))
    fm.compose(path="linear", model=model, objective="cfm").check(torch.randn(1, 2))
    assert net.training
    assert int(net[0].num_batches_tracked) == 0
