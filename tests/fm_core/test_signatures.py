from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Component, registry
from fm_core.errors import ArgumentError
from fm_core.registry import OptionError, Registry
from fm_core.signatures import check_arguments, fits, misfit

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
    assert misfit(signature, {"order": "3"}) == "'order' is '3', of type str; expected int"


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


def test_classes_are_judged_in_arguments_alone() -> None:
    assert fits([1.0], Tensor)
    assert not fits([1.0], Tensor | None, classes=True)
    assert not fits(np.ones(2), Tensor | None, classes=True)
    assert fits(torch.ones(2), Tensor | None, classes=True)
    assert fits(np.linspace(0, 1, 3), Sequence[float], classes=True)
    assert fits(range(3), Sequence[int], classes=True)
    assert fits(torch.Size([2]), int | Sequence[int], classes=True)
    assert fits(object(), Any, classes=True)
    assert fits(object(), inspect.Parameter.empty, classes=True)


class Source(Protocol):
    def __call__(self, n: int) -> Tensor: ...


def function(x: Tensor, source: Source | None = None, nowhere: Nowhere | None = None) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_arguments_are_checked_beside_annotations_that_cannot_be_evaluated() -> None:
    check_arguments(function, x=torch.ones(1), source=lambda n: torch.ones(n), nowhere=3)
    with pytest.raises(ArgumentError, match=r"function: 'x' is \[1.0\], of type list; expected Tensor"):
        check_arguments(function, x=[1.0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"times": "abc"}, "'times' is 'abc', of type str"),
        ({"times": ["a", 1]}, "'times' is"),
        ({"steps": 2, "chunk": 2.5}, "'chunk' is 2.5, of type float; expected int or None"),
        ({"steps": 2, "compile": "bad"}, "expected bool or 'network'"),
        ({"steps": 2, "generator": 3}, "expected Generator or None"),
        ({"steps": 2, "on_step": 3}, "'on_step' is 3"),
        ({"steps": 2, "seed": "1"}, "a seed is a whole number ≥ 0; got '1', of type str"),
        ({"steps": 2, "seed": -1}, "a seed is a whole number ≥ 0; got -1"),
        ({"steps": 2, "seed": True}, "got True"),
    ],
)
def test_sampling_refuses_arguments_of_other_types(given: dict[str, Any], message: str) -> None:
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="euler")
    with pytest.raises(ArgumentError, match=message):
        pipe.sample((2, 2), **given)


def test_states_are_tensors_of_whole_shapes() -> None:
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="euler")
    with pytest.raises(ArgumentError, match=r"'x0' is (?s:.*), of type ndarray; expected Tensor or None"):
        pipe.sample(x0=np.ones((2, 2)), steps=2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"'shape' is \(2.5, 2\)"):
        pipe.sample((2.5, 2), steps=2)  # type: ignore[arg-type]
    assert pipe.sample(np.array([2, 2]), times=np.linspace(0, 1, 3), seed=0).x.shape == (2, 2)  # type: ignore[arg-type]


def test_one_number_is_one_seed_whatever_library_it_comes_from() -> None:
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="euler")
    one, other = (pipe.sample((2, 2), steps=1, seed=seed) for seed in (1, np.int64(1)))  # type: ignore[arg-type]
    assert torch.equal(one.x, other.x)
    assert type(other.seed) is int


def test_inverting_refuses_arguments_of_other_types() -> None:
    pipe = fm.compose(path="linear", model=fm.Model(lambda x, t: x, predicts="velocity"), solver="euler")
    with pytest.raises(ArgumentError, match=r"encode: 'chunk' is 2.5"):
        pipe.encode(torch.ones(1, 1), steps=2, chunk=2.5)  # type: ignore[arg-type]


def test_a_component_is_not_kept_alive_by_its_signature() -> None:
    def made(order: int = 1) -> str:
        return "made"

    own, gone = Registry([]), weakref.ref(made)
    own.register(Component("metric", "made", made))
    assert own.build("metric", "made", order=2) == "made"
    del own, made
    gc.collect()
    assert gone() is None


def test_methods_of_what_does_not_hash_and_annotations_that_fail_are_checked_by_name() -> None:
    class Bag(dict):  # type: ignore[type-arg]
        def made(self, order: 1 | int = 1) -> str:  # type: ignore[valid-type]
            return "made"

    own = Registry([])
    own.register(Component("metric", "made", Bag().made))
    assert own.build("metric", "made", order=2) == "made"
    with pytest.raises(OptionError, match="did you mean 'order'"):
        own.build("metric", "made", oder=2)
