"""Losses and figures reach TensorBoard; without its package the way to get it is said."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core.registry import build, notify, observers, observing

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed: fm-core[tensorboard]"
)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.weight * x_t


def observed(folder: Path) -> Any:
    pipe = fm.recipe("cfm", model=Line())
    with observing({"name": "tensorboard", "folder": str(folder), "every": 2}):
        result = pipe.fit(torch.ones(8, 2), steps=5, batch_size=4, seed=0, validation=torch.ones(4, 2))
        bench = observers("fm_bench_record")
        assert bench is not None
        for figure in (1.5, 2.5):
            notify(bench, record={"data": "moons", "solver": "heun", "w2": figure, "nfe": 8, "converged": True})
    return result


class Writer:
    """Stands in for torch's SummaryWriter."""

    made: list[Writer] = []  # noqa: RUF012

    def __init__(self, folder: str) -> None:
        self.folder, self.closed = folder, False
        self.scalars: list[tuple[str, float, int]] = []
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_losses_learning_rates_and_figures_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    result = observed(tmp_path)
    (writer,) = Writer.made
    assert (writer.folder, writer.closed) == (str(tmp_path), True)
    losses = [(value, step) for name, value, step in writer.scalars if name == "fit/loss"]
    assert losses == [(pytest.approx(float(result.losses[step])), step) for step in (0, 2, 4)]
    assert [value for name, value, _ in writer.scalars if name == "fit/lr"] == [1e-3] * 3
    assert [(value, step) for name, value, step in writer.scalars if name == "fit/validation"] == [
        (loss, step) for step, loss in result.validation
    ]
    bench = [scalar for scalar in writer.scalars if scalar[0].startswith("bench")]
    assert bench == [
        ("bench/moons/heun/w2", 1.5, 0),
        ("bench/moons/heun/nfe", 8, 0),
        ("bench/moons/heun/w2", 2.5, 1),
        ("bench/moons/heun/nfe", 8, 1),
    ]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(fm.PluginError, match=r"pip install 'fm-core\[tensorboard\]'"):
        build("observer", "tensorboard", folder=str(tmp_path))


@needs_tensorboard
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-not-found]

    result = observed(tmp_path)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    read = [(event.step, event.value) for event in events.Scalars("fit/loss")]
    assert read == [(step, pytest.approx(float(result.losses[step]))) for step in (0, 2, 4)]
