"""What a plugin says: the components it offers, and the events it observes.

A plugin is a module or object named by an entry point in the group `fm.plugins`. To say what it has it imports neither
torch nor its own implementations, because a component names its target as a string:

    from fm_core import Component, hookimpl

    @hookimpl
    def fm_components() -> list[Component]:
        return [Component("solver", "heun", "my_package.heun:Heun", summary="order 2")]

Observers take only the arguments they name (`def fm_fit_step(step, loss)` is enough) and are called only where someone
implements them. They cannot stop a run: `fm_core.registry.notify` reports a failing observer once and goes on. An
observer that is to be switched on, and not to hear everything once it is installed, is a component of the kind
`observer`, and observes in a block: `with fm_core.observing("jsonl"): …`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import pluggy
from attrs import Attribute, field, frozen

from fm_core.errors import PluginError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from fm_core.fit.trainer import FitResult
    from fm_core.pipeline import Pipeline

__all__ = ["API", "KINDS", "PROJECT", "Component", "hookimpl", "hookspec"]

PROJECT = "fm"
"""Name under which pluggy finds the hooks."""

API = 1
"""Version of the protocols and hooks; a component written for another one is refused."""

KINDS = (
    "path",
    "model",
    "objective",
    "coupling",
    "solver",
    "grid",
    "guidance",
    "recipe",
    "dataset",
    "metric",
    "problem",
    "codec",
    "observer",
)
"""The kinds of component, in the order in which they are listed."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of its name."""

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@frozen
class Component:
    """One thing a plugin offers, by kind and name.

    >>> Component("solver", "heun", "my_package.heun:Heun").key
    'solver/heun'

    Args:
        kind: One of `KINDS`.
        name: Name in the registry, snake_case, unique within the kind and the distribution.
        target: `"module:attribute"`, imported on first use, or the object itself. A class or function is called with
            the options it is built with; any other object is used as it is. A recipe's target is a mapping of the
            arguments of `compose`.
        summary: One line for listings.
        reference: Where it comes from: paper, equation, URL.
        example: Options with which the conformance kit can build it.
        api: Version of the protocols it is written for.
        expected_failures: Checks of the conformance kit that it is known to fail, by name, each with the reason.

    Raises:
        PluginError: If a field is not as described.
    """

    kind: str = field()
    name: str = field()
    target: Any = field()
    summary: str = field(default="")
    reference: str = field(default="")
    example: Mapping[str, Any] = field(factory=dict)
    api: int = field(default=API)
    expected_failures: Mapping[str, str] = field(factory=dict)

    @property
    def key(self) -> str:
        """`kind/name`: how messages and the conformance kit name it."""
        return f"{self.kind}/{self.name}"

    @kind.validator
    def _known_kind(self, attribute: Attribute[str], kind: object) -> None:
        if kind not in KINDS:
            raise PluginError(f"{kind!r} is no kind of component; {did_you_mean(str(kind), KINDS)}")

    @name.validator
    def _snake_case(self, attribute: Attribute[str], name: object) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PluginError(
                f"a component's name is lower-case letters and digits joined by underscores, such as 'ot_cfm' "
                f"(':' and '/' have meanings in names); got {name!r} for a {self.kind}"
            )

    @target.validator
    def _importable_or_object(self, attribute: Attribute[Any], target: object) -> None:
        if isinstance(target, str):
            if not _REFERENCE.fullmatch(target):
                raise PluginError(
                    f"the target of {self.key} is 'module:attribute', such as 'my_package.heun:Heun'; got {target!r}"
                )
        elif target is None:
            raise PluginError(f"{self.key} has no target: give 'module:attribute' or the object itself, not None")
        elif self.kind == "recipe" and not isinstance(target, Mapping):
            raise PluginError(
                f"the target of {self.key} is a mapping of compose's arguments, such as {{'path': 'linear'}}; "
                f"got a {type(target).__name__}"
            )

    @summary.validator
    @reference.validator
    def _text(self, attribute: Attribute[str], text: object) -> None:
        if not isinstance(text, str):
            raise PluginError(f"the {attribute.name} of {self.key} is a string; got {text!r}")

    @expected_failures.validator
    def _reasons(self, attribute: Attribute[Mapping[str, str]], reasons: object) -> None:
        if not isinstance(reasons, Mapping) or not all(
            isinstance(x, str) and x for pair in reasons.items() for x in pair
        ):
            raise PluginError(f"the expected failures of {self.key} map checks by name to reasons; got {reasons!r}")

    @example.validator
    def _options(self, attribute: Attribute[Mapping[str, Any]], example: object) -> None:
        if not isinstance(example, Mapping) or not all(isinstance(name, str) for name in example):
            raise PluginError(f"the example of {self.key} maps options by name to values; got {example!r}")

    @api.validator
    def _version(self, attribute: Attribute[int], api: object) -> None:
        # An int of another version is a fair statement, refused on loading with the way to fix it.
        if not isinstance(api, int) or isinstance(api, bool):
            raise PluginError(f"the api of {self.key} is a whole number, {API} today; got {api!r}")


@hookspec
def fm_components() -> Sequence[Component]:
    """The components this plugin offers, as a list; called once, when plugins are first listed or looked up."""
    raise NotImplementedError


@hookspec
def fm_fit_start(pipeline: Pipeline, steps: int, batch_size: int) -> None:
    """Training is about to begin.

    Args:
        pipeline: The pipeline to be trained.
        steps: Optimizer steps that will be taken.
        batch_size: Samples in a step.
    """


@hookspec
def fm_fit_step(step: int, loss: SupportsFloat, lr: float) -> None:
    """An optimizer step was taken.

    Args:
        step: Its index, from 0.
        loss: The batch's mean loss, without gradient, possibly still on its device: `float(loss)` waits for it, so
            take it only as often as it is shown.
        lr: Learning rate it was taken with.
    """


@hookspec
def fm_fit_end(result: FitResult) -> None:
    """Training ended, early or not.

    Args:
        result: The weights and losses reached.
    """


@hookspec
def fm_sample_step(t: float, x: Tensor) -> None:
    """A solver reached a point of its grid.

    Args:
        t: Time of the state.
        x: The state, shape `(B, *D)`, detached: a copy of the observer's own, made only for those that ask for x.
    """


@hookspec
def fm_bench_record(record: Mapping[str, Any]) -> None:
    """A benchmark measured something.

    Args:
        record: JSON-able figures by name.
    """
