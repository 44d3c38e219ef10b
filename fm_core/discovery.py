"""Finds installed plugins by their entry points and loads each one alone.

pluggy's own loader stops at the first plugin that raises and skips a second plugin of the same entry-point name in
silence. This one records what went wrong with a plugin, beside where it came from, and goes on; whoever asks for
something of that plugin is told.

The environment decides what is loaded:

    FM_PLUGINS                    only these entry-point names, comma separated
    FM_PLUGINS_BLOCK              all but these; wins over FM_PLUGINS
    FM_PLUGINS_DISABLE_AUTOLOAD   nothing but what FM_PLUGINS names
    FM_PLUGINS_STRICT             a broken plugin is an error at once (for CI)

Where two distributions have a plugin of one name, `distribution:name` names one of them. Names are compared as PEP 503
compares distributions: `Flow_Zoo` is `flow-zoo`.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Literal

from attrs import field, frozen
from pluggy import HookImpl, PluginManager

from fm_core import hooks
from fm_core.errors import FMError, PluginError, did_you_mean
from fm_core.extras import providing
from fm_core.hooks import enrol, new_manager
from fm_core.hookspecs import API, Component

__all__ = [
    "GROUP",
    "VARIABLES",
    "Plugin",
    "Source",
    "brief",
    "discover",
    "installed",
    "is_set",
    "normalised",
    "remedy",
    "unmatched",
]

GROUP = "fm.plugins"
"""Entry-point group in which distributions name their plugins."""

VARIABLES = ("FM_PLUGINS", "FM_PLUGINS_BLOCK", "FM_PLUGINS_DISABLE_AUTOLOAD", "FM_PLUGINS_STRICT")
"""The environment's variables, as described above."""


@frozen
class Source:
    """A plugin as it is declared, before anything of it is imported.

    Args:
        name: Entry-point name.
        load: Imports and returns the plugin.
        distribution: Name of the distribution that declares it.
        version: That distribution's version; empty where pip knows nothing of it.
    """

    name: str
    load: Callable[[], object]
    distribution: str = "python"
    version: str = ""

    @property
    def where(self) -> str:
        """Name and provenance, as messages say it."""
        return f"plugin {self.name!r} of {self.distribution} {self.version}".rstrip()


@frozen(eq=False)
class Plugin:
    """A plugin after the attempt to load it.

    Args:
        source: Where it was declared.
        components: What it offers; for a broken plugin what it would have offered, as far as it got to say so.
        file: The file it was loaded from, or in which it failed; empty where unknown.
        error: What it failed with, traceback included.
        blocked: Why the environment keeps it from being loaded.
    """

    source: Source
    components: tuple[Component, ...] = ()
    file: str = ""
    error: BaseException | None = field(default=None, repr=False)
    blocked: str = ""

    @property
    def status(self) -> Literal["ok", "broken", "blocked"]:
        """Whether its components can be used."""
        return "blocked" if self.blocked else "ok" if self.error is None else "broken"

    @property
    def reason(self) -> str:
        """Why it cannot be used, in one line; empty if it can."""
        return self.blocked if self.error is None else brief(self.error)

    @property
    def remedy(self) -> str:
        """What the user can do about it; empty where nothing is known to help."""
        return "" if self.error is None else remedy(self.source, self.error)

    @property
    def traceback(self) -> str:
        """The full traceback of its failure; empty if there was none."""
        return "" if self.error is None else "".join(traceback.format_exception(self.error))


def discover(
    sources: Iterable[Source] | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[tuple[Plugin, ...], PluginManager]:
    """Loads every plugin that the environment allows, each alone.

    Args:
        sources: Plugins to load; by default the installed ones.
        environ: The variables above.

    Returns:
        The plugins, ordered by distribution and name, and a manager in which the healthy ones are registered.

    Raises:
        PluginError: Under `FM_PLUGINS_STRICT`, if any plugin is broken.
    """
    manager = new_manager()
    found = list(installed() if sources is None else sources)
    found += [_not_installed(name, found) for name in unmatched("FM_PLUGINS", found, environ)]
    found.sort(key=lambda source: (normalised(source.distribution), source.name))
    plugins = tuple(_load(source, manager, _blocked(source, environ)) for source in found)
    broken = [plugin for plugin in plugins if plugin.status == "broken"]
    if broken and is_set(environ, "FM_PLUGINS_STRICT"):
        listed = "\n".join(f"  {plugin.source.where}: {plugin.reason}" for plugin in broken)
        raise PluginError(
            f"broken plugins, which FM_PLUGINS_STRICT does not allow:\n{listed}\n"
            "Repair or uninstall them, leave them out by FM_PLUGINS_BLOCK, or unset FM_PLUGINS_STRICT."
        ) from broken[0].error
    return plugins, manager


def installed() -> list[Source]:
    """The plugins that installed distributions declare, by one scan of their metadata; nothing is imported."""
    sources: list[Source] = []
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            # Few distributions have plugins, and reading this one file is far cheaper than parsing the metadata.
            if GROUP not in (distribution.read_text("entry_points.txt") or ""):
                continue
            metadata = distribution.metadata
            name, version = metadata["Name"], metadata["Version"] or "of no version"
            if not name:  # a half-removed installation
                raise ValueError("it has entry points, and no METADATA that names it; remove its folder, or install it")
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        except Exception as error:
            home = f"a distribution in {distribution.locate_file('')}"
            sources.append(Source("unreadable metadata", _raiser(error), home))
            continue
        # The first on sys.path is the one that imports; a second copy would declare its plugins twice.
        if normalised(name) not in seen:
            seen.add(normalised(name))
            sources.extend(Source(entry.name, entry.load, name, version) for entry in entries)
    return sources


def normalised(distribution: str) -> str:
    """A distribution's name as PEP 503 compares it.

    >>> normalised("Flow_Zoo")
    'flow-zoo'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


def brief(error: BaseException) -> str:
    """An error in one line.

    >>> brief(SystemExit(2))
    'SystemExit: 2'
    """
    try:
        text = next(iter(str(error).strip().splitlines()), "")
    except Exception:
        text = "an error that cannot say what it is"
    # This library's errors say what is wrong; of others the type is half of the message.
    return text if isinstance(error, FMError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def remedy(source: Source, error: BaseException) -> str:
    """What the user can do where something of a plugin fails to import; empty where nothing is known to help."""
    steps = []
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = providing(source.distribution, error.name) if source.version else ""
        steps.append(f"pip install '{extra}'" if extra else f"install what provides {error.name!r}")
    if source.version:
        steps.append(f"update {source.distribution} (pip install --upgrade {source.distribution}) or uninstall it")
        steps.append(f"leave the plugin out (FM_PLUGINS_BLOCK={source.name})")
    return f"What helps: {'; '.join(steps)}." if steps else ""


def _load(source: Source, manager: PluginManager, blocked: str) -> Plugin:
    if blocked:
        return Plugin(source, blocked=blocked)
    plugin: object = None
    components: list[Component] = []
    enrolled = False
    try:
        plugin = source.load()
        implemented = enrol(plugin, source.where, manager)
        enrolled = True
        for implementation in implemented.get("fm_components", []):
            components += _offered(implementation)
        _refuse_unusable(components)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and what is no Exception by mistake, as a panic in Rust is
        if enrolled:
            manager.unregister(name=source.where)
        return Plugin(source, tuple(components), _file(plugin) or _file_of_failure(error), error)
    return Plugin(source, tuple(components), _file(plugin))


def _offered(implementation: HookImpl) -> list[Component]:
    components = implementation.function()
    if not isinstance(components, list | tuple):
        raise PluginError(f"its fm_components returned {components!r}, where a list of Component is due")
    for component in components:
        if not isinstance(component, Component):
            raise PluginError(
                f"its fm_components returned a list with {component!r} in it, where only Component is due"
            )
    return list(components)


def _refuse_unusable(components: Sequence[Component]) -> None:
    seen: set[str] = set()
    for component in components:
        if component.api != API:
            raise PluginError(
                f"its {component.key} is written for api {component.api} and this fm-core speaks api {API}: "
                f"{'update fm-core' if component.api > API else 'update the plugin'}"
            )
        if component.key in seen:
            raise PluginError(f"it offers {component.key} twice")
        seen.add(component.key)


def _blocked(source: Source, environ: Mapping[str, str]) -> str:
    """Why the environment keeps a plugin out; empty if it does not."""
    allowed = _names(environ, "FM_PLUGINS")
    if _is_named(source, _names(environ, "FM_PLUGINS_BLOCK")):
        return "named by FM_PLUGINS_BLOCK"
    if allowed and not _is_named(source, allowed):
        return "not named by FM_PLUGINS"
    if not allowed and is_set(environ, "FM_PLUGINS_DISABLE_AUTOLOAD"):
        return "FM_PLUGINS_DISABLE_AUTOLOAD is set"
    return ""


def unmatched(variable: str, sources: Iterable[Source], environ: Mapping[str, str] = os.environ) -> list[str]:
    """What FM_PLUGINS or FM_PLUGINS_BLOCK names that no distribution declares, sorted: most likely a typing error."""
    return sorted(name for name in _names(environ, variable) if not any(_is_named(item, {name}) for item in sources))


def is_set(environ: Mapping[str, str], variable: str) -> bool:
    """Whether a variable that is a switch is on: neither empty nor 0."""
    return environ.get(variable, "") not in {"", "0"}


def _names(environ: Mapping[str, str], variable: str) -> set[str]:
    return {name for part in environ.get(variable, "").split(",") if (name := part.strip())}


def _is_named(source: Source, names: Iterable[str]) -> bool:
    own = normalised(source.name)
    return not {own, f"{normalised(source.distribution)}:{own}"}.isdisjoint(map(normalised, names))


def _not_installed(name: str, sources: Iterable[Source]) -> Source:
    known = (source.name for source in sources)
    why = f"FM_PLUGINS names it, but no installed distribution declares it; {did_you_mean(name, known)}"
    return Source(name, _raiser(PluginError(why)), "no distribution")


def _raiser(error: Exception) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


def _file(plugin: object) -> str:
    """The file of a module, or of the module in which an object's class is defined."""
    try:
        module = plugin if isinstance(plugin, ModuleType) else sys.modules.get(getattr(plugin, "__module__", ""))
        file = getattr(module, "__file__", None)
    except Exception:  # a plugin may answer for any attribute
        return ""
    return file if isinstance(file, str) else ""


def _file_of_failure(error: BaseException) -> str:
    """The first file that a failed import went through outside the import machinery: the plugin's own."""
    machinery = ("<frozen", os.path.dirname(importlib.__file__), __file__, hooks.__file__)
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(machinery):
            return frame.filename
    return (error.filename or "") if isinstance(error, SyntaxError) else ""
