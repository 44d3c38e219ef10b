"""Runs the conformance kit: from Python, from the terminal, and in a plugin's own tests.

results = check("solver/heun")                      # from Python
fm check solver/heun                                # from the terminal
@parametrize_plugin("my_plugin")                    # in the plugin's own tests
"""

from __future__ import annotations

import importlib
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen

from fm_core import registry
from fm_core.building import Spec, origin
from fm_core.discovery import Plugin, Source, brief, normalised
from fm_core.errors import FMError, PluginError, UnknownNameError, did_you_mean
from fm_core.hookspecs import KINDS, Component
from fm_core.registry import Registered
from fm_core.testing import building as _building  # noqa: F401  # its check is the first of every kind
from fm_core.testing.kit import CHECKS, Check, Failed, Figure, Skipped, Subject

__all__ = ["KitError", "Result", "check", "check_plugin", "checks", "components_of", "parametrize_plugin"]

_MODULES = {
    "path": "conversions",
    "model": "models",
    "objective": "objectives",
    "coupling": "couplings",
    "solver": "polynomials",
    "grid": "grids",
    "guidance": "posteriors",
    "recipe": "recipes",
    "dataset": "datasets",
    "metric": "metrics",
    "problem": "problems",
    "codec": "codecs",
}
"""By kind, the module of this package that holds its checks, or the last of them; a kind that has none is not here."""


class KitError(FMError, ImportError):
    """The conformance kit lacks what it runs on."""


@frozen
class Result:
    """What one check found of one component.

    Args:
        component: `kind/name`, and `kind/distribution:name` where several plugins have one: what `fm check` takes.
        plugin: Entry-point name of its plugin, and `distribution:name` where several have it: what `fm check` takes.
        check: Name of the check.
        status: "PASS", "FAIL", or "SKIP" (also for a failure that is expected: its reason is in `why`).
        figure: What was measured; None where nothing was, or it is not finite.
        why: What was found; for a failure beside what was expected.
        read: Where the property is explained.
    """

    component: str
    plugin: str
    check: str
    status: str
    figure: Figure
    why: str
    read: str


def checks(kind: str) -> dict[str, Check]:
    """Every check of a kind by name, in the order in which they run: by file, whatever was imported first.

    Raises:
        UnknownNameError: If there is no such kind.
        KitError: If hypothesis is not installed.
    """
    if kind not in KINDS:
        raise UnknownNameError(f"{kind!r} is no kind of component; {did_you_mean(str(kind), KINDS)}")
    if kind in _MODULES:
        try:
            importlib.import_module(f"fm_core.testing.{_MODULES[kind]}")
        except ModuleNotFoundError as error:
            if error.name != "hypothesis":
                raise
            raise KitError(
                "the conformance kit draws its inputs by hypothesis, which is not installed: "
                "pip install 'hypothesis>=6.115'"
            ) from error

    def place(of: Check) -> tuple[bool, bool, str, int]:
        module, line = of.run.__module__.rpartition(".")[2], of.run.__code__.co_firstlineno
        return module != "building", module != _MODULES.get(kind), module, line

    return {of.name: of for of in sorted(CHECKS[kind].values(), key=place)}


def check(
    component: object,
    *,
    kind: str | None = None,
    only: Iterable[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Result]:
    """Runs every check of a component's kind.

    Args:
        component: `"kind/name"` in the registry, a `Component`, what `components()` lists, an object that the registry
            built, or any object with `kind=`.
        kind: Kind of an object that the registry did not build.
        only: Names of the checks to run; all by default.
        expected_failures: Checks that are known to fail, by name, each with the reason, besides those that the
            component declares. They are reported as SKIP; one that passes is a FAIL, since what is declared is no
            longer so.

    Returns:
        One result for each check, in order. Nothing that a component does escapes: whatever it raises is a FAIL, also
        SystemExit and what is no Exception, but for Ctrl-C.

    Raises:
        UnknownNameError: If there is no such component, kind or check.
    """
    subject = _subject(component, kind)
    of_kind = checks(subject.component.kind)
    names = list(of_kind) if only is None else list(only)
    for name in (*names, *(expected_failures or ())):
        if name not in of_kind:
            raise UnknownNameError(_no_such(name, subject))
    expected = {**subject.component.expected_failures, **(expected_failures or {})}
    return [
        *(_examined(of_kind[name], subject, expected.get(name)) for name in names),
        *(_undeclarable(name, subject) for name in expected if name not in of_kind),
    ]


def check_plugin(name: str) -> list[Result]:
    """Runs every check of every component of a plugin, by its entry-point name or `distribution:name`.

    Raises:
        UnknownNameError, PluginError: As `components_of` does.
    """
    return [result for component in components_of(name) for result in check(component)]


def parametrize_plugin(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A pytest decorator that runs a test once for every check of every component of a plugin.

    The test takes one argument, `result`, and need only say `assert result.status != "FAIL", result.why`; a check that
    does not apply, or whose failure is expected, is skipped with its reason.

    Args:
        name: Entry-point name of the plugin, or `distribution:name`.

    Raises:
        UnknownNameError, PluginError: As `components_of` does.
    """
    import pytest

    cases = [
        pytest.param((component, name), id=f"{component.component.key}-{name}")
        for component in components_of(name)
        for name in checks(component.kind)
    ]

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        def run(case: tuple[Registered, str]) -> None:
            (result,) = check(case[0], only=[case[1]])
            if result.status == "SKIP":
                pytest.skip(result.why)
            test(result)

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return pytest.mark.parametrize("case", cases)(run)

    return decorate


def components_of(plugin: str) -> list[Registered]:
    """The components of a plugin, by its entry-point name, or by `distribution:name`: those of every plugin so named.

    Raises:
        PluginError: If a plugin of that name is broken or blocked, with the reason and what helps.
        UnknownNameError: If there is no plugin of that name, or none that has components.
    """
    named = [item for item in registry.plugins() if _is_called(item.source, plugin)]
    for item in named:
        if item.status != "ok":
            raise _unusable(item, [_qualified(other.source) for other in named if other.status == "ok"])
    found = [item for item in registry.components() if _is_called(item.source, plugin)]
    if not found and named:
        raise UnknownNameError(f"{named[0].source.where} has no components: there is nothing to examine")
    if not found:
        known = {item.source.name for item in registry.plugins()}
        raise UnknownNameError(f"no plugin {plugin!r} is installed; {did_you_mean(plugin, known)}; see fm plugins")
    return found


def _is_called(source: Source, name: str) -> bool:
    return normalised(name) in map(normalised, (source.name, _qualified(source)))


def _unusable(plugin: Plugin, others: list[str]) -> PluginError:
    """Which plugin cannot be examined, why, what helps, and how to reach others of its name."""
    helps = "Change the variable to examine it." if plugin.blocked else plugin.remedy or "See fm doctor."
    rest = f" To examine the other of this name say {' or '.join(map(repr, others))}." if others else ""
    error = PluginError(f"{plugin.source.where} is {plugin.status}: {plugin.reason}. {helps}{rest}")
    error.__cause__ = plugin.error
    return error


def _qualified(source: Source) -> str:
    return f"{source.distribution}:{source.name}"


def _names(subject: Subject) -> tuple[str, str]:
    """A component and its plugin, by names that no other bears."""
    of, source = subject.component, subject.source
    plugins = sum(_is_called(item.source, source.name) for item in registry.plugins())
    homes = sum(item.component.key == of.key for item in registry.components(of.kind))
    key = of.key if homes < 2 else f"{of.kind}/{source.distribution}:{of.name}"
    return key, source.name if plugins < 2 else _qualified(source)


def _subject(component: Any, kind: str | None) -> Subject:
    spec = origin(component)
    if isinstance(component, str):
        of_kind, _, name = component.partition("/")
        component = registry.find(of_kind, name)
    if isinstance(component, Registered):
        return Subject(component.component, component.source)
    if isinstance(component, Component):
        return Subject(component, Source("python", dict))
    spec = spec or Spec(kind or "", "given")
    if spec.kind not in KINDS:
        what = f"which kind of component is {type(component).__name__}? Say kind=…"
        raise UnknownNameError(f"{what}; {did_you_mean(spec.kind, KINDS)}")
    return Subject(Component(spec.kind, spec.name.rpartition(":")[2], component), Source("python", dict), component)


def _no_such(name: str, subject: Subject) -> str:
    kind = subject.component.kind
    return f"the kit has no check {name!r} for a {kind}; {did_you_mean(name, checks(kind))}"


def _undeclarable(name: str, subject: Subject) -> Result:
    """A component's own mistake, which must not stop the others from being examined."""
    why = f"declared as an expected failure, but {_no_such(name, subject)}"
    return Result(*_names(subject), name, "FAIL", None, why, "docs/conformance.md")


def _broken(subject: Subject) -> str | None:
    """Why the component cannot be built, None where it can."""
    try:
        subject.build()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return brief(error)
    return None


def _examined(of: Check, subject: Subject, expected: str | None) -> Result:
    status, figure, why = _run(of, subject)
    if expected is not None:
        status, why = _against_declaration(status, why, expected)
    measured = figure if figure is not None and math.isfinite(figure) else None
    return Result(*_names(subject), of.name, status, measured, why, of.read)


def _run(of: Check, subject: Subject) -> tuple[str, Figure, str]:
    try:
        figure = of.run(subject)
    except Failed as failed:
        return "FAIL", failed.figure, failed.why
    except Skipped as skipped:
        return "SKIP", None, str(skipped)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit, and what is no Exception by mistake, as a panic in Rust is
        if of.name != "builds" and (broken := _broken(subject)):
            return "SKIP", None, f"it cannot be built ({broken}): see the check builds"
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "FAIL", None, f"it raised {brief(error)} ({where.filename}:{where.lineno})"
    return "PASS", figure, of.promise


def _against_declaration(status: str, why: str, expected: str) -> tuple[str, str]:
    if status == "FAIL":
        return "SKIP", f"expected to fail: {expected}"
    if status == "PASS":
        return "FAIL", f"declared as an expected failure ({expected}), but it passes: remove the declaration"
    return status, why
