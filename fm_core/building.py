"""Builds components and remembers what they were built from, so that saved files hold names and never import paths."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import weakref
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, field, frozen

from fm_core.discovery import Source, brief, remedy
from fm_core.errors import FMError, PluginError, SavedFileError, did_you_mean
from fm_core.hookspecs import Component
from fm_core.signatures import misfit, signature_of

__all__ = [
    "RESERVED",
    "OptionError",
    "Spec",
    "build_target",
    "import_target",
    "name_of",
    "origin",
    "remember",
    "to_config",
]

RESERVED = ("kind", "name")
"""Keys of a configuration that say what to build; all others are options."""


class OptionError(FMError, TypeError, ValueError):
    """Options that a component does not take, by name, type or value, or a configuration that names no component."""


@frozen
class Spec:
    """A component and the options it was built with.

    Args:
        kind: Its kind.
        name: Its registry name as it was asked for: `distribution:name` where that was needed.
        options: The options by name, as they were given.
    """

    kind: str
    name: str
    options: Mapping[str, Any] = field(factory=dict)


def import_target(component: Component, source: Source) -> Any:
    """The target of a component, imported if it is named by a string.

    Raises:
        PluginError: If it cannot be imported.
    """
    if not isinstance(component.target, str):
        return component.target
    module, _, attribute = component.target.partition(":")
    try:
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        why = f"{component.key} ({source.where}) cannot be imported from {component.target!r}: {brief(error)}."
        raise PluginError(f"{why} {remedy(source, error)}".rstrip()) from error


def build_target(component: Component, source: Source, spec: Spec) -> Any:
    """Calls a component's class or function with the options; any other target is the object itself.

    Raises:
        OptionError: If it does not take these options, or refuses their values.
        PluginError: If its target cannot be imported.
    """
    target = import_target(component, source)
    where = f"{component.key} ({source.where})"
    if isinstance(target, type | functools.partial) or inspect.isroutine(target):
        _require_options(target, spec.options, where, component.name)
        try:
            target = target(**spec.options)
        except Exception as error:
            if spec.options and _refused(error):
                given = ", ".join(f"{name}={_describe(value)}" for name, value in spec.options.items())
                raise OptionError(f"{where} cannot be built with {given}: {error.args[0]}") from error
            error.add_note(f"while building {where}")
            raise
    elif spec.options:
        given = ", ".join(map(repr, spec.options))
        raise OptionError(f"{where} is a ready-made {type(target).__name__} and takes no options; got {given}")
    remember(target, spec)
    return target


def _refused(error: Exception) -> bool:
    """Whether an error speaks of options: a component's own ValueError, or what a validator of attrs raises."""
    said = bool(error.args) and isinstance(error.args[0], str)
    validated = isinstance(error, TypeError) and any(isinstance(one, Attribute) for one in error.args)
    return said and not isinstance(error, FMError) and (isinstance(error, ValueError) or validated)


def remember(built: object, spec: Spec) -> None:
    """Notes where an object came from, in place of what was noted before.

    What cannot be weakly referenced has no origin. Nor is one noted for a factory that hands back one of its own
    arguments: it built nothing, and the object keeps the origin it has.
    """
    if any(built is option for option in spec.options.values()):
        return
    key = id(built)
    try:
        _ORIGINS[key] = (weakref.ref(built, functools.partial(_forget, _ORIGINS, key)), spec)
    except TypeError:
        return


def _forget(origins: dict[int, tuple[weakref.ref[Any], Spec]], key: int, _: object) -> None:
    """Takes the dictionary: when the interpreter ends, a module's own names are gone before the last objects are."""
    origins.pop(key, None)


def origin(built: object) -> Spec | None:
    """Where an object came from, or None if the registry did not build this very object."""
    reference, spec = _ORIGINS.get(id(built), (None, None))
    return spec if reference is not None and reference() is built else None


def name_of(part: object) -> str:
    """The registry name of a part, or the name of its class where the registry did not build it."""
    spec = origin(part)
    return spec.name if spec else type(part).__name__


def to_config(built: object) -> dict[str, Any]:
    """The configuration from which `from_config` builds an equal object: `{"name": …, **options}`.

    Options that the registry built themselves become `{"kind": …, "name": …, **options}`.

    Args:
        built: An object that `build` or `from_config` returned.

    Returns:
        A new dictionary of strings, finite numbers, booleans, None, lists and dictionaries.

    Raises:
        SavedFileError: If the object has no origin, or an option (which one is said) is neither such a value nor built
            by the registry.
    """
    spec = origin(built)
    if spec is None:
        raise SavedFileError(
            f"{_describe(built)} was not built by the registry, or is a copy of what was, so it has no name to save. "
            "Build it by name, as in fm.build('solver', 'heun'); register your own first: "
            "fm_core.registry.register(fm.Component(...))."
        )
    where = f"{spec.kind}/{spec.name}"
    for key in RESERVED:
        if key in spec.options:
            raise SavedFileError(f"{where} has an option called {key!r}, which configurations use for themselves")
    options = {key: _jsonable(value, f"option {key!r} of {where}") for key, value in spec.options.items()}
    return {"name": spec.name, **options}


# Keyed by id, because values with tensors in them neither hash nor compare. An entry goes when its object does, before
# the id can be used again.
_ORIGINS: dict[int, tuple[weakref.ref[Any], Spec]] = {}


def _require_options(target: Any, options: Mapping[str, Any], where: str, name: str) -> None:
    signature = signature_of(target)
    if signature is None:
        return
    try:
        signature.bind(**options)
    except TypeError as error:
        unknown = [option for option in options if option not in signature.parameters]
        hint = f" ({did_you_mean(unknown[0], signature.parameters)})" if unknown and signature.parameters else ""
        wrong: str | None = f"{error}{hint}"
    else:
        wrong = misfit(signature, options)
        wrong = f"option {wrong}" if wrong else None
    if wrong:
        raise OptionError(f"{where} cannot be built with these options: {wrong}. Its signature is {name}{signature}")


def _jsonable(value: Any, where: str) -> Any:
    nested = origin(value)
    if nested is not None:
        return {"kind": nested.kind, **to_config(value)}
    if value is None or isinstance(value, bool):
        return value
    # Enums and numpy's floats become the plain values that JSON gives back.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [_jsonable(item, f"item {i} of {where}") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value) and not set(RESERVED) <= set(value):
        return {key: _jsonable(item, f"{key!r} in {where}") for key, item in value.items()}
    raise SavedFileError(
        f"{where} cannot be saved: got {_describe(value)}, expected finite numbers, strings, booleans, None, lists and "
        "dictionaries of them, or objects that the registry built."
    )


def _describe(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
