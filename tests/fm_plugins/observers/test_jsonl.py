"""Every event is one line of strict JSON, whoever writes beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core.registry import build, notify, observers, observing

ROOT = Path(__file__).parents[3]


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.weight * x_t


@pytest.fixture
def pipe() -> fm.Pipeline:
    return fm.recipe("ot_cfm", model=Line())


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_a_training_is_written_from_its_start_to_its_end(pipe: fm.Pipeline, tmp_path: Path) -> None:
    log = tmp_path / "runs" / "a.jsonl"
    with observing({"name": "jsonl", "path": str(log)}):
        result = pipe.fit(torch.ones(8, 2), steps=3, batch_size=4, seed=0, validation=torch.ones(4, 2))
    start, *steps, end = lines(log)
    assert start["event"] == "fit_start"
    assert start["parts"] == {
        "path": "linear",
        "objective": "cfm",
        "coupling": "minibatch_ot",
        "solver": "heun",
        "model": "Line",
    }
    assert [(line["event"], line["step"], line["lr"]) for line in steps] == [("fit_step", i, 1e-3) for i in range(3)]
    assert [line["loss"] for line in steps] == pytest.approx(result.losses.tolist())
    assert (end["event"], end["steps"], end["seed"], end["stopped"]) == ("fit_end", 3, 0, None)
    assert end["loss"] == pytest.approx(float(result.losses[-1]))
    assert end["validation"] == [list(point) for point in result.validation]
    assert start["time"] <= steps[0]["time"] <= end["time"]


def test_only_every_so_many_steps_are_written(pipe: fm.Pipeline, tmp_path: Path) -> None:
    with observing(build("observer", "jsonl", path=tmp_path / "log", every=4)):
        pipe.fit(torch.ones(8, 2), steps=10, batch_size=4, seed=0)
    assert [line["step"] for line in lines(tmp_path / "log") if line["event"] == "fit_step"] == [0, 4, 8]


def test_sampling_is_written_by_its_moments(pipe: fm.Pipeline, tmp_path: Path) -> None:
    with observing(build("observer", "jsonl", path=tmp_path / "log")):
        run = pipe.sample((5, 2), steps=2, seed=0, trajectory=True)
    written = lines(tmp_path / "log")
    assert run.trajectory is not None
    assert [line["t"] for line in written] == [0.0, 0.5, 1.0]
    assert [line["mean"] for line in written] == pytest.approx([float(x.mean()) for x in run.trajectory])
    assert [line["std"] for line in written] == pytest.approx([float(x.std(correction=0)) for x in run.trajectory])
    assert {(line["samples"], line["finite"]) for line in written} == {(5, 5)}


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with observing(build("observer", "jsonl", path=tmp_path / "log")):
        bench, step = observers("fm_bench_record"), observers("fm_sample_step")
        assert bench is not None
        assert step is not None
        notify(bench, record={"name": "höher", "figures": [1.5, float("nan"), (float("-inf"),)], "nfe": 8})
        notify(step, t=1.0, x=torch.tensor([[float("nan"), 0.0], [1.0, 2.0]]))
    record, state = lines(tmp_path / "log")
    assert record["name"] == "höher"
    assert record["figures"] == [1.5, None, [None]]
    assert (state["finite"], state["samples"], state["mean"]) == (1, 2, None)


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    logger = build("observer", "jsonl", path=tmp_path / "log")

    def write() -> None:
        for i in range(50):
            logger.fm_bench_record({"i": i, "text": "x" * 2000})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["i"] for line in lines(tmp_path / "log")) == sorted([*range(50)] * 4)


def test_a_file_that_cannot_be_written_is_reported_and_stops_nothing(pipe: fm.Pipeline, tmp_path: Path) -> None:
    logger = build("observer", "jsonl", path=tmp_path)
    reported = "JSONLogger failed in fm_fit_start: IsADirectoryError"
    with pytest.warns(RuntimeWarning, match=reported), observing(logger):
        assert pipe.fit(torch.ones(8, 2), steps=2, batch_size=4, seed=0).steps == 2


@pytest.mark.parametrize("wanted", [True, False])
def test_the_variable_switches_it_on_for_a_process_and_nothing_observes_without(tmp_path: Path, wanted: bool) -> None:
    program = """
import torch, fm_core as fm
from fm_core import registry
print(registry.observers("fm_sample_step") is None)
pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="euler")
pipe.sample((2, 2), steps=1, seed=0)
"""
    log = tmp_path / "log.jsonl"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FM_")}
    environ |= {"FM_LOG_JSONL": str(log)} if wanted else {}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(not wanted)]
    assert log.exists() == wanted
    if wanted:
        assert [line["t"] for line in lines(log)] == [0.0, 1.0]
