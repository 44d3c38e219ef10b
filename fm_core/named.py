"""Small parts chosen by name: a name, a mapping `{"name": …, **options}`, or the part itself.

Configurations of objectives are made of these, so a saved pipeline can name them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fm_core.building import OptionError
from fm_core.errors import UnknownNameError, did_you_mean

__all__ = ["by_name"]


def by_name(value: str | Mapping[str, Any], known: Mapping[str, Callable[..., Any]], what: str) -> Any:
    """The part that a name or a mapping asks for.

    Args:
        value: A name, or a mapping with the key `name` and the part's options.
        known: What makes a part, by name.
        what: What the part is, for messages.

    Raises:
        UnknownNameError: For a name that is not known.
        OptionError: For a mapping without a name, and for options that the part does not take.

    >>> by_name({"name": "power", "p": 3}, {"power": lambda p=2: p}, "grid")
    3
    """
    options = {"name": value} if isinstance(value, str) else dict(value)
    name = options.pop("name", None)
    if name is None:
        raise OptionError(
            f"a {what} given as a mapping has the key 'name'; got {sorted(options)}; known: {sorted(known)}"
        )
    if name not in known:
        raise UnknownNameError(f"no {what} is called {name!r}; {did_you_mean(str(name), known)}")
    try:
        inspect.signature(known[name]).bind(**options)
    except TypeError as error:
        taken = ", ".join(inspect.signature(known[name]).parameters) or "none"
        raise OptionError(f"the {what} {name!r} does not take these options: {error}. Its options: {taken}") from None
    return known[name](**options)
