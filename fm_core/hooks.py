"""A plugin's hooks, enrolled with pluggy so that no plugin can trouble another.

pluggy looks at every attribute of what it registers, and compares it by `==` with all that is registered already. A
plugin is therefore handed to it in a cover that has its marked functions alone: a module's lazy names (PEP 562) stay
unimported, no property runs, and only identity is compared.
"""

from __future__ import annotations

import inspect
from types import ModuleType

from pluggy import HookCaller, HookImpl, PluginManager, PluginValidationError

from fm_core import hookspecs
from fm_core.errors import PluginError, did_you_mean
from fm_core.hookspecs import PROJECT

__all__ = ["enrol", "known_hooks", "new_manager"]


def new_manager() -> PluginManager:
    """A manager that knows the hooks and no plugin."""
    manager = PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def known_hooks(manager: PluginManager) -> list[str]:
    """Names of the hooks that exist."""
    return [name for name, caller in vars(manager.hook).items() if isinstance(caller, HookCaller) and caller.has_spec()]


def enrol(plugin: object, name: str, manager: PluginManager) -> dict[str, list[HookImpl]]:
    """Registers a plugin under a name and returns what it implements, by hook.

    Raises:
        PluginError: If the plugin or the name is registered already, or the plugin implements no hook, a hook that does
            not exist, takes arguments that its hook does not have, awaits, or wraps other plugins' hooks. Nothing of it
            is registered then.
    """
    for other, cover in manager.list_name_plugin():
        if isinstance(cover, _Cover) and cover.plugin is plugin:
            raise PluginError(f"it is the same object as {other}, which would hear of every event twice; uninstall one")
    if manager.has_plugin(name):
        raise PluginError(f"there is a {name} already: its distribution declares two plugins of this name")
    cover = _Cover(plugin)
    try:
        manager.register(cover, name)
        found = {
            caller.name: [implementation for implementation in caller.get_hookimpls() if implementation.plugin is cover]
            for caller in manager.get_hookcallers(cover) or []
        }
        _require_sound(plugin, found, known_hooks(manager))
    except PluginValidationError as error:
        manager.unregister(name=name)
        said = str(error).splitlines()
        # In one line, as listings show it, and without pluggy's first, which names the plugin again.
        raise PluginError("; ".join(line.strip() for line in (said[1:] or said) if line.strip())) from error
    except BaseException:
        manager.unregister(name=name)
        raise
    return found


class _Cover:
    """What pluggy sees of a plugin: its marked functions."""

    def __init__(self, plugin: object) -> None:
        self.plugin = plugin
        names = list(vars(plugin)) if isinstance(plugin, ModuleType) else dir(plugin)
        for name in names:
            if inspect.isroutine(inspect.getattr_static(plugin, name, None)):
                function = getattr(plugin, name)
                if isinstance(getattr(function, f"{PROJECT}_impl", None), dict):
                    setattr(self, name, function)

    def __dir__(self) -> list[str]:
        return [name for name in vars(self) if name != "plugin"]


def _require_sound(plugin: object, found: dict[str, list[HookImpl]], known: list[str]) -> None:
    if not found:
        raise PluginError(f"it implements no hook: nothing in {plugin!r} is marked with @fm_core.hookimpl")
    for name, implementations in found.items():
        if name not in known:
            raise PluginError(f"it implements the hook {name!r}, which does not exist; {did_you_mean(name, known)}")
        for implementation in implementations:
            if implementation.wrapper or implementation.hookwrapper:
                raise PluginError(f"its {name} is a hook wrapper; plugins stand alone and do not wrap each other")
            if inspect.iscoroutinefunction(implementation.function):
                raise PluginError(f"its {name} is an async function, which nobody awaits; make it a plain function")
