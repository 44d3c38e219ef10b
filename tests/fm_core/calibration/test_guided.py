"""Calibration under guidance: tables run together wherever guidance allows it, and what it held each sample for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import registry
from fm_core.calibration.pilot import needs_apart
from fm_core.errors import CompatError

LABELS = torch.arange(32) % 3
PER_SAMPLE = torch.linspace(1.5, 2.5, 32)


class _Counting:
    """A conditional field that counts the calls, and the states of the largest one."""

    def __init__(self) -> None:
        self.calls = self.most = 0

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.calls, self.most = self.calls + 1, max(self.most, len(x))
        return torch.tanh(2 * x + label[:, None]) - x * t[:, None]


def _guided(net: Any, guidance: Any) -> fm.Pipeline:
    model = fm.Model(net, predicts="velocity", null=torch.tensor(3))
    return fm.compose(path="linear", model=model, guidance=guidance, solver="auto")


@pytest.mark.parametrize(
    ("guidance", "apart"),
    [
        ({"name": "cfg", "scale": 2.0}, False),
        ({"name": "interval", "guidance": {"kind": "guidance", "name": "cfg", "scale": 2.0}}, False),
        ({"name": "cfg", "scale": PER_SAMPLE}, True),
        ({"name": "apg", "scale": 2.0, "momentum": -0.5}, True),
    ],
)
def test_tables_are_run_apart_only_where_guidance_holds_something_of_each_sample(guidance: Any, apart: bool) -> None:
    assert needs_apart(_guided(_Counting(), guidance), torch.zeros(32, 2), LABELS) is apart


def test_one_scale_for_all_costs_many_times_fewer_calls_than_one_for_each_and_fits_the_same() -> None:
    """With all of them 2 the field is the same, so what is fitted must be."""
    fits, calls = [], []
    for scale in (2.0, torch.full((32,), 2.0)):
        net = _Counting()
        pipe = _guided(net, fm.build("guidance", "cfg", scale=scale))
        x0 = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
        fits.append(fm.calibrate(pipe, x0=x0, cond=LABELS, nfe=3, iterations=2).solver)
        calls.append(net.calls)
    assert calls[1] - calls[0] > 40
    together, apart = (torch.tensor(fit.grid.own) for fit in fits)  # type: ignore[union-attr]
    assert torch.allclose(together, apart, atol=1e-3)


@pytest.mark.parametrize("scale", [2.0, PER_SAMPLE])
def test_no_call_has_more_states_than_a_chunk(scale: Any) -> None:
    net = _Counting()
    fast = fm.calibrate(
        _guided(net, fm.build("guidance", "cfg", scale=scale)), (32, 2), cond=LABELS, nfe=3, iterations=2, chunk=10
    )
    assert net.most == 20  # guidance asks with the condition and without it
    assert fast.solver is not None


def _cfg(scale: Any) -> Any:
    return fm.build("guidance", "cfg", scale=scale)


@pytest.fixture(scope="module")
def fitted() -> fm.Pipeline:
    return fm.calibrate(_guided(_Counting(), _cfg(2.0)), (32, 2), cond=LABELS, nfe=3, iterations=2)


def _drawn(pipe: fm.Pipeline) -> Tensor:
    return pipe.sample((3, 2), cond=LABELS[:3], nfe=3, seed=0).x


@pytest.mark.parametrize(
    ("guidance", "said"),
    [
        ([_cfg(8.0)], r"under the guidance cfg\(scale=2.0\) and runs .* cfg\(scale=8.0\).*fm.calibrate"),
        ([], "runs under no guidance"),
        ([_cfg(1.0)], "runs under no guidance"),
        ([_cfg(2.0), _cfg(3.0)], r"runs under the guidance cfg\(scale=2.0\) in cfg\(scale=3.0\)"),
        ([_cfg(torch.full((3,), 2.5))], None),  # a tensor: its name is all that is known
        ([_cfg(2.0)], None),
        ([fm.build("guidance", "cfg", scale=2, negative=None)], None),
    ],
)
def test_another_guidance_than_the_calibrated_one_is_said(fitted: fm.Pipeline, guidance: Any, said: str | None) -> None:
    """Warnings are errors here, so the silent ones are silent."""
    other = fitted.replace(guidance=guidance)
    if said is None:
        assert _drawn(other).isfinite().all()
        return
    with pytest.warns(RuntimeWarning, match=said):
        _drawn(other)


def test_provenance_keeps_the_guidance_through_a_saved_configuration(fitted: fm.Pipeline) -> None:
    config = json.loads(json.dumps(registry.to_config(fitted.solver)))
    assert config["provenance"]["guidance"] == [{"name": "cfg", "scale": 2.0}]
    again = fitted.replace(solver=registry.from_config("solver", config))
    assert torch.equal(_drawn(again), _drawn(fitted))


def test_a_table_that_kept_the_names_alone_is_compared_by_these(fitted: fm.Pipeline) -> None:
    config = registry.to_config(fitted.solver)
    config["provenance"]["guidance"] = ["cfg"]
    older = fitted.replace(solver=registry.from_config("solver", config))
    assert _drawn(older.replace(guidance=[_cfg(8.0)])).isfinite().all()
    with pytest.warns(RuntimeWarning, match="under the guidance cfg and runs under no guidance"):
        _drawn(older.replace(guidance=[]))


def test_the_fix_is_silent(fitted: fm.Pipeline) -> None:
    again = fm.calibrate(fitted.replace(guidance=[_cfg(3.0)]), (32, 2), cond=LABELS, nfe=3, iterations=8)
    assert again.solver.provenance["guidance"] == [{"name": "cfg", "scale": 3.0}]  # type: ignore[union-attr]


def test_what_is_calibrated_under_one_guidance_within_another_samples_and_is_saved_with_it(tmp_path: Path) -> None:
    """Its provenance names the inner one, and does not build it."""
    guidance = {"name": "interval", "guidance": {"kind": "guidance", "name": "cfg", "scale": 2.0}, "low": -3.0}
    pipe = _guided(fm.build("model", "mlp", shape=2, width=8, classes=3, seed=0), guidance)
    fast = fm.calibrate(pipe, (32, 2), cond=LABELS, nfe=6, iterations=2)
    own = fast.sample((32, 2), cond=LABELS, nfe=6, seed=1).x
    fast.save(tmp_path)
    torch.testing.assert_close(fm.load(tmp_path).sample((32, 2), cond=LABELS, nfe=6, seed=1).x, own)
    with pytest.warns(RuntimeWarning, match=r"calibrated under the guidance interval\("):
        fast.replace(guidance=[_cfg(2.0)]).sample((32, 2), cond=LABELS, nfe=6, seed=1)


@pytest.mark.parametrize("guidance", [{"name": "cfg_pp", "weight": 0.5}, {"name": "clip", "keep_noise": True}])
def test_what_depends_on_the_length_of_steps_has_no_reference(guidance: Any) -> None:
    """CFG++ guides more the finer the grid, so many steps are no reference for few."""
    pipe = _guided(fm.build("model", "mlp", shape=2, width=8, classes=3, seed=0), guidance)
    with pytest.raises(CompatError, match="depends on how long a step is"):
        fm.calibrate(pipe, (32, 2), cond=LABELS, nfe=6)
    with pytest.raises(CompatError, match="depends on how long a step is"):
        fm.recommend(pipe, (32, 2), cond=LABELS, budget=6)
