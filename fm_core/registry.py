"""Names to objects: every component of every plugin, found by kind and name, imported on first use.

    build("solver", "heun")                      the only `heun`
    build("solver", "flow-zoo:heun")             that of one distribution, where several have one
    from_config("solver", "unipc(order=3)")      with options, as one types them
    from_config("path", {"name": "linear", "sigma_min": 1e-4})

This module's functions act on the `default` registry, of the installed plugins; a `Registry` of given plugins is a
value of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from attrs import evolve
from pluggy import PluginManager

from fm_core.building import RESERVED, OptionError, Spec, build_target, import_target, origin, remember, to_config
from fm_core.catalogue import Catalogue, Registered
from fm_core.discovery import Plugin, Source, discover
from fm_core.errors import PluginError, UnknownNameError
from fm_core.hooks import known_hooks
from fm_core.hookspecs import KINDS, Component
from fm_core.naming import parse, typed
from fm_core.observation import Observer, Observers, Owner, attending, observing_functions, present, tell

__all__ = [
    "KINDS",
    "Component",
    "OptionError",
    "Registered",
    "Registry",
    "Spec",
    "build",
    "components",
    "default",
    "find",
    "from_config",
    "load",
    "nested",
    "notify",
    "observers",
    "observing",
    "origin",
    "plugins",
    "recipe",
    "register",
    "remember",
    "to_config",
]


class Registry:
    """Components by kind and name. Plugins are loaded on first use, once, whichever thread comes first.

    >>> registry = Registry([])
    >>> registry.register(Component("metric", "size", len))
    >>> registry.find("metric", "size").qualified
    'python:size'

    Args:
        sources: Plugins to load; by default the installed ones.
        environ: The environment that decides which of them are loaded, as `fm_core.discovery` describes.
    """

    def __init__(self, sources: Iterable[Source] | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._sources = None if sources is None else tuple(sources)
        self._environ = environ
        self._lock = threading.RLock()
        self._loading = False
        self._found: tuple[Catalogue, dict[str, tuple[Observer, ...]]] | None = None
        self._added: dict[tuple[str, str], Registered] = {}

    def plugins(self) -> tuple[Plugin, ...]:
        """Every declared plugin, healthy, broken or blocked, ordered by distribution and name."""
        return self._catalogue().plugins

    def components(self, kind: str | None = None) -> list[Registered]:
        """Every usable component, or those of one kind, ordered by kind (as in `KINDS`), name and distribution.

        Raises:
            UnknownNameError: If there is no such kind.
        """
        return self._catalogue().components(kind)

    def register(self, component: Component) -> None:
        """Adds a component from Python, in place of one of its kind and name that was added so before.

        It shadows no plugin's component: where one has the same kind and name, both are reached by `distribution:name`,
        this one as `python:name`.
        """
        added = Registered(component, Source("python", dict))
        with self._lock:
            self._added = {**self._added, (component.kind, component.name): added}
            if self._found is not None:
                catalogue, listening = self._found
                self._found = evolve(catalogue, added=tuple(self._added.values())), listening

    def find(self, kind: str, name: str) -> Registered:
        """The component of a kind and name.

        Args:
            kind: One of `KINDS`.
            name: Its name, or `distribution:name`.

        Returns:
            The component with its provenance; nothing of it is imported.

        Raises:
            UnknownNameError: If no plugin provides it, or several do.
            PluginError: If the plugin that provides it is broken or blocked.
        """
        return self._catalogue().find(kind, name)

    def load(self, kind: str, name: str) -> Any:
        """The target of a component, imported if it is named by a string.

        Raises:
            UnknownNameError: As `find` does.
            PluginError: As `find` does, or if the target cannot be imported.
        """
        found = self.find(kind, name)
        return import_target(found.component, found.source)

    def build(self, kind: str, name: str, /, **options: Any) -> Any:
        """Builds a component: calls its class or function with the options; any other target is the object itself.

        Args:
            kind: One of `KINDS`.
            name: Its name, or `distribution:name`; with options in it, as one types them, as well.
            **options: What its class or function takes, by name; dictionaries with `kind` and `name` are built too,
                however deep.

        Returns:
            The object; `origin` tells what it was built from.

        Raises:
            OptionError: If it does not take these options, or refuses their values.
            UnknownNameError: As `find` does.
            PluginError: As `load` does.
        """
        name, options = typed(name, options)
        found = self.find(kind, name)
        built = {key: self.nested(value) for key, value in options.items()}
        return build_target(found.component, found.source, Spec(kind, name, built))

    def recipe(self, name: str) -> dict[str, Any]:
        """The arguments of `compose` that a recipe stands for.

        A part's bare name means that of the recipe's own distribution where several have one: a stranger's solver does
        not break the recipes of others.

        Raises:
            UnknownNameError, PluginError: As `find` does.
        """
        found = self.find("recipe", name)
        parts: Mapping[str, Any] = import_target(found.component, found.source)
        return {kind: self._own(kind, part, found) for kind, part in parts.items()}

    def _own(self, kind: str, part: Any, recipe: Registered) -> Any:
        if isinstance(part, str) and "(" in part:
            part = parse(part)
        if isinstance(part, Mapping) and "name" in part:
            return {**part, "name": self._own(kind, part["name"], recipe)}
        if not isinstance(part, str):
            return part
        same = self._catalogue().named(kind, part)
        own = [item for item in same if item.distribution == recipe.distribution]
        return own[0].qualified if len(same) > 1 and len(own) == 1 else part

    def from_config(self, kind: str, config: Any) -> Any:
        """The object that a configuration describes.

        Args:
            kind: Kind of the object.
            config: A name, or one with options as one types it, `"unipc(order=3)"`; a mapping
                `{"name": …, **options}`, in which dictionaries with `kind` and `name` are built too, however deep; or
                an object, which is returned as it is.

        Raises:
            OptionError: If the mapping has no name, or is of another kind, or has options that are not taken.
            UnknownNameError: As `find` does.
            PluginError: As `load` does.
        """
        if isinstance(config, str):
            return self.build(kind, config)
        if not isinstance(config, Mapping):
            return config
        named = isinstance(config.get("name"), str) and config.get("kind", kind) == kind
        if not named or not all(isinstance(key, str) for key in config):
            raise OptionError(
                f"a {kind} is given by its name, by a mapping {{'name': …, **options}}, or as an object; got {config!r}"
            )
        options = {key: value for key, value in config.items() if key not in RESERVED}
        return self.build(kind, config["name"], **options)

    def nested(self, value: Any) -> Any:
        """An option as a component takes it: mappings in it with `kind` and `name` are built, however deep they lie."""
        if isinstance(value, dict):
            if all(isinstance(value.get(key), str) for key in RESERVED):
                return self.from_config(value["kind"], value)
            return {key: self.nested(item) for key, item in value.items()}
        return [self.nested(item) for item in value] if isinstance(value, list) else value

    def observers(self, hook: str) -> Observers | None:
        """Who observes an event, to be told by `notify`; None where nobody does: then it costs nothing.

        Args:
            hook: Name of the hook, such as "fm_fit_step".

        Raises:
            UnknownNameError: If there is no such hook.
        """
        _, listening = self._ready()
        if hook not in listening:
            raise UnknownNameError(f"there is no hook {hook!r}; fm_core.hookspecs lists them")
        members = listening[hook] + present(hook)
        return Observers(hook, members) if members else None

    def notify(self, observers: Observers, **event: Any) -> None:
        """Tells every observer of an event. One that fails is reported once, as a warning, and stops nothing.

        Args:
            observers: What the method of this name returned.
            **event: Every argument of the hook.
        """
        tell(observers, event)

    def observing(self, *observers: Any) -> AbstractContextManager[None]:
        """A block in which more observers hear of what happens, in this thread, than those of installed plugins.

        Args:
            *observers: Each a registry name of the kind "observer", a mapping `{"name": …, **options}`, or an object
                with functions marked by `hookimpl`. Those with a method `close` are closed at the end of the block.

        Raises:
            PluginError: For an object that observes nothing, saying what is wrong with it.
            UnknownNameError, OptionError: As `from_config` does.
        """
        return attending([self.from_config("observer", observer) for observer in observers])

    def _catalogue(self) -> Catalogue:
        return self._ready()[0]

    def _ready(self) -> tuple[Catalogue, dict[str, tuple[Observer, ...]]]:
        if self._found is not None:
            return self._found
        with self._lock:
            if self._loading:  # the lock is reentrant: this is the very thread that loads
                raise PluginError(
                    "the registry was asked for something by a plugin that is being loaded. A plugin's module and its "
                    "fm_components only say what there is: look up and build in the functions that components name."
                )
            if self._found is None:
                self._loading = True
                try:
                    plugins, manager = discover(self._sources, self._environ)
                    self._found = Catalogue(plugins, tuple(self._added.values())), _listening(manager)
                finally:
                    self._loading = False
            return self._found


def _listening(manager: PluginManager) -> dict[str, tuple[Observer, ...]]:
    """Every hook with those who observe it, in pluggy's order."""
    listening: dict[str, tuple[Observer, ...]] = dict.fromkeys(known_hooks(manager), ())
    for name, plugin in manager.list_name_plugin():
        callers = manager.get_hookcallers(plugin) or []
        own = {hook.name: [found for found in hook.get_hookimpls() if found.plugin is plugin] for hook in callers}
        for hook, observers in observing_functions(own, Owner(name)).items():
            listening[hook] += observers
    return listening


default = Registry()
"""The registry of the installed plugins, on which this module's functions act."""

plugins = default.plugins
components = default.components
register = default.register
find = default.find
load = default.load
build = default.build
recipe = default.recipe
from_config = default.from_config
nested = default.nested
observers = default.observers
notify = default.notify
observing = default.observing
