"""What is wrong with the installed plugins, and what to do about it: the findings behind `fm doctor`.

A finding is "broken" (a plugin, or a component whose target does not import), "warning" (what may not be meant: two
components of one name, a name that nothing bears) or "note" (blocked plugins, optional extras that are missing).
Everything is looked at alone; only Ctrl-C ends a diagnosis.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from attrs import field, frozen

from fm_core.building import import_target
from fm_core.discovery import VARIABLES, Plugin, Source, brief, installed, is_set, normalised, unmatched
from fm_core.errors import did_you_mean
from fm_core.extras import extras, lacking
from fm_core.registry import Registered, Registry

__all__ = ["Diagnosis", "Finding", "diagnose"]


@frozen
class Finding:
    """One thing to know.

    Args:
        severity: "broken", "warning" or "note".
        subject: What it is about: a plugin's name, `kind/name`, an extra, a variable.
        what: What is the matter, in one line.
        fix: What to do about it; empty where nothing is known to help.
        plugin: Entry-point name of the plugin at fault.
        distribution: Its distribution.
        version: That distribution's version.
        file: The file it was loaded from, or in which it failed.
        traceback: The full traceback; empty if nothing was raised.
    """

    severity: Literal["broken", "warning", "note"]
    subject: str
    what: str
    fix: str = ""
    plugin: str = ""
    distribution: str = ""
    version: str = ""
    file: str = ""
    traceback: str = field(default="", repr=False)


@frozen
class Diagnosis:
    """The state of everything that is installed.

    Args:
        environment: Versions and variables in force, by name.
        plugins: Every declared plugin.
        findings: What there is to know, the worst first.
    """

    environment: Mapping[str, str]
    plugins: tuple[Plugin, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken."""
        return not any(finding.severity == "broken" for finding in self.findings)


def diagnose(
    sources: Iterable[Source] | None = None, environ: Mapping[str, str] = os.environ, *, deep: bool = True
) -> Diagnosis:
    """Looks at every plugin and, if `deep`, imports the target of every component.

    Args:
        sources: Plugins to look at; by default the installed ones.
        environ: The environment; FM_PLUGINS_STRICT is shown and not obeyed, since it would end the diagnosis.
        deep: Whether targets are imported, which imports torch.
    """
    sources = installed() if sources is None else list(sources)
    registry = Registry(sources, {name: value for name, value in environ.items() if name != "FM_PLUGINS_STRICT"})
    found = [
        *_broken(registry.plugins()),
        *(_unimportable(registry) if deep else ()),
        *_duplicates(registry.components()),
        *_names_of_nothing(sources, environ),
        *_blocked(registry.plugins()),
        *_lacking(sources),
    ]
    found.sort(key=lambda finding: ("broken", "warning", "note").index(finding.severity))
    return Diagnosis(_environment(environ), registry.plugins(), tuple(found))


def _broken(plugins: Iterable[Plugin]) -> Iterator[Finding]:
    for plugin in plugins:
        if plugin.status == "broken":
            source = plugin.source
            yield Finding(
                "broken",
                source.name,
                plugin.reason,
                plugin.remedy,
                source.name,
                source.distribution,
                source.version,
                plugin.file,
                plugin.traceback,
            )


def _unimportable(registry: Registry) -> Iterator[Finding]:
    files = {plugin.source: plugin.file for plugin in registry.plugins()}
    for item in registry.components():
        try:
            import_target(item.component, item.source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            yield Finding(
                "warning" if lacking(item.distribution, error) else "broken",  # what is optional may be missing
                item.component.key,
                brief(error),
                "",  # the error says what helps
                item.plugin,
                item.distribution,
                item.version,
                files[item.source],
                "".join(traceback.format_exception(error)),
            )


def _duplicates(components: Iterable[Registered]) -> Iterator[Finding]:
    by_key: dict[str, list[Registered]] = {}
    for item in components:
        by_key.setdefault(item.component.key, []).append(item)
    for key, items in by_key.items():
        if len(items) < 2:
            continue
        what = f"several plugins provide it: {' and '.join(item.source.where for item in items)}"
        homes = [normalised(item.distribution) for item in items]
        # A stranger rather than a built-in.
        out = next((item for item in reversed(items) if normalised(item.distribution) != "fm-core"), items[-1])
        if len(set(homes)) == len(homes):
            names = " or ".join(repr(item.qualified) for item in items)
            fix = f"say which: {names}; or leave one out (FM_PLUGINS_BLOCK={out.distribution}:{out.plugin})"
            yield Finding("warning", key, f"{what}; the name alone is an error", fix)
        else:
            fix = f"leave one out (FM_PLUGINS_BLOCK={out.distribution}:{out.plugin}); only its authors can mend this"
            yield Finding("broken", key, what, fix, out.plugin, out.distribution, out.version)


def _names_of_nothing(sources: list[Source], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Names that block nothing; those that allow nothing are broken plugins."""
    for name in unmatched("FM_PLUGINS_BLOCK", sources, environ):
        hint = did_you_mean(name, [source.name for source in sources])
        yield Finding("warning", "FM_PLUGINS_BLOCK", f"it names {name!r}, which no installed plugin is called", hint)


def _blocked(plugins: Iterable[Plugin]) -> Iterator[Finding]:
    for plugin in plugins:
        if plugin.status == "blocked":
            source = plugin.source
            fix = "change the variable if you want it"
            yield Finding("note", source.name, plugin.blocked, fix, source.name, source.distribution, source.version)


def _lacking(sources: Iterable[Source]) -> Iterator[Finding]:
    for distribution in sorted({source.distribution for source in sources if source.version}):
        for extra in extras(distribution):
            if extra.missing:
                what = f"optional; not installed: {', '.join(extra.missing)}"
                fix = f"pip install '{extra.requirement}' if you want it"
                yield Finding("note", extra.requirement, what, fix, distribution=distribution)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    versions = {name: _version(name) for name in ("fm-core", "torch", "pluggy")}
    python = f"{platform.python_version()} ({sys.executable})"
    variables = {name: environ[name] for name in VARIABLES if environ.get(name)}
    if "FM_PLUGINS_STRICT" in variables and not is_set(environ, "FM_PLUGINS_STRICT"):
        del variables["FM_PLUGINS_STRICT"]
    return {"python": python, "platform": platform.platform(), **versions, **variables}


def _version(distribution: str) -> str:
    """As the metadata say, for an import of torch costs a second."""
    try:
        return importlib.metadata.version(distribution)
    except Exception:
        return "not installed"
