"""What a calibration refuses, in its own words, and what it hands on: errors of the caller's network and condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core.errors import ArgumentError, BudgetError, ConditionError, DataError, ShapeError

NOISE = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))


def _pipe(net: Any = None, **options: Any) -> fm.Pipeline:
    net = net or fm.build("model", "mlp", shape=2, width=8, seed=0, **options)
    return fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="auto")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"iterations": "3"}, ArgumentError, "'iterations' is '3'"),
        ({"iterations": 2.5}, ArgumentError, "expected int"),
        ({"iterations": -1}, BudgetError, "iterations is a whole number ≥ 0; got -1"),
        ({"chunk": 0}, BudgetError, "chunk is a whole number ≥ 1; got 0"),
        ({"chunk": 2.5}, ArgumentError, "'chunk' is 2.5"),
        ({"nfe": "8"}, ArgumentError, "'nfe' is '8'"),
        ({"nfe": True}, ArgumentError, "'nfe' is True"),
        ({"nfe": 1}, BudgetError, "at least 2 predictions"),
        ({"seed": -1}, ArgumentError, "whole number ≥ 0"),
        ({"shape": "ab"}, ArgumentError, "'shape' is 'ab'"),
        ({"shape": (2.5, 2)}, ArgumentError, "'shape' is"),
        ({"shape": (128, -2)}, ShapeError, r"got \(128, -2\)"),
        ({"shape": (128,)}, ShapeError, r"got \(128,\)"),
        ({"shape": None, "x0": NOISE.tolist()}, ArgumentError, "of type list; expected Tensor"),
        ({"shape": None, "x0": NOISE.numpy()}, ArgumentError, "of type ndarray; expected Tensor"),
        ({"shape": None, "x0": NOISE.long()}, ShapeError, "floating point; got torch.int64"),
        ({"shape": None, "x0": NOISE[:0]}, ShapeError, "B ≥ 1"),
        ({"shape": None, "x0": NOISE / 0}, DataError, "x0 has numbers that are not finite"),
        ({"shape": None}, DataError, "one of"),
        ({"x0": NOISE}, DataError, "one of"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(given: dict[str, Any], error: Any, said: str) -> None:
    def untouched(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError

    with pytest.raises(error, match=said):
        fm.calibrate(_pipe(untouched), **{"shape": (32, 2), "nfe": 4, **given})


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    options: dict[str, Any] = {"nfe": np.int64(3), "iterations": np.int64(8), "seed": np.int64(1)}
    fast = fm.calibrate(_pipe(lambda x, t: -x * (1 + x.square())), (np.int64(32), 2), **options)  # type: ignore[arg-type]
    said = fast.solver.provenance  # type: ignore[union-attr]
    assert [type(said[name]) for name in ("nfe", "seed")] == [int, int]
    assert [type(size) for size in said["pilot"]] == [int, int]


@pytest.mark.parametrize("error", [KeyError, ValueError, LookupError, RuntimeError])
def test_an_error_of_the_network_is_what_the_caller_sees(error: type[Exception]) -> None:
    def wrong(x: Tensor, t: Tensor) -> Tensor:
        raise error("no such weights")

    with pytest.raises(error, match="no such weights"):
        fm.calibrate(_pipe(wrong), (32, 2), nfe=4)


def test_states_and_conditions_that_the_network_does_not_take_are_refused_as_sampling_refuses_them() -> None:
    for cond, shape in ((None, (32, 3)), (torch.zeros(32), (32, 2))):
        with pytest.raises((ShapeError, ConditionError)) as sampling:
            _pipe().sample(shape, nfe=4, seed=0, cond=cond)
        with pytest.raises(type(sampling.value)) as calibrating:
            fm.calibrate(_pipe(), shape, nfe=4, cond=cond)
        assert str(calibrating.value) == str(sampling.value)
    labelled = _pipe(classes=3)
    for cond in (None, torch.full((32,), 7)):
        with pytest.raises(ConditionError, match="labels"):
            fm.calibrate(labelled, (32, 2), nfe=4, cond=cond)
