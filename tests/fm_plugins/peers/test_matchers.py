"""Other libraries' matchers behind our protocols, and in the suites."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

import fm_core as fm
from fm_core.bench.methods import METHODS, TASKS, cells
from fm_core.bench.operations import Size, matching, pairing
from fm_core.bench.papers import Budget
from fm_core.bench.running import NotHere
from fm_core.errors import CompatError

OBJECTIVES = {"torchcfm_cfm": "torchcfm", "flow_matching_cond_ot": "flow_matching"}
SMALL = Size(batch=8, dimension=3, steps=3)
TINY = Budget(points=None, steps=4, batch_size=16, width=8, depth=1, euler=4, n=32, ema=None)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("shape", [(1, 2), (5, 1, 4, 4)])
def test_losses_equal_ours_on_the_linear_path(name: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip(OBJECTIVES[name])
    path, generator = fm.build("path", "linear"), torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, *shape, generator=generator)
    field = fm.Field(fm.Model(lambda x, t: 0.3 * x, predicts="velocity"), path)
    sample = path.interpolate(x0, x1, torch.rand(shape[0], generator=generator))
    theirs, ours = (fm.build("objective", one).loss(field, sample) for one in (name, "cfm"))
    torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_another_path_is_refused(name: str) -> None:
    pytest.importorskip(OBJECTIVES[name])
    path = fm.build("path", "cosine")
    x = torch.ones(2, 2)
    field = fm.Field(fm.Model(lambda x, t: x, predicts="velocity"), path)
    with pytest.raises(CompatError, match="path='linear'"):
        fm.build("objective", name).loss(field, path.interpolate(x, x, torch.full((2,), 0.5)))


def test_pairs_of_torchcfm_lie_on_the_optimal_plan_and_repeat() -> None:
    pytest.importorskip("torchcfm")
    generator = torch.Generator().manual_seed(1)
    x0, x1 = torch.randn(2, 64, 2, generator=generator)
    theirs, ours = fm.build("coupling", "torchcfm_exact_ot"), fm.build("coupling", "minibatch_ot")
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    i, j = theirs.pair(x0, x1, generator=torch.Generator().manual_seed(2))
    again = theirs.pair(x0, x1, generator=torch.Generator().manual_seed(2))
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(i, again[0])
    assert torch.equal(j, again[1])
    rows, columns = ours.pair(x0, x1, generator=generator)
    partner = torch.empty_like(rows).scatter(0, rows, columns)
    assert torch.equal(partner[i], j)
    assert 0.5 < len(set(i.tolist())) / 64 < 0.8, "with replacement: 1 − 1/e of the batch"


@pytest.mark.parametrize("title", ["CFM (flow_matching)", "CFM (torchcfm)", "OT-CFM (torchcfm)"])
def test_methods_of_peers_are_trained_and_judged(title: str) -> None:
    library = title.partition("(")[2][:-1]
    pytest.importorskip(library)
    _, cell = cells({"N→moons": TASKS["N→moons"]}, {title: METHODS[title]}, TINY, [0])
    assert cell.record.group == library
    assert cell.measure()["w2"] > 0


def test_methods_of_libraries_that_are_not_there_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcfm", None)
    monkeypatch.setitem(sys.modules, "torchcfm.conditional_flow_matching", None)
    monkeypatch.delitem(sys.modules, "fm_plugins.peers.torchcfm", raising=False)
    title = "OT-CFM (torchcfm)"
    _, cell = cells({"N→moons": TASKS["N→moons"]}, {title: METHODS[title]}, TINY, [0])
    with pytest.raises(NotHere, match="torchcfm is not installed"):
        cell.measure()
    for measure in (
        lambda: matching("objective", "torchcfm_cfm", SMALL, 0, 0.0),
        lambda: pairing(SMALL, 0, 0.0, "torchcfm_exact_ot"),
    ):
        with pytest.raises(NotHere, match="pip install --no-deps torchcfm POT"):
            measure()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("objective", "torchcfm_cfm"), ("coupling", "torchcfm_exact_ot"), ("objective", "flow_matching_cond_ot")],
)
def test_a_loop_with_their_matcher_is_raced(kind: str, name: str) -> None:
    pytest.importorskip("torchcfm" if "torchcfm" in name else "flow_matching")
    state = torch.get_rng_state()
    figures = matching(kind, name, SMALL, 0, seconds=0.0)
    assert figures["training_steps_per_s"] > 0
    assert figures["over_bare"] > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_training_learns_with_their_matcher() -> None:
    """The mean of the data, from which a network that is nothing but a constant cannot hide."""
    pytest.importorskip("torchcfm")
    x1 = torch.full((256, 2), 3.0) + 0.1 * torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    net: Any = fm.build("model", "mlp", shape=2, width=32, depth=2, seed=0)
    parts = {"objective": "torchcfm_cfm", "coupling": "torchcfm_exact_ot"}
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="euler", **parts)
    made = pipe.fit(x1, steps=300, batch_size=64, lr=5e-3, seed=0, progress=False).pipeline
    assert abs(float(made.sample((200, 2), steps=20, seed=0).x.mean()) - 3.0) < 0.3
