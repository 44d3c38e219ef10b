"""Times and conditions meet states in one place, and only there."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch

from fm_core import ShapeError
from fm_core.shapes import batch_time, check_batch, map_tensors, over, tensors_of, time_dtype

SHAPES = [(1, 2), (4, 4), (4, 1), (7, 1, 8, 8), (3,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("t", [0.25, torch.tensor(0.25), torch.tensor(0.25, dtype=torch.float64)], ids=repr)
def test_every_form_of_one_time_becomes_one_per_sample(shape: tuple[int, ...], t: Any) -> None:
    time = batch_time(t, torch.zeros(shape))
    assert time.shape == (shape[0],)
    assert (time == 0.25).all()
    per_sample = torch.rand(shape[0])
    assert batch_time(per_sample, torch.zeros(shape)) is per_sample


@pytest.mark.parametrize(
    "t", [torch.zeros(3), torch.zeros(4, 1), torch.zeros(1), torch.zeros(4, 4)], ids=lambda t: str(tuple(t.shape))
)
def test_a_time_of_another_shape_is_refused_even_where_it_would_broadcast(t: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"\(4,\) for a state \(4, 4\); got"):
        batch_time(t, torch.zeros(4, 4))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_over_a_state_scale_each_sample(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """With B = D a bare product would scale the columns."""
    x, values = torch.rand(shape, dtype=dtype), torch.arange(1, shape[0] + 1, dtype=torch.float64)
    scaled = over(values, x) * x
    assert (scaled.shape, scaled.dtype) == (shape, dtype)
    for i, value in enumerate(values.tolist()):
        torch.testing.assert_close(scaled[i], x[i] * value)
    assert over(torch.tensor(2.0, dtype=torch.float64), x).dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_times_are_at_least_float32(dtype: torch.dtype, expected: torch.dtype) -> None:
    """bfloat16 rounds 999/1000 to 1, so its network would be asked at the data."""
    assert time_dtype(dtype) == expected
    assert batch_time(0.999, torch.zeros(2, 2, dtype=dtype)).dtype == expected
    assert float(batch_time(0.999, torch.zeros(2, 2, dtype=dtype))[0]) == pytest.approx(0.999, abs=1e-7)


Condition = namedtuple("Condition", ["label", "text"])


def test_conditions_are_any_pytree() -> None:
    tree = {"label": torch.arange(3), "more": [torch.zeros(3, 2), (None, "a")], "named": Condition(torch.ones(3), None)}
    doubled = map_tensors(lambda x: x * 2, tree)
    assert doubled["label"].tolist() == [0, 2, 4]
    assert doubled["more"][1] == (None, "a")
    assert isinstance(doubled["named"], Condition)
    assert doubled["named"].label.tolist() == [2, 2, 2]
    assert [tuple(x.shape) for x in tensors_of(tree)] == [(3,), (3, 2), (3,)]
    assert map_tensors(lambda x: x, None) is None
    check_batch(tree, 3, "cond")


@pytest.mark.parametrize("wrong", [torch.zeros(4), torch.tensor(1), [torch.zeros(3), torch.zeros(2, 3)]], ids=repr)
def test_conditions_of_another_batch_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ShapeError, match=r"cond must have the batch first: expected \(3, …\)"):
        check_batch({"a": torch.zeros(3), "b": wrong}, 3, "cond")
