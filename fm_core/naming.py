"""Parts as one types and prints them, in Python and on the command line.

name                         a registry name
name(option=value, …)        with options
solver@grid                  a solver on a grid

Values are JSON, or strings, with quotes around them where they would read as JSON, or hold what ends a value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from fm_core.building import RESERVED, OptionError, origin, to_config

__all__ = ["config_of", "label", "parse", "parse_pair", "typed"]

LONGEST = 60
"""Letters of a list that a label spells out."""

OPENING, CLOSING = "([{", ")]}"
_NAME = re.compile(r"[^()@]*[^()@\s]")


def parse(text: str) -> dict[str, Any]:
    """The configuration of a part.

    >>> parse("unipc(order=3, shortcut=bh2)")
    {'name': 'unipc', 'order': 3, 'shortcut': 'bh2'}

    Raises:
        OptionError: For what is not of the form `name(option=value, …)`, and for an option that is given twice, or is
            called like what every part has.
    """
    name, bracket, rest = text.partition("(")
    inside, *more = _split(rest, ")") if bracket else ["", ""]
    if not _NAME.fullmatch(name.strip()) or len(more) != 1 or more[0].strip():
        alone = "; a solver's grid is a part of its own" if "@" in text else ""
        raise OptionError(f"a part is written name or name(option=value, …){alone}; got {text!r}")
    options: dict[str, Any] = {}
    pieces = _split(inside, ",")
    for piece in pieces if pieces[-1].strip() else pieces[:-1]:
        option, equals, value = (found.strip() for found in piece.partition("="))
        if not equals or not option.isidentifier() or option in RESERVED:
            raise OptionError(f"options are written option=value; got {piece.strip()!r} in {text!r}")
        if option in options:
            raise OptionError(f"the option {option!r} is given twice in {text!r}")
        options[option] = _value(value)
    return {"name": name.strip(), **options}


def typed(text: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A name and all options of it, those that are typed with it among them.

    >>> typed("unipc(order=3)", {"shortcut": "bh2"})
    ('unipc', {'order': 3, 'shortcut': 'bh2'})

    Raises:
        OptionError: As `parse` does, and for an option that is given twice.
    """
    if not {"(", "@"} & set(text):
        return text, dict(options)
    found = parse(text)
    name = found.pop("name")
    if twice := found.keys() & options.keys():
        raise OptionError(f"given in {text!r} and beside it: {', '.join(sorted(twice))}")
    return name, {**found, **options}


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
    part = config_of(part) or {"name": type(part).__name__}
    own = {key: value for key, value in part.items() if key not in RESERVED}
    if any(not _short(value) for value in own.values()):
        text = json.dumps(own, sort_keys=True, default=str)
        return f"{part['name']}(…{hashlib.sha256(text.encode()).hexdigest()[:4]})"
    options = ", ".join(f"{key}={_text(value)}" for key, value in own.items())
    return f"{part['name']}({options})" if options else str(part["name"])


def config_of(part: Any) -> dict[str, Any] | None:
    """The configuration of a part, however it is given; None for an object that the registry did not build.

    >>> config_of("heun"), config_of({"name": "heun"}), config_of(object())
    ({'name': 'heun'}, {'name': 'heun'}, None)
    """
    if isinstance(part, str):
        return parse(part)
    if isinstance(part, Mapping):
        return dict(part)
    return to_config(part) if origin(part) is not None else None


def _short(value: Any) -> bool:
    """Whether it is spelt out: a string, a part, and what takes few letters."""
    return isinstance(value, str) or (isinstance(value, Mapping) and "name" in value) or len(_text(value)) <= LONGEST


def _text(value: Any) -> str:
    """What reads as this value."""
    if isinstance(value, str) and value == value.strip() and _value(value) == value and _alone(value):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _alone(text: str) -> bool:
    """Whether nothing in it ends a value, or opens what does not close."""
    return all(_split(text + end, end) == [text, ""] for end in ",@)")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        quoted = len(text) > 1 and text[0] == text[-1] == "'"
        return text[1:-1] if quoted else text


def _split(text: str, at: str) -> list[str]:
    """The pieces of a text between separators that are in no brackets and no quoted value, at least one."""
    depth, quote, escaped, before, pieces = 0, "", False, "=", [""]
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
            escaped = letter == "\\" and not escaped
        elif letter in "\"'" and before in "=,:([{":
            quote = letter
        elif letter == at and depth == 0:
            pieces.append("")
            before = letter
            continue
        else:
            depth += (letter in OPENING) - (letter in CLOSING)
        before = before if letter.isspace() else letter
        pieces[-1] += letter
    return pieces
