"""What the strength of a guidance does: off it changes nothing, near off little, and it leads to the condition."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import Tensor

from fm_core.building import import_target
from fm_core.field import Field
from fm_core.prediction import Prediction
from fm_core.protocols import Guidance, declared
from fm_core.testing.fields import PATHS
from fm_core.testing.guidances import LABELS, Conditional, guidance_of, guided, inputs
from fm_core.testing.kit import Failed, Skipped, Subject, at_most, check_of

__all__: list[str] = []


@check_of("guidance")
def off_is_the_identity(subject: Subject) -> float:
    """At the scale that turns it off it gives the plain prediction: 1 for an extrapolation, u + s·(c − u), else 0."""
    name, value = _strength(subject)
    guidance, shape = guidance_of(subject, **{name: value})
    error = _moved(guidance, shape)
    return at_most(error, 0.0 if declared(guidance, "off") else 1e-12, "off, it moves the prediction by")


@check_of("guidance")
def off_costs_nothing(subject: Subject) -> None:
    """At the scale that turns it off it says `off = True`, so that a field leaves it out and no run pays for it."""
    name, value = _strength(subject)
    if not declared(subject.build(**{name: value}), "off"):
        raise Failed(f"at {name} = {value:g}, which turns it off, it does not say off = True")


@check_of("guidance")
def near_off_is_near_the_plain(subject: Subject) -> float:
    """A strength near the one that turns it off moves the prediction by little: off is no case of its own.

    A strength that is larger by 0.001 moves it at most by 1/20 of what one larger by 1 does (where that is linear in
    the strength: by 1/1000). c + s·(c − u) moves it by half as much, whatever it does at the scale that is off.
    """
    name, value = _strength(subject)
    little, much = (_moved(*guidance_of(subject, **{name: value + more})) for more in (1e-3, 1.0))
    if not much > 1e-9:
        raise Skipped(f"at {name} = {value + 1:g} it does not move the prediction of the kit's field")
    why = f"{name} = {value + 1e-3:g} beside {value:g} moves the prediction, as a share of what {value + 1:g} does, by"
    return at_most(little / much, 0.05, why)


def _moved(guidance: Guidance, shape: tuple[int, ...]) -> float:
    """How far it moves the field's prediction, in the space where it acts."""
    path = PATHS["linear"]
    x, t, cond, until = inputs(shape)
    inner = Field(Conditional(path, shape=shape), path)
    kind = declared(guidance, "acts_on") or inner.native
    with torch.no_grad():
        given, plain = guidance.guide(inner, x, t, cond, until=until), inner.predict(x, t, cond, kind)
    return float((given - plain).abs().max())


def _strength(subject: Subject) -> tuple[str, float]:
    """The option that is its strength, and the value that turns it off.

    It is `scale`, off at 0 for a guidance that adds a term of its own (layer 1), else at 1; where there is none, the
    first option that is a number with which, at 0 or 1, the guidance says that it is off.

    Raises:
        Skipped: If there is none.
    """
    if subject.takes("scale"):
        return "scale", 0.0 if declared(subject.build(), "layer") == 1 else 1.0
    numbers = _numbers(subject)
    for name in numbers:
        for value in (0.0, 1.0):
            with contextlib.suppress(Exception):  # a value that this option cannot have
                if declared(subject.build(**{name: value}), "off"):
                    return name, value
    known = f"none of its numbers ({', '.join(numbers)}) turns it off" if numbers else "no option is a number"
    raise Skipped(f"it has no option scale, and {known}: what its strength is, is not known")


def _numbers(subject: Subject) -> list[str]:
    """Options whose default or example is a number."""
    target: Any = None if subject.given is not None else import_target(subject.component, subject.source)
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # an object, which takes none, or a callable written in C
        return []
    values = {name: subject.component.example.get(name, option.default) for name, option in parameters.items()}
    return [name for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)]


@check_of("guidance")
def towards_the_condition(subject: Subject) -> float:
    """What asks for answers with and without the condition, c and u, goes from u towards c: ⟨g − u, c − u⟩ > 0."""
    guidance, shape = guidance_of(subject)
    path = PATHS["linear"]
    model = Conditional(path, shape=shape)
    answer = guided(guidance, model, path, "velocity")
    if not {LABELS, *range(LABELS)} <= model.asked:
        raise Skipped("it does not ask the network both with and without the condition")
    x, t, cond, _ = inputs(shape)
    with torch.no_grad():
        c, u = (Field(model, path).predict(x, t, labels, "velocity") for labels in (cond, None))
    least = float(((answer - u) * (c - u)).flatten(1).sum(1).amin())
    if not least > 1e-9:
        why = "it stays at the answer without the condition, or goes away from the one with it: ⟨g − u, c − u⟩ ="
        raise Failed(f"{why} {least:.3g}", least)
    return least


@check_of("guidance")
def all_channels(subject: Subject) -> float:
    """An extrapolation reaches every channel: where c and u differ in all of them, so do guided and plain."""
    guidance, _ = guidance_of(subject)
    if declared(guidance, "layer") != 0:
        raise Skipped("it does not extrapolate")
    if not subject.takes("scale"):
        raise Skipped("it is not built with an option scale")
    if hasattr(guidance, "shape"):
        raise Skipped("it takes states of one shape only")
    path = PATHS["linear"]
    x, t, cond, _ = inputs(_Channels.shape)
    given = guided(subject.build(scale=4.0), _Channels(path), path, "velocity")
    plain = Field(_Channels(path), path).predict(x, t, cond, "velocity")
    least = float((given - plain).abs().amin())
    if least < 1e-6:
        raise Failed("some coordinates of (4, 2, 2) states are not guided", least)
    return least


class _Channels:
    """A velocity of four channels, which the label moves in all of them by amounts that differ."""

    predicts = (Prediction.VELOCITY,)
    null = LABELS
    shape = (4, 2, 2)

    def __init__(self, path: Any) -> None:
        self.path = path

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        move = torch.linspace(1, 2, 16, dtype=x_t.dtype).reshape(self.shape)
        label = torch.full((len(x_t),), LABELS) if cond is None else cond
        return move * (LABELS - label).reshape(-1, 1, 1, 1).sqrt() - 0.3 * x_t
