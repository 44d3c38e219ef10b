"""Options against what a component's signature says of them.

Judged are values that a configuration can hold, that is strings, numbers, booleans, None, lists and dictionaries, by
annotations made of such. What takes a tensor, a network or a class of its own says itself what it wants of one.

    >>> [fits("3", int), fits(True, int), fits(3, float), fits([3], Sequence[int] | None), fits("3", Any)]
    [False, False, True, True, True]
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from numbers import Integral, Number, Real
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["fits", "misfit"]

_PLAIN = (str, Number, list, tuple, dict, type(None))


def misfit(signature: inspect.Signature, options: Mapping[str, Any]) -> str | None:
    """What is wrong with the first option that its annotation does not allow, or None.

    Args:
        signature: With its annotations evaluated; those left as strings are not judged.
        options: Values by the names of parameters.
    """
    for name, value in options.items():
        parameter = signature.parameters.get(name)
        if parameter is None or value is parameter.default or fits(value, parameter.annotation):
            continue
        return f"option {name!r} is {value!r}, of type {type(value).__name__}; expected {_named(parameter.annotation)}"
    return None


def fits(value: object, annotation: Any) -> bool:
    """Whether a value is of the type that an annotation names, as far as this can be told."""
    if not isinstance(value, _PLAIN) or not isinstance(annotation, Hashable):
        return True
    judge = _JUDGES.get(get_origin(annotation) or annotation)
    return judge is None or judge(value, get_args(annotation))


def _union(value: Any, members: tuple[Any, ...]) -> bool:
    return any(fits(value, member) for member in members)


def _one_of(value: Any, members: tuple[Any, ...]) -> bool:
    return any(value == member and isinstance(value, type(member)) for member in members)


def _is(kind: type) -> Callable[[Any, tuple[Any, ...]], bool]:
    return lambda value, _: isinstance(value, kind)


def _number(kind: type) -> Callable[[Any, tuple[Any, ...]], bool]:
    return lambda value, _: isinstance(value, kind) and not isinstance(value, bool)


def _items(value: Any, members: tuple[Any, ...]) -> bool:
    """A list stands for a tuple: configurations have no other."""
    if not isinstance(value, list | tuple) or not members:
        return isinstance(value, list | tuple)
    if members[-1] is Ellipsis:
        members = members[:1] * len(value)
    return len(members) == len(value) and all(map(fits, value, members))


def _sequence(value: Any, members: tuple[Any, ...]) -> bool:
    return _items(value, (*members, ...) if members else ())


_JUDGES: Mapping[Any, Callable[[Any, tuple[Any, ...]], bool]] = {
    Union: _union,
    types.UnionType: _union,
    Literal: _one_of,
    str: _is(str),
    bool: _is(bool),
    int: _number(Integral),
    float: _number(Real),
    None: _is(type(None)),
    type(None): _is(type(None)),
    tuple: _items,
    list: _sequence,
    Sequence: _sequence,
    Iterable: _sequence,
    dict: _is(Mapping),
    Mapping: _is(Mapping),
    Callable: lambda value, _: callable(value),
}


def _named(annotation: Any) -> str:
    """An annotation as one reads it."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_named, get_args(annotation)))
    if origin is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if annotation is type(None):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else _short(annotation)


def _short(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace("collections.abc.", "").replace("typing.", "")
