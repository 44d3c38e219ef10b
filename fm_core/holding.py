"""Which networks a part holds: a model its own, a guidance a classifier, a codec an autoencoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from torch import nn

from fm_core.building import origin

__all__ = ["held_networks"]


def held_networks(*parts: Any) -> list[nn.Module]:
    """The networks with weights that parts hold, in their attributes or in the options they were built with.

    >>> [type(net).__name__ for net in held_networks({"classifier": nn.Linear(2, 3)}, None)]
    ['Linear']

    Args:
        parts: Components, networks, and lists, tuples and mappings of them; what else there is holds none.

    Returns:
        Every network once, in the order in which they are met.
    """
    found: dict[int, nn.Module] = {}
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no other takes its id

    def visit(part: Any) -> None:
        if id(part) in seen:
            return
        seen[id(part)] = part
        if isinstance(part, nn.Module):
            if part.state_dict():
                found[id(part)] = part
            return
        for inner in _inside(part):
            visit(inner)

    visit(parts)
    return list(found.values())


def _inside(part: Any) -> Iterable[Any]:
    """What a part is made of."""
    if isinstance(part, Mapping):
        return part.values()
    if isinstance(part, list | tuple):
        return part
    spec = origin(part)
    fields = attrs.fields(type(part)) if attrs.has(type(part)) else ()
    return [getattr(part, field.name) for field in fields] + (list(spec.options.values()) if spec else [])
