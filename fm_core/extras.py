"""Optional extras: what a distribution can use beyond what it needs, and whether it is there.

Read from the metadata of installed distributions (`Provides-Extra`, `Requires-Dist`); nothing is imported.

References:
    Core metadata specification. https://packaging.python.org/en/latest/specifications/core-metadata/
"""

from __future__ import annotations

import importlib.metadata
import re

from attrs import frozen

__all__ = ["Extra", "extras", "lacking", "providing"]

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(?:;(.*))?", re.DOTALL)
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


@frozen
class Extra:
    """One optional extra of a distribution.

    Args:
        distribution: The distribution that has it.
        name: Its name.
        requires: The distributions it stands for.
        missing: Those of them that are not installed.
    """

    distribution: str
    name: str
    requires: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """What pip installs it by: `distribution[name]`."""
        return f"{self.distribution}[{self.name}]"


def extras(distribution: str) -> list[Extra]:
    """The extras of an installed distribution, by name; none where nothing is known of it.

    >>> extras("no-such-distribution-anywhere")
    []
    """
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except Exception:  # not installed, or its metadata cannot be read: then there is nothing to say
        return []
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        parsed = _REQUIREMENT.match(requirement)
        for extra in _EXTRA.findall(parsed[2] or "") if parsed else ():
            found.setdefault(extra, []).append(parsed[1] if parsed else "")
    return [
        Extra(distribution, name, tuple(names), tuple(filter(_is_missing, names)))
        for name, names in sorted(found.items())
    ]


def providing(distribution: str, module: str) -> str:
    """The extra of a distribution, as pip installs it, that brings a module; empty where none is known to.

    A module's name tells its distribution only if they are called alike, or the extra is called like the module, as
    `ot` (POT) is.
    """
    top = _plain(module.partition(".")[0])
    lacking = [extra for extra in extras(distribution) if extra.missing]
    # An extra of its own before one for developers that happens to hold it too.
    for extra in sorted(lacking, key=lambda extra: (_plain(extra.name) != top, len(extra.requires))):
        if _plain(extra.name) == top or top in map(_plain, extra.missing):
            return extra.requirement
    return ""


def _is_missing(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking(distribution: str, error: BaseException | None) -> str:
    """The extra, `distribution[name]`, that brings the module whose lack led to an error; empty where none does.

    >>> lacking("fm-core", ValueError("no module is missing"))
    ''
    """
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return providing(distribution, error.name)
        error = error.__cause__ or error.__context__
    return ""
