"""The guidance extrapolates from the unconditional answer through the conditional one, sample by sample."""

from __future__ import annotations

import fm_core as fm
import pytest
import torch
from torch import Tensor

from my_plugin.guidance import ClassifierFree

X, T = torch.tensor([[1.0], [2.0], [3.0]]), torch.full((3,), 0.5)
COND = torch.tensor([1.0, 2.0, 3.0])


def field(scale: float, null: float | None = 0.0) -> fm.Field:
    model = fm.Model(lambda x, t, cond: x * cond[:, None], predicts="velocity", null=null)
    return fm.Field(model, fm.build("path", "linear"), (ClassifierFree(scale),))


def test_scales_lie_on_the_line_through_both_answers() -> None:
    answers: dict[float, Tensor] = {s: field(s).predict(X, T, COND, "velocity") for s in (0.0, 1.0, 2.5)}
    assert torch.equal(answers[0.0], torch.zeros_like(X))
    assert torch.equal(answers[1.0], X * COND[:, None])
    torch.testing.assert_close(answers[2.5], 2.5 * X * COND[:, None])


def test_a_sample_does_not_depend_on_its_batch() -> None:
    alone = field(3.0).predict(X[:1], T[:1], COND[:1], "velocity")
    assert torch.equal(field(3.0).predict(X, T, COND, "velocity")[:1], alone)


@pytest.mark.parametrize(("cond", "null"), [(None, 0.0), (COND, None)])
def test_a_missing_condition_is_refused(cond: Tensor | None, null: float | None) -> None:
    with pytest.raises(fm.ConditionError, match="condition"):
        field(2.0, null).predict(X, T, cond, "velocity")
