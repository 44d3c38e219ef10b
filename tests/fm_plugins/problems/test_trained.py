"""Trained problems: trained once, kept, and their fine references; saved pipelines as problems."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fm_core import DataError, Model, build, compose
from fm_core.randomness import make_generator
from fm_plugins.problems import trained
from fm_plugins.problems.trained import cache_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FM_CACHE", str(tmp_path / "cache"))


def test_a_network_is_trained_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build("problem", "learned_moons", steps=20)
    assert not cache_folder().exists(), "what is only built is not trained"
    assert first.pipeline is first.pipeline
    (folder,) = (cache_folder() / "problems").iterdir()
    assert folder.name.startswith("moons-cfm-")
    monkeypatch.setattr(trained.Pipeline, "fit", None)  # a second training would call it
    again = build("problem", "learned_moons", steps=20)
    g = make_generator(0)
    x0 = torch.randn(4, 2, generator=g)
    assert torch.equal(first.reference(x0), again.reference(x0))
    with pytest.raises(TypeError):
        _ = build("problem", "learned_moons", steps=21).pipeline


def test_the_reference_is_finer_than_float32_and_says_how_good_it_is() -> None:
    problem = build("problem", "learned_moons", steps=50)
    assert not problem.exact
    assert 0 < problem.reference_error < 1e-4
    x0 = torch.randn(16, 2, generator=make_generator(0))
    fine = problem.pipeline.replace(solver="rk4").sample(x0=x0, steps=400, seed=0).x
    torch.testing.assert_close(problem.reference(x0).float(), fine, rtol=1e-3, atol=1e-3)


def test_the_source_of_moons_to_gaussians_is_that_of_the_moons() -> None:
    problem = build("problem", "learned_moons_to_gaussians", steps=5)
    x0 = problem.pipeline.path.sample_source((500, 2), generator=make_generator(0))
    assert 5 < float(x0.std()) < 9


def test_labelled_digits_are_asked_for_by_label() -> None:
    problem = build("problem", "labelled_digits", steps=2)
    cond = problem.condition(100, make_generator(0))
    assert set(cond.tolist()) == set(range(10))
    assert problem.truth(3, make_generator(0)).shape == (3, 1, 8, 8)
    assert problem.pipeline.model.null == 10


def test_a_saved_pipeline_is_a_problem(tmp_path: Path) -> None:
    problem = build("problem", "learned_moons", steps=5)
    problem.pipeline.save(tmp_path / "mine")
    own = build("problem", "saved", folder=str(tmp_path / "mine"), data="moons")
    x0 = torch.randn(4, 2, generator=make_generator(0))
    torch.testing.assert_close(own.reference(x0), problem.reference(x0), rtol=1e-4, atol=1e-4)
    assert own.event_shape == (2,)
    assert own.truth(5, make_generator(0)).shape == (5, 2)
    assert build("problem", "saved", folder=str(tmp_path / "mine")).truth(5, make_generator(0)) is None


def test_a_pipeline_that_remembers_no_shape_must_be_told(tmp_path: Path) -> None:
    net = build("model", "mlp", shape=2, seed=0)
    compose(path="linear", model=Model(net, predicts="velocity"), solver="heun").save(tmp_path / "bare")
    with pytest.raises(DataError, match="shape"):
        build("problem", "saved", folder=str(tmp_path / "bare"))
    assert build("problem", "saved", folder=str(tmp_path / "bare"), shape=[2]).event_shape == (2,)
