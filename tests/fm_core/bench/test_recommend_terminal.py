"""`fm recommend` as one types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import fm_core as fm
from fm_core.bench import recommending
from fm_core.cli import app
from fm_core.errors import BudgetError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved pipeline, and three contenders."""
    monkeypatch.setattr(recommending, "DEFAULT", ("euler", "heun", "auto"))
    monkeypatch.setenv("COLUMNS", "150")
    pipe = fm.recipe("cfm", model=fm.build("model", "mlp", shape=2, seed=0))
    pipe.fit(torch.zeros(8, 2), steps=1, batch_size=8, seed=0, progress=False).pipeline.save(tmp_path / "mine")
    return tmp_path / "mine"


def recommend(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["recommend", "--pipeline", str(folder), "--batch", "3", *more])


def test_seeds_are_named_as_elsewhere_and_the_evidence_says_what_it_is_worth(folder: Path) -> None:
    done = recommend(folder, "--budget", "1nfe", "--seeds", "5-7", "--samples", "4", "--threads", "1")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "Take euler with nfe=1." in text
    assert "auto takes the same steps" in text
    assert "95 % interval ms" in text
    assert "times are of a batch of 3 on 1 thread." in text
    assert "itself right to" in text


@pytest.mark.parametrize("seeds", ["0", "five", "7-3"])
def test_seeds_that_are_none_are_refused(folder: Path, seeds: str) -> None:
    done = recommend(folder, "--budget", "4nfe", "--seeds", seeds)
    assert done.exit_code == 2
    assert "how many, 5, or which, 100-104" in " ".join(done.output.replace("│", " ").split())


def test_no_time_at_all_is_refused(folder: Path) -> None:
    done = recommend(folder, "--budget", "0ms")
    assert isinstance(done.exception, BudgetError)


def test_threads_are_the_users_unless_they_are_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    recommend(folder, "--budget", "2nfe", "--seeds", "2", "--samples", "2")
    assert asked == []
    recommend(folder, "--budget", "2nfe", "--seeds", "2", "--samples", "2", "--threads", "2")
    assert asked == [2]
