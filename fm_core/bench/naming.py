"""Parts as one types and prints them: `dpm_solver_pp(order=3)@karras(rho=5)` is a solver on a grid.

name                         a registry name
name(option=value, …)        with options; values are JSON, and what is no JSON is a string
solver@grid                  a solver on a grid
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fm_core.building import OptionError, origin, to_config

__all__ = ["label", "parse", "parse_pair"]

_PART = re.compile(r"\s*(?P<name>[^()@\s]+)\s*(\((?P<options>.*)\))?\s*", re.DOTALL)


def parse(text: str) -> dict[str, Any]:
    """The configuration of a part.

    >>> parse("unipc(order=3, shortcut=bh2)")
    {'name': 'unipc', 'order': 3, 'shortcut': 'bh2'}

    Raises:
        OptionError: For what is not of the form `name(option=value, …)`.
    """
    found = _PART.fullmatch(text)
    if found is None:
        raise OptionError(f"a part is written name or name(option=value, …); got {text!r}")
    options: dict[str, Any] = {}
    for piece in _split(found["options"] or "", ","):
        name, equals, value = piece.partition("=")
        if not equals or not name.strip().isidentifier():
            raise OptionError(f"options are written option=value; got {piece.strip()!r} in {text!r}")
        options[name.strip()] = _value(value.strip())
    return {"name": found["name"], **options}


def parse_pair(text: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The configurations of a solver and of its grid, None where none is given.

    >>> parse_pair("heun@power(exponent=2)")
    ({'name': 'heun'}, {'name': 'power', 'exponent': 2})
    """
    solver, *grid = _split(text, "@")
    if len(grid) > 1:
        raise OptionError(f"a solver is on one grid, solver@grid; got {text!r}")
    return parse(solver), parse(grid[0]) if grid else None


def label(part: Any) -> str:
    """A part as it is typed.

    >>> label({"name": "unipc", "order": 3}), label("heun")
    ('unipc(order=3)', 'heun')
    """
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        part = to_config(part) if origin(part) is not None else {"name": type(part).__name__}
    options = ", ".join(f"{key}={_text(value)}" for key, value in part.items() if key not in ("name", "kind"))
    return f"{part['name']}({options})" if options else str(part["name"])


def _text(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return label(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip("'\"")


def _split(text: str, at: str) -> Iterator[str]:
    """The pieces of a text between separators that are in no brackets."""
    depth, piece = 0, ""
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == at and depth == 0:
            yield piece
            piece = ""
        else:
            piece += letter
    if piece.strip():
        yield piece
