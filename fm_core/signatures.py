"""Values against what a signature says of them, before anything is computed from them.

Of a component's options, values that a configuration can hold are judged (strings, numbers, booleans, None, lists and
dictionaries), by annotations made of such: what takes a tensor or a class of its own says itself what it wants of one.
Of a function's arguments, tensors and other classes are judged too.

    >>> [fits("3", int), fits(True, int), fits(3, float), fits([3], Sequence[int] | None), fits("3", Any)]
    [False, False, True, True, True]
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Number, Real
from typing import Any, Literal, Union, get_args, get_origin

from fm_core.errors import ArgumentError

__all__ = ["check_arguments", "fits", "misfit", "signature_of"]

_PLAIN = (str, Number, list, tuple, dict, type(None))


def check_arguments(function: Callable[..., Any], **given: Any) -> None:
    """Refuses arguments that the function's annotations do not allow.

    Raises:
        ArgumentError: For the first of them, with its type and what is expected.
    """
    wrong = misfit(_own_signature(function), given, classes=True)
    if wrong:
        raise ArgumentError(f"{function.__name__}: {wrong}")


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature with its annotations evaluated, but for those that cannot be, as names imported for mypy alone.

    None for what has none, as some callables written in C.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    try:
        return inspect.signature(function, eval_str=True)
    except Exception:
        known = getattr(inspect.unwrap(function), "__globals__", {})
        evaluated = [one.replace(annotation=_evaluated(one.annotation, known)) for one in signature.parameters.values()]
        return signature.replace(parameters=evaluated)


_own_signature = functools.cache(signature_of)
"""Of functions that live as long as this library: kept, a component's would keep alive all that it holds."""


def _evaluated(annotation: Any, known: dict[str, Any]) -> Any:
    try:
        return eval(annotation, known) if isinstance(annotation, str) else annotation
    except Exception:
        return annotation


def misfit(signature: inspect.Signature | None, given: Mapping[str, Any], *, classes: bool = False) -> str | None:
    """What is wrong with the first value that its annotation does not allow, or None.

    Args:
        signature: With its annotations evaluated; those left as strings are not judged.
        given: Values by the names of parameters.
        classes: Whether annotations that are classes are judged too.
    """
    parameters = signature.parameters if signature else {}
    for name, value in given.items():
        parameter = parameters.get(name)
        if parameter is None or value is parameter.default or fits(value, parameter.annotation, classes=classes):
            continue
        return f"{name!r} is {_shown(value)}, of type {type(value).__name__}; expected {_named(parameter.annotation)}"
    return None


def fits(value: object, annotation: Any, *, classes: bool = False) -> bool:
    """Whether a value is of the type that an annotation names, as far as this can be told."""
    try:
        origin, members = _parts(annotation)
    except TypeError:  # it is no type: it cannot be hashed
        return True
    if origin is Union:
        return any(fits(value, member, classes=classes) for member in members)
    if isinstance(value, _PLAIN) and origin in _JUDGES:
        return _JUDGES[origin](value, members)
    told = isinstance(origin, type) and origin not in _ANYTHING and not getattr(origin, "_is_protocol", False)
    if classes and told:
        return isinstance(value, origin) or (origin in _MANY and isinstance(value, Iterable))
    return True


@functools.cache
def _parts(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """What an annotation is, with unions as `Union`, and what is in its brackets."""
    origin = get_origin(annotation) or annotation
    return Union if origin is types.UnionType else origin, get_args(annotation)


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


_MANY = (Sequence, Iterable, list, tuple)
_ANYTHING = (Any, inspect.Parameter.empty)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _named(annotation: Any) -> str:
    """An annotation as one reads it."""
    origin, members = _parts(annotation)
    if origin is Union:
        return " or ".join(map(_named, members))
    if origin is Literal:
        return " or ".join(map(repr, members))
    if annotation is type(None):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else _short(annotation)


def _short(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace("collections.abc.", "").replace("typing.", "")
