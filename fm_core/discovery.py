"""Finds installed plugins by their entry points and loads each one alone.

pluggy's own loader stops at the first plugin that raises and skips a second plugin of the same entry-point name in
silence. This one records what went wrong with a plugin, beside where it came from, and goes on; whoever asks for
something of that plugin is told.

The environment decides what is loaded:

    FM_PLUGINS                    only these entry-point names, comma separated
    FM_PLUGINS_BLOCK              all but these; wins over FM_PLUGINS
    FM_PLUGINS_DISABLE_AUTOLOAD   nothing but what FM_PLUGINS names
    FM_PLUGINS_STRICT             a broken plugin is an error at once (for CI)
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
from pluggy import HookCaller, HookImpl, PluginManager, PluginValidationError

from fm_core import hookspecs
from fm_core.errors import FMError, PluginError, did_you_mean
from fm_core.hookspecs import API, PROJECT, Component

__all__ = ["GROUP", "Plugin", "Source", "brief", "discover", "installed", "normalised", "remedy"]

GROUP = "fm.plugins"
"""Entry-point group in which distributions name their plugins."""


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
    manager = PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    found = list(installed() if sources is None else sources)
    names = {source.name for source in found}
    found += [_not_installed(name, names) for name in _names(environ, "FM_PLUGINS") - names]
    found.sort(key=lambda source: (normalised(source.distribution), source.name))
    plugins = tuple(_load(source, manager, _blocked(source.name, environ)) for source in found)
    broken = [plugin for plugin in plugins if plugin.status == "broken"]
    if broken and _is_set(environ, "FM_PLUGINS_STRICT"):
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
            name, version = metadata["Name"], metadata["Version"]
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
    text = next(iter(str(error).splitlines()), "")
    # This library's errors say what is wrong; of others the type is half of the message.
    return text if isinstance(error, FMError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def remedy(source: Source, error: BaseException) -> str:
    """What the user can do where something of a plugin fails to import; empty where nothing is known to help."""
    steps = []
    if isinstance(error, ModuleNotFoundError) and error.name:
        steps.append(f"install what provides {error.name!r}")
    if source.version:
        steps.append(f"update {source.distribution} (pip install --upgrade {source.distribution}) or uninstall it")
        steps.append(f"leave the plugin out (FM_PLUGINS_BLOCK={source.name})")
    return f"What helps: {'; '.join(steps)}." if steps else ""


def _load(source: Source, manager: PluginManager, blocked: str) -> Plugin:
    if blocked:
        return Plugin(source, blocked=blocked)
    plugin: object = None
    components: list[Component] = []
    registered = False
    try:
        plugin = source.load()
        _refuse_twice(source, plugin, manager)
        registered = True  # from here on, also where it raises, pluggy may hold a part of its hooks
        _register(source, plugin, manager)
        for implementation in _implementations(plugin, manager).get("fm_components", []):
            components += _offered(implementation)
        _refuse_unusable(components)
    except (Exception, SystemExit) as error:
        if registered:
            manager.unregister(name=source.where)
        return Plugin(source, tuple(components), _file(plugin) or _file_of_failure(error), error)
    return Plugin(source, tuple(components), _file(plugin))


def _refuse_twice(source: Source, plugin: object, manager: PluginManager) -> None:
    first = manager.get_name(plugin)
    if first is not None:
        raise PluginError(f"it is the same object as {first}, which would hear of every event twice; uninstall one")
    if manager.has_plugin(source.where):
        raise PluginError(f"the entry points of {source.distribution} declare two plugins of this name")


def _register(source: Source, plugin: object, manager: PluginManager) -> None:
    try:
        manager.register(plugin, source.where)
    except PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error  # in one line, as listings show it


def _implementations(plugin: object, manager: PluginManager) -> dict[str, list[HookImpl]]:
    """What a registered plugin implements, by hook.

    Raises:
        PluginError: If that is nothing, a hook that does not exist, or a wrapper around other plugins' hooks.
    """
    found = {
        caller.name: [implementation for implementation in caller.get_hookimpls() if implementation.plugin is plugin]
        for caller in manager.get_hookcallers(plugin) or []
    }
    if not found:
        raise PluginError(f"it implements no hook: nothing in {plugin!r} is marked with @fm_core.hookimpl")
    known = [
        name for name, caller in vars(manager.hook).items() if isinstance(caller, HookCaller) and caller.has_spec()
    ]
    for name, implementations in found.items():
        if name not in known:
            raise PluginError(f"it implements the hook {name!r}, which does not exist; {did_you_mean(name, known)}")
        if any(implementation.wrapper or implementation.hookwrapper for implementation in implementations):
            raise PluginError(f"its {name} is a hook wrapper; plugins stand alone and do not wrap each other")
    return found


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


def _blocked(name: str, environ: Mapping[str, str]) -> str:
    """Why the environment keeps the plugin `name` out; empty if it does not."""
    allowed = _names(environ, "FM_PLUGINS")
    if name in _names(environ, "FM_PLUGINS_BLOCK"):
        return "named by FM_PLUGINS_BLOCK"
    if allowed and name not in allowed:
        return "not named by FM_PLUGINS"
    if not allowed and _is_set(environ, "FM_PLUGINS_DISABLE_AUTOLOAD"):
        return "FM_PLUGINS_DISABLE_AUTOLOAD is set"
    return ""


def _names(environ: Mapping[str, str], variable: str) -> set[str]:
    return {name for part in environ.get(variable, "").split(",") if (name := part.strip())}


def _is_set(environ: Mapping[str, str], variable: str) -> bool:
    return environ.get(variable, "") not in {"", "0"}


def _not_installed(name: str, names: Iterable[str]) -> Source:
    why = f"FM_PLUGINS names it, but no installed distribution declares it; {did_you_mean(name, names)}"
    return Source(name, _raiser(PluginError(why)), "no distribution")


def _raiser(error: Exception) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


def _file(plugin: object) -> str:
    """The file of a module, or of the module in which an object's class is defined."""
    module = plugin if isinstance(plugin, ModuleType) else sys.modules.get(getattr(plugin, "__module__", ""))
    return getattr(module, "__file__", None) or ""


def _file_of_failure(error: BaseException) -> str:
    """The first file that a failed import went through outside the import machinery: the plugin's own."""
    machinery = ("<frozen", os.path.dirname(importlib.__file__), __file__)
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(machinery):
            return frame.filename
    return (error.filename or "") if isinstance(error, SyntaxError) else ""
