from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from fm_core import Component, registry
from fm_core.option_types import fits, misfit
from fm_core.registry import OptionError, Registry

GOOD: list[tuple[object, Any]] = [
    (3, int),
    (np.int64(3), int),
    (3, float),
    (np.float32(0.5), float),
    (True, bool),
    ("a", str),
    (None, int | None),
    ([1, 2], Sequence[int]),
    ((1, 2), Sequence[int] | None),
    ([0.5, 1], tuple[float, float]),
    ([1, 2, 3], tuple[int, ...]),
    ([[0, 1], [2]], Sequence[Sequence[float]]),
    ([1, "a"], list),
    ("bh1", Literal["bh1", "bh2"]),
    (None, Literal["bh1"] | None),
    ({"name": "linear"}, str | Mapping[str, Any]),
    (torch.ones(2), Sequence[float]),
    (torch.ones(()), float),
    (len, Callable[[str], int]),
    ("anything", Any),
    ("cpu", torch.device),
    ("3", inspect.Parameter.empty),
    ("3", "int"),
    ([1], {"not": "a type"}),
]
BAD: list[tuple[object, Any]] = [
    ("3", int),
    (2.5, int),
    (2.0, int),
    (True, int),
    (True, float),
    (None, float),
    (1j, float),
    (1, bool),
    (3, str),
    ("abc", Sequence[float]),
    ([1, "2"], Sequence[int]),
    ([0.5], tuple[float, float]),
    ({"a": 1}, list),
    ("bh3", Literal["bh1", "bh2"] | None),
    (3, str | Mapping[str, Any]),
    ("relu", Callable[[Tensor], Tensor]),
]


@pytest.mark.parametrize(("value", "annotation"), GOOD)
def test_what_an_annotation_allows_or_does_not_judge_passes(value: object, annotation: Any) -> None:
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), BAD)
def test_what_an_annotation_does_not_allow_is_found(value: object, annotation: Any) -> None:
    assert not fits(value, annotation)


def test_a_default_is_allowed_whatever_its_annotation_says() -> None:
    def made(order: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    signature = inspect.signature(made, eval_str=True)
    assert misfit(signature, {"order": None}) is None
    assert misfit(signature, {"order": "3"}) == "option 'order' is '3', of type str; expected int"


@pytest.mark.parametrize(
    ("kind", "name", "options", "expected"),
    [
        ("solver", "unipc", {"order": "3"}, "option 'order' is '3', of type str; expected int"),
        ("solver", "unipc", {"order": True}, "expected int"),
        ("solver", "unipc", {"shortcut": "bh3"}, "expected 'bh1' or 'bh2' or 'midpoint' or None"),
        ("path", "linear", {"sigma_min": "small"}, "expected float"),
        ("grid", "sigmas", {"levels": "abc"}, r"expected Sequence\[float\]"),
    ],
)
def test_the_registry_says_which_option_is_of_the_wrong_type(
    kind: str, name: str, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(OptionError, match=f"{kind}/{name} .*{expected}.*Its signature is {name}"):
        registry.build(kind, name, **options)


def test_annotations_for_mypy_alone_are_not_judged() -> None:
    def made(order: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
        return "made"

    own = Registry([])
    own.register(Component("metric", "made", made))
    assert own.build("metric", "made", order="3") == "made"
