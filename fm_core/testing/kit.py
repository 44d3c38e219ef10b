"""What a check of the conformance kit is, and what it measures with.

A check is a property that every right component of a kind has. It measures: it gives a figure and has a bound, so that
a component that passes says by how much. Inputs that vary are drawn by hypothesis, always the same ones, and a failure
shows the simplest input that it found.

    @check_of("grid")
    def ends(subject: Subject) -> float:
        'The grid begins and ends where the span does.'
        …
        return at_most(error, 1e-12, "distance of the grid's ends from the span's")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from attrs import frozen
from torch import Tensor

from fm_core import registry
from fm_core.building import Spec, build_target, import_target
from fm_core.discovery import Source
from fm_core.hookspecs import KINDS, Component

__all__ = ["CHECKS", "Check", "Failed", "Figure", "Skipped", "Subject", "at_most", "check_of", "worst_of"]

Figure = float | None


class Failed(Exception):
    """What a check raises where the property does not hold.

    Args:
        why: What was found, in one sentence.
        figure: What was measured.
    """

    def __init__(self, why: str, figure: Figure = None) -> None:
        super().__init__(why)
        self.why, self.figure = why, figure


class Skipped(Exception):
    """What a check raises where it does not apply, with the reason."""


@frozen(eq=False)
class Subject:
    """A component under examination.

    Args:
        component: What is declared.
        source: The plugin that declares it.
        given: The object itself where it was not built by the registry.
    """

    component: Component
    source: Source
    given: Any = None

    def build(self, **options: Any) -> Any:
        """A fresh object, with the component's example options and these, parts within them built as well."""
        if self.given is not None:
            return self.given
        whole = {**{key: registry.nested(value) for key, value in self.component.example.items()}, **options}
        return build_target(self.component, self.source, Spec(self.component.kind, self.component.name, whole))

    def takes(self, *names: str) -> bool:
        """Whether it is built with options of all these names."""
        if self.given is not None:
            return False
        target = import_target(self.component, self.source)
        try:
            return callable(target) and set(names) <= set(inspect.signature(target).parameters)
        except (TypeError, ValueError):  # some callables written in C have no signature
            return False


@frozen
class Check:
    """A property that every component of a kind has.

    Args:
        kind: Kind of component.
        name: Name of the check, snake_case.
        run: Examines a subject: gives the figure measured, raises `Failed` or `Skipped`.
        promise: The property, in one sentence.
    """

    kind: str
    name: str
    run: Callable[[Subject], Figure]
    promise: str

    @property
    def read(self) -> str:
        """Where the property is explained."""
        return f"docs/conformance.md#{self.kind}-{self.name.replace('_', '-')}"


CHECKS: dict[str, dict[str, Check]] = {kind: {} for kind in KINDS}
"""Every check by kind and name, in the order in which they run."""


def check_of(kind: str) -> Callable[[Callable[[Subject], Figure]], Callable[[Subject], Figure]]:
    """Makes a function a check of a kind: its name is the check's, the first paragraph of its docstring the promise."""

    def register(run: Callable[[Subject], Figure]) -> Callable[[Subject], Figure]:
        promise = " ".join((run.__doc__ or "").split("\n\n")[0].split())
        CHECKS[kind][run.__name__] = Check(kind, run.__name__, run, promise)
        return run

    return register


def at_most(figure: float, bound: float, what: str) -> float:
    """The figure, if it is at most `bound`.

    Raises:
        Failed: If it is more, or NaN.
    """
    if not figure <= bound:
        raise Failed(f"{what}: {figure:.3g}, at most {bound:.3g} is right", figure)
    return figure


def worst_of(measure: Callable[..., float], bound: float, what: str, *, examples: int = 20, **inputs: Any) -> float:
    """The largest of a measure over inputs that hypothesis draws.

    Args:
        measure: Gives an error ≥ 0 for inputs by name.
        bound: Largest error that is right.
        what: What the error is, for the message.
        examples: Inputs to try.
        inputs: A hypothesis strategy for every input.

    Raises:
        Failed: If an error is larger, or NaN, with the simplest inputs that show it.
    """
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings

    largest = 0.0

    def body(**values: Any) -> None:
        nonlocal largest
        error = float(measure(**values))
        if not error <= bound:
            shown = ", ".join(f"{name} = {_short(value)}" for name, value in values.items())
            raise Failed(f"{what}: {error:.3g} at {shown}; at most {bound:.3g} is right", error)
        largest = max(largest, error)

    quiet = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    quiet(given(**inputs)(body))()
    return largest


def _short(value: object) -> str:
    """A value as a message shows it: the numbers of a small tensor, the shape of a large one."""
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.numel() <= 8 else f"a tensor {tuple(value.shape)}"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
