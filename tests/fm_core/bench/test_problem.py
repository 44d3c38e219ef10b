"""What is misspelt in a problem is said before anything runs, and nothing is trained for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fm_core as fm
from fm_core import UnknownNameError, build
from fm_core.bench.pipeline_problem import PipelineProblem
from fm_core.bench.problem import require_problem
from fm_core.building import OptionError
from fm_core.errors import ArgumentError, FMError, SavedFileError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where trained networks are kept; what is checked leaves it empty."""
    monkeypatch.setenv("FM_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ("gausian", UnknownNameError, "did you mean 'gaussian'"),
        ("gaussian(path=linaer)", UnknownNameError, "did you mean 'linear'"),
        ("gaussian(pth=linear)", OptionError, "did you mean 'path'"),
        ("gaussian(std=wide)", OptionError, "expected float"),
        ("gaussian(path", OptionError, "name"),
        ({"name": "saved", "folder": "nope"}, SavedFileError, "no saved pipeline"),
        ("learned_moons(data=mons)", UnknownNameError, "did you mean 'moons'"),
        ("learned_moons(method=cfn)", UnknownNameError, "cfm"),
        ("learned_moons(steps=many)", OptionError, "expected int"),
        (5, ArgumentError, "int lacks title, pipeline"),
    ],
)
def test_what_is_misspelt_is_said(given: Any, error: type[FMError], why: str) -> None:
    with pytest.raises(error, match=why):
        require_problem(given)


def test_what_is_right_is_the_problem() -> None:
    assert require_problem("gaussian(path=vp)").title == "Gaussian in 2-D, path vp"
    problem = build("problem", "line")
    assert require_problem(problem) is problem


def test_a_network_is_trained_when_its_pipeline_is_first_asked_for() -> None:
    made: list[fm.Pipeline] = []

    def make() -> fm.Pipeline:
        made.append(fm.recipe("cfm", model=build("model", "mlp", shape=2, seed=0)))
        return made[-1]

    problem = PipelineProblem(title="late", pipeline=make, event_shape=(2,))
    assert require_problem(problem) is problem
    assert require_problem("learned_moons(steps=3)").event_shape == (2,)
    assert made == []
    assert problem.pipeline is problem.pipeline is made[0]
    assert len(made) == 1
