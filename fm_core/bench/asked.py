"""What any suite is asked for: folder, replicates, names and numbers, refused before anything runs.

asked = seeds_of(5, 3)                  (0, 1, 2, 3, 4)
names_of("heun")                        ("heun",)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any

from fm_core.errors import ArgumentError
from fm_core.naming import config_of

__all__ = ["folder_of", "names_of", "number_of", "numbers_of", "require_distinct", "seeds_of"]

MOST_SEEDS = 1000
"""Replicates of a cell at most: an interval of so many is of a thirtieth of the scatter, and all cells are listed."""


def folder_of(out: str | os.PathLike[str]) -> Path:
    """The folder of results.

    Raises:
        ArgumentError: For what is no path.
    """
    if not isinstance(out, str | os.PathLike) or not str(out):
        raise ArgumentError(f"out is the folder of results, such as 'out/bench'; got {out!r}")
    return Path(out)


def seeds_of(given: Iterable[int] | int | None, default: int) -> tuple[int, ...]:
    """The seeds of replicates: how many, from 0 on, or which.

    >>> seeds_of(None, 2), seeds_of(3, 2), seeds_of([100, 7], 2)
    ((0, 1), (0, 1, 2), (100, 7))

    Raises:
        ArgumentError: For none, for more than a thousand, and for what are no whole numbers ≥ 0.
    """
    said = f"seeds are how many, 5, or which, range(100, 105), whole numbers ≥ 0; got {given!r}"
    if given is None:
        given = default
    if _whole(given):
        given = range(int(given))  # type: ignore[arg-type]
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise ArgumentError(said)
    every = tuple(islice(given, MOST_SEEDS + 1))
    if len(every) > MOST_SEEDS:
        raise ArgumentError(f"{said}: more than {MOST_SEEDS:,}, each of which measures every cell anew; ask for fewer")
    seeds = tuple(dict.fromkeys(every))
    if not seeds or not all(_whole(seed) and seed >= 0 for seed in seeds):
        raise ArgumentError(said)
    return tuple(map(int, seeds))


def names_of(given: Any) -> tuple[Any, ...]:
    """Contenders, problems, tasks: one alone, or several.

    >>> names_of("heun"), names_of({"name": "heun"}), names_of(["heun", "euler"]), names_of(None)
    (('heun',), ({'name': 'heun'},), ('heun', 'euler'), ())
    """
    if given is None:
        return ()
    return (given,) if isinstance(given, str | Mapping) or not isinstance(given, Iterable) else tuple(given)


def require_distinct(what: str, given: Iterable[tuple[str, Any]], remedy: str) -> None:
    """Refuses different ones of one name, by which rows are known: those of one would be taken for the other's.

    Args:
        what: What they are.
        given: Each by its name: parts, or tuples of such.
        remedy: How to name them.

    Raises:
        ArgumentError: For two that are neither equal nor of one configuration.
    """
    found: dict[str, Any] = {}
    for name, one in given:
        if not _same(found.setdefault(name, one), one):
            raise ArgumentError(
                f"two different {what} are called {name!r}, by which their rows are known, so one would be taken for "
                f"the other; {remedy}"
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if a is b:
        return True
    known = config_of(a)
    if known is not None:
        return known == config_of(b)
    try:
        return bool(a == b)
    except Exception:  # as of what holds tensors
        return False


def number_of(what: str, given: int | None, default: int) -> int:
    """A whole number ≥ 1.

    Raises:
        ArgumentError: For anything else.
    """
    return default if given is None else _number(f"{what} is a whole number", given)


def numbers_of(what: str, given: Iterable[int] | int | None, default: Iterable[int]) -> tuple[int, ...]:
    """Whole numbers ≥ 1: one alone, or several.

    Raises:
        ArgumentError: For none, and for anything else.
    """
    if given is None:
        return tuple(default)
    said = f"{what} are whole numbers"
    found = dict.fromkeys(_number(said, one) for one in names_of(given))
    return tuple(found) if found else (_number(said, given),)


def _number(said: str, given: Any) -> int:
    if not _whole(given) or given < 1:
        raise ArgumentError(f"{said} ≥ 1; got {given!r}")
    return int(given)


def _whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)
