"""Parts as one types and prints them, in Python and on the command line.

name                         a registry name
name(option=value, …)        with options; values are JSON, and what is no JSON is a string
solver@grid                  a solver on a grid
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from fm_core.building import OptionError, origin, to_config

__all__ = ["label", "parse", "parse_pair"]

LONGEST = 60
"""Letters of a list that a label spells out."""

_PART = re.compile(r"\s*(?P<name>[^()@]*[^()@\s])\s*(\((?P<options>.*)\))?\s*", re.DOTALL)


def parse(text: str) -> dict[str, Any]:
    """The configuration of a part.

    >>> parse("unipc(order=3, shortcut=bh2)")
    {'name': 'unipc', 'order': 3, 'shortcut': 'bh2'}

    Raises:
        OptionError: For what is not of the form `name(option=value, …)`.
    """
    found = _PART.fullmatch(text)
    if found is None:
        alone = "; a solver's grid is a part of its own" if "@" in text else ""
        raise OptionError(f"a part is written name or name(option=value, …){alone}; got {text!r}")
    options: dict[str, Any] = {}
    pieces = _split(found["options"] or "", ",")
    for piece in pieces if pieces[-1].strip() else pieces[:-1]:
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
    if not all(part.strip() for part in (solver, *grid)):
        raise OptionError(f"a contender is written solver or solver@grid, such as 'heun@karras'; got {text!r}")
    return parse(solver), parse(grid[0]) if grid else None


def label(part: Any) -> str:
    """A part as it is typed; one with long lists, such as the weights of a fitted table, by a digest of its options.

    >>> label({"name": "unipc", "order": 3}), label("heun"), label({"name": "calibrated", "times": [0.25] * 20})
    ('unipc(order=3)', 'heun', 'calibrated(…527d)')
    """
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        part = to_config(part) if origin(part) is not None else {"name": type(part).__name__}
    own = {key: value for key, value in part.items() if key not in ("name", "kind")}
    if any(not isinstance(value, str) and len(_text(value)) > LONGEST for value in own.values()):
        text = json.dumps(own, sort_keys=True, default=str)
        return f"{part['name']}(…{hashlib.sha256(text.encode()).hexdigest()[:4]})"
    options = ", ".join(f"{key}={_text(value)}" for key, value in own.items())
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


def _split(text: str, at: str) -> list[str]:
    """The pieces of a text between separators that are in no brackets, at least one."""
    depth, pieces = 0, [""]
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == at and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces
