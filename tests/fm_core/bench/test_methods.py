"""Methods of one budget: ranked as they are, resumed, and judged on the same points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import asdict, evolve

from fm_core import hookimpl, observing
from fm_core.bench import methods, training
from fm_core.bench.methods import FLOOR, METHODS, TASKS, cells
from fm_core.bench.papers import SF2M, Budget, Method
from fm_core.bench.records import Record
from fm_core.bench.running import run
from fm_core.bench.training import train
from fm_core.errors import ArgumentError, BudgetError, UnknownNameError
from fm_plugins.toy_data.moons import Moons

TINY = Budget(points=500, steps=6, batch_size=32, width=16, depth=2, euler=5, pairs=64, n=64)
MOONS = TASKS["N→moons"]


def by_contender(records: Any) -> dict[str, Record]:
    return {record.contender: record for record in records}


def test_a_planted_worse_method_is_worse(tmp_path: Path) -> None:
    """Smoothed by noise of scale 5, the same method never learns where the data are."""
    budget = Budget(points=None, steps=100, batch_size=128, width=32, depth=2, euler=20, n=200, lr=2e-3, ema=0.95)
    there = {"good": METHODS["CFM"], "worse": Method("cfm", {"path": {"name": "icfm", "sigma": 5.0}})}
    records = by_contender(run(cells({"moons": MOONS}, there, budget, (0,)), tmp_path).records)
    good, worse = records["good"].figures, records["worse"].figures
    assert good["w2"] < 0.75 * worse["w2"]
    assert good["energy_distance"] < 0.75 * worse["energy_distance"]
    assert records[FLOOR].figures["w2"] < good["w2"]
    assert good["squared_w2"] == worse["squared_w2"] == records[FLOOR].figures["squared_w2"]


def test_every_method_runs_on_every_task_that_it_is_for(tmp_path: Path) -> None:
    records = methods.bench_methods(tmp_path, budget=TINY, seeds=1).records
    assert {record.status for record in records if record.group == "ours"} == {"ok"}
    assert {record.status for record in records} <= {"ok", "skipped"}, "another library may not be installed"
    cells = {(record.problem, record.contender) for record in records}
    gaussian = {name for name, method in METHODS.items() if not method.any_source}
    assert gaussian == {"DDPM", "DSM", "EDM", "FM"}
    assert cells == {
        (task, name)
        for task in TASKS
        for name in (FLOOR, *METHODS)
        if name not in gaussian or TASKS[task].source is None
    }
    known = {r.contender for r in records if "velocity_error" in r.figures and r.group == "ours"}
    assert known == {"DDPM", "DSM", "EDM", "FM", "CFM", "RF"}
    assert not (tmp_path / "trainings").exists() or not list((tmp_path / "trainings").iterdir())


def test_a_finished_folder_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"budget": TINY, "tasks": ["N→moons"], "methods": ["CFM"]}
    first = methods.bench_methods(tmp_path, seeds=1, **options)
    trained: list[int] = []
    real = methods.train

    def counted(task: Any, method: Any, budget: Any, seed: int, **more: Any) -> Any:
        trained.append(seed)
        return real(task, method, budget, seed, **more)

    monkeypatch.setattr(methods, "train", counted)
    again = methods.bench_methods(tmp_path, seeds=2, **options)
    assert trained == [1]
    assert again.records[: len(first.records)] == first.records


def test_an_interrupted_training_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as the third batch is drawn."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    budget = evolve(TINY, points=None)
    options: dict[str, Any] = {"budget": budget, "tasks": ["N→moons"], "methods": ["2-RF"], "seeds": 1}
    expected = by_contender(methods.bench_methods(whole, **options).records)["2-RF"].figures
    batches: list[int] = []
    real = Moons.__call__

    def interrupted(self: Moons, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        batches.append(n)
        if batches.count(budget.batch_size) == 3:
            raise KeyboardInterrupt
        return real(self, n, generator)

    monkeypatch.setattr(training, "SAVED_EVERY", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Moons, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            methods.bench_methods(parts, **options)
    assert list((parts / "trainings").iterdir())
    figures = by_contender(methods.bench_methods(parts, **options).records)["2-RF"].figures
    assert {name: figures[name] for name in ("w2", "npe")} == {name: expected[name] for name in ("w2", "npe")}
    assert not list((parts / "trainings").iterdir())


def test_the_last_weights_are_judged_beside_the_average(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": ["N→moons"], "methods": ["CFM"], "seeds": 1}
    averaged = by_contender(methods.bench_methods(tmp_path / "a", budget=evolve(TINY, ema=0.9), **options).records)
    last = by_contender(methods.bench_methods(tmp_path / "b", budget=TINY, **options).records)
    assert averaged["CFM"].figures["npe_last"] == last["CFM"].figures["npe"] != averaged["CFM"].figures["npe"]
    assert "npe_last" not in last["CFM"].figures


def test_methods_of_one_seed_train_the_same_points_from_the_same_weights() -> None:
    none = evolve(TINY, steps=1, lr=1e-12)
    one, other = (train(MOONS, METHODS[name], none, 0)[0].pipeline.model.net.state_dict() for name in ("CFM", "OT-CFM"))  # type: ignore[attr-defined]
    assert all((one[name] - other[name]).abs().max() < 1e-6 for name in one)
    third = train(MOONS, METHODS["CFM"], none, 1)[0].pipeline.model.net.state_dict()  # type: ignore[attr-defined]
    assert any((one[name] - third[name]).abs().max() > 1e-3 for name in one)


def test_reflow_divides_the_steps_and_trains_on_its_own_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[str, int]] = []

    class Watches:
        @hookimpl
        def fm_fit_start(self, pipeline: Any, steps: int) -> None:
            fits.append((type(pipeline.path).__name__, steps))

    with observing(Watches()):
        result, _ = train(MOONS, METHODS["2-RF"], TINY, 0)
    assert [steps for _, steps in fits] == [3, 3]
    assert "reflow: 64 pairs, 5 Euler steps" in str(result.pipeline.model.trained)  # type: ignore[attr-defined]


def test_any_recipe_is_a_method_and_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    records = by_contender(
        methods.bench_methods(tmp_path, budget=TINY, tasks=["N→moons"], methods=["ddim"], seeds=1).records
    )
    assert records["ddim"].notes["method"]["recipe"] == "ddim"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"paper": "sf2n"}, UnknownNameError, "did you mean 'sf2m'"),
        ({"tasks": ["N→moon"]}, UnknownNameError, "did you mean 'N→moons'"),
        ({"methods": ["OT-CMF"]}, UnknownNameError, "did you mean 'OT-CFM'"),
        ({"paper": "sf2m", "quick": True}, BudgetError, "its own budget"),
        ({"paper": "sf2", "quick": True}, UnknownNameError, "did you mean 'sf2m'"),
        ({"tasks": "moon"}, UnknownNameError, "did you mean 'moons'"),
        ({"seeds": 0}, ArgumentError, "seeds are how many"),
        ({"paper": "sf2m", "seeds": "3"}, ArgumentError, "got '3'"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        methods.bench_methods(tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("moons", ["N→moons"]),
        ("N->moons", ["N→moons"]),
        (["moons->8gaussians", "scurve"], ["moons→8gaussians", "N→scurve"]),
        (["N→moons", "moons"], ["N→moons"]),
    ],
)
def test_tasks_are_typed_without_an_arrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Any, names: Any
) -> None:
    monkeypatch.setattr(methods, "run", lambda todo, *more, **options: todo)
    todo: Any = methods.bench_methods(str(tmp_path), tasks=typed, methods="CFM", seeds=1)
    assert [one.record.problem for one in todo if one.record.contender == "CFM"] == names


def test_a_divergence_is_a_row_with_its_reason(tmp_path: Path) -> None:
    budget = evolve(TINY, lr=1e30, steps=60)
    records = by_contender(
        methods.bench_methods(tmp_path, budget=budget, tasks=["N→moons"], methods=["CFM"], seeds=1).records
    )
    assert records["CFM"].status == "diverged"
    assert "steps in a row were skipped" in records["CFM"].why


def test_the_papers_protocol_is_what_it_says() -> None:
    budget = asdict(SF2M.budget)
    assert budget == {
        "points": 10_000,
        "steps": 20_000,
        "batch_size": 512,
        "lr": 1e-3,
        "weight_decay": 1e-5,
        "ema": 0.999,
        "width": 64,
        "depth": 3,
        "euler": 100,
        "pairs": 100_000,
        "n": 10_000,
    }
    assert SF2M.seeds == 5
    assert SF2M.published["OT-CFM"]["N→8gaussians"].w2 == 0.303
    assert "moons→8gaussians" not in SF2M.published["FM"]
