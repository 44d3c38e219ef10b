"""What a planted defect is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from fm_core.hookspecs import KINDS, Component
from fm_core.testing.running import checks

__all__ = ["MUTANTS", "RIGHT", "Changed", "Mutant", "plant", "right", "table"]


@frozen
class Mutant:
    """A component with one defect.

    Args:
        kind: Its kind.
        check: The check that must catch it.
        defect: What is wrong, in a few words.
        target: The component's target.
        example: Options that it is built with.
        found: Where the defect was found, empty for one that was made up.
    """

    kind: str
    check: str
    defect: str
    target: Any
    example: Mapping[str, Any] = field(factory=dict)
    found: str = ""

    @property
    def component(self) -> Component:
        """It as a plugin would declare it."""
        return Component(self.kind, "mutant", self.target, self.defect, example=self.example)


MUTANTS: list[Mutant] = []
"""Every planted defect, in the order of the modules."""

RIGHT: list[Component] = []
"""Right components, which pass every check that applies to them."""


def plant(kind: str, check: str, defect: str, target: Any, *, found: str = "", **example: Any) -> None:
    """Plants a defect: `check` must FAIL the component of this kind with this target."""
    MUTANTS.append(Mutant(kind, check, defect, target, example, found))


def right(kind: str, name: str, target: Any, **example: Any) -> None:
    """Names a right component."""
    RIGHT.append(Component(kind, name, target, example=example))


class Changed:
    """An object with some of its attributes replaced.

    Args:
        of: The object.
        changes: Attributes by name; functions are called as they are, without the object.
    """

    def __init__(self, of: Any, **changes: Any) -> None:
        self._of = of
        self.__dict__.update(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def table() -> str:
    """The table of planted defects as Markdown: docs/mutations.md.

    Nothing is run: that each is caught is what the tests show.
    """
    lines = [
        "# Planted defects",
        "",
        "Every check of the conformance kit is proven by components that are wrong in one thing: the check fails them,",
        "while right components pass. The tests plant each of these defects; `fm check --mutations` prints this page.",
        f"There are {len(MUTANTS)}.",
    ]
    for kind in KINDS:
        order = list(checks(kind))
        planted = sorted((m for m in MUTANTS if m.kind == kind), key=lambda m: order.index(m.check))
        if planted:
            lines += ["", f"## {kind}", "", "| defect | found in | caught by |", "|---|---|---|"]
            lines += [f"| {m.defect} | {m.found} | [{m.check}]({_link(m)}) |" for m in planted]
    return "\n".join(lines) + "\n"


def _link(mutant: Mutant) -> str:
    return checks(mutant.kind)[mutant.check].read.removeprefix("docs/")
