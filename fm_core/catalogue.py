"""What there is by kind and name, and what is said of what there is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from fm_core.discovery import Plugin, Source, normalised
from fm_core.errors import FMError, PluginError, UnknownNameError, did_you_mean
from fm_core.hookspecs import KINDS, Component

__all__ = ["Catalogue", "Registered"]


@frozen
class Registered:
    """A component with its provenance.

    Args:
        component: What is offered.
        source: The plugin that offers it; "python" for what was registered from Python.
    """

    component: Component
    source: Source

    @property
    def kind(self) -> str:
        """The component's kind."""
        return self.component.kind

    @property
    def name(self) -> str:
        """The component's name, which one of another distribution may share."""
        return self.component.name

    @property
    def plugin(self) -> str:
        """Entry-point name of its plugin."""
        return self.source.name

    @property
    def distribution(self) -> str:
        """Distribution of its plugin."""
        return self.source.distribution

    @property
    def version(self) -> str:
        """Version of its distribution; empty if there is none."""
        return self.source.version

    @property
    def qualified(self) -> str:
        """`distribution:name`, which reaches it where the name alone does not."""
        return f"{self.distribution}:{self.name}"


SHOWN = 3
"""Broken plugins that a message about a missing name explains."""


@frozen(eq=False)
class Catalogue:
    """Plugins, and the components of those that are healthy.

    Args:
        plugins: Every declared plugin, healthy, broken or blocked.
        added: Components besides, each under a kind and name of its own.
    """

    plugins: tuple[Plugin, ...]
    added: Iterable[Registered] = ()
    _index: Mapping[tuple[str, str], tuple[Registered, ...]] = field(init=False, repr=False)

    @_index.default
    def _indexed(self) -> Mapping[tuple[str, str], tuple[Registered, ...]]:
        healthy = [plugin for plugin in self.plugins if plugin.status == "ok"]
        offered = (Registered(component, plugin.source) for plugin in healthy for component in plugin.components)
        index: dict[tuple[str, str], tuple[Registered, ...]] = {}
        for item in (*offered, *self.added):
            index[item.kind, item.name] = (*index.get((item.kind, item.name), ()), item)
        return index

    def components(self, kind: str | None = None) -> list[Registered]:
        """Every usable component, or those of one kind, ordered by kind (as in `KINDS`), name and distribution.

        Raises:
            UnknownNameError: If there is no such kind.
        """
        if kind is not None:
            _require_kind(kind)
        chosen = [item for items in self._index.values() for item in items if kind is None or item.kind == kind]
        return sorted(chosen, key=lambda item: (KINDS.index(item.kind), item.name, normalised(item.distribution)))

    def named(self, kind: str, name: str) -> tuple[Registered, ...]:
        """All components of a kind and name, or of `distribution:name`; none is one answer."""
        distribution, bare = _parted(name)
        found = self._index.get((kind, bare), ())
        return tuple(item for item in found if distribution in ("", normalised(item.distribution)))

    def find(self, kind: str, name: str) -> Registered:
        """The one component of a kind and name, or of `distribution:name`.

        Raises:
            UnknownNameError: If no plugin provides it, or several do.
            PluginError: If the plugin that provides it is broken or blocked.
        """
        _require_kind(kind)
        found = self.named(kind, name)
        if not found:
            raise self._not_found(kind, name)
        if len(found) > 1:
            raise _several(kind, name, found)
        return found[0]

    def _not_found(self, kind: str, name: str) -> FMError:
        distribution, bare = _parted(name)
        missing = [plugin for plugin in self.plugins if plugin.status != "ok"]
        likely = [plugin for plugin in missing if _may_provide(plugin, kind, bare, distribution)]
        if len(likely) == 1:
            (plugin,) = likely
            error = PluginError(f"the {kind} {name!r} is not available: {_state(plugin)}. {plugin.remedy}".rstrip())
            error.__cause__ = plugin.error
            return error
        everything = self.components()
        known = [item.name for item in everything if item.kind == kind]
        elsewhere = sorted({item.kind for item in everything if item.name == bare and item.kind != kind})
        healthy = sum(plugin.status == "ok" for plugin in self.plugins)
        likely = likely or missing
        hint = did_you_mean(bare, known)
        parts = [
            f"no {kind} is named {name!r}; {hint if hint.endswith('?') else hint + '.'}",
            *([f"There is a {' and a '.join(elsewhere)} of this name."] if elsewhere else []),
            f"Looked among {len(known)} of this kind in {healthy} plugins.",
            *(f"It may be in {_state(plugin, ', which')}." for plugin in likely[:SHOWN]),
            *([f"{len(likely) - SHOWN} more plugins are not available: see fm doctor."] if len(likely) > SHOWN else []),
        ]
        return UnknownNameError(" ".join(parts))


def _parted(name: str) -> tuple[str, str]:
    distribution, _, bare = name.rpartition(":")
    return normalised(distribution), bare


def _may_provide(plugin: Plugin, kind: str, name: str, distribution: str) -> bool:
    """Whether a plugin that cannot be used has the component, for all that is known of it."""
    if distribution and distribution != normalised(plugin.source.distribution):
        return False
    if plugin.components:
        return any((component.kind, component.name) == (kind, name) for component in plugin.components)
    return bool(distribution) or plugin.source.name == name


def _state(plugin: Plugin, link: str = "") -> str:
    return f"{plugin.source.where}{link} is {plugin.status} ({plugin.reason})"


def _several(kind: str, name: str, found: tuple[Registered, ...]) -> UnknownNameError:
    homes = " and ".join(item.source.where for item in found)
    names = sorted({item.qualified for item in found})
    if len(names) == len(found):
        choice = f"say which: {' or '.join(map(repr, names))}"
    else:
        choice = f"leave one out (FM_PLUGINS_BLOCK={found[-1].plugin}); only its authors can mend this"
    return UnknownNameError(f"several plugins provide the {kind} {name!r}: {homes}; {choice}.")


def _require_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UnknownNameError(f"there is no kind of component called {kind!r}; {did_you_mean(str(kind), KINDS)}")
