"""Observers of training, sampling and benchmarks: who hears of an event, and how they are told.

An observer is an object or module with functions marked `@fm_core.hookimpl` and named like the events of
`fm_core.hookspecs`. Those of installed plugins hear everything; others hear what happens in a block:

    with fm_core.observing({"name": "jsonl", "path": "run.jsonl"}):
        pipe.fit(x1, steps=1_000)

An observer cannot harm what it observes. What it raises is reported once, as a warning, and the run goes on; tensors
are handed to each as copies of its own, so that it may keep or change them.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from attrs import field, frozen
from pluggy import HookImpl

from fm_core.discovery import brief
from fm_core.errors import PluginError
from fm_core.hooks import enrol, new_manager

__all__ = ["Observer", "Observers", "Owner", "attending", "observing_functions", "present", "tell"]


@frozen(eq=False)
class Owner:
    """Who an observer's functions belong to; of one owner one failure is reported."""

    name: str
    _failed: list[bool] = field(factory=list, init=False, repr=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False, repr=False)

    def attempt(self, action: Callable[[], object], where: str) -> None:
        """Does it; reports what it raises, if nothing was reported before."""
        try:
            action()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            with self._lock:
                if self._failed:
                    return
                self._failed.append(True)
            warnings.warn(
                f"{self.name} failed in {where}: {brief(error)}. The run goes on; further failures of this observer "
                "are not reported.",
                RuntimeWarning,
                stacklevel=4,
            )


@frozen(eq=False)
class Observer:
    """One function that is told of an event.

    Args:
        owner: Whose it is.
        arguments: What of the event it wants to hear, by name.
        call: The function.
    """

    owner: Owner
    arguments: tuple[str, ...]
    call: Callable[..., object]


@frozen(eq=False)
class Observers:
    """Everyone who is told of an event, in order.

    Args:
        hook: Name of the event.
        members: The functions.
    """

    hook: str
    members: tuple[Observer, ...]


def observing_functions(
    implementations: Mapping[str, Iterable[HookImpl]], owner: Owner
) -> dict[str, tuple[Observer, ...]]:
    """The functions by which one plugin or object observes, by event."""
    return {
        hook: tuple(Observer(owner, tuple(found.argnames), found.function) for found in several)
        for hook, several in implementations.items()
    }


def tell(observers: Observers, event: Mapping[str, Any]) -> None:
    """Tells every observer of an event, each what it asks for.

    Raises:
        KeyError: If the event lacks an argument of its hook: the caller's mistake, no observer's.
    """
    for observer in observers.members:
        arguments = [event[name] for name in observer.arguments]
        observer.owner.attempt(lambda: observer.call(*map(_copied, arguments)), observers.hook)  # noqa: B023


_PRESENT: contextvars.ContextVar[tuple[dict[str, tuple[Observer, ...]], ...]] = contextvars.ContextVar(
    "fm_core_observers", default=()
)


def present(hook: str) -> tuple[Observer, ...]:
    """The functions that observe an event in this block, in the order in which the blocks were entered."""
    return tuple(observer for found in _PRESENT.get() for observer in found.get(hook, ()))


@contextlib.contextmanager
def attending(observers: Iterable[object]) -> Iterator[None]:
    """A block in which these objects observe; those with a method `close` are closed at its end.

    Raises:
        PluginError: For an object that observes nothing, saying what is wrong with it.
    """
    found = [(observer, Owner(f"the observer {type(observer).__name__}")) for observer in observers]
    hearing = tuple(observing_functions(_implemented(observer, owner), owner) for observer, owner in found)
    token = _PRESENT.set(_PRESENT.get() + hearing)
    try:
        yield
    finally:
        _PRESENT.reset(token)
        for observer, owner in found:
            if callable(close := getattr(observer, "close", None)):
                owner.attempt(close, "close")


def _implemented(observer: object, owner: Owner) -> dict[str, list[HookImpl]]:
    try:
        return enrol(observer, owner.name, new_manager())
    except PluginError as error:
        raise PluginError(f"{owner.name} cannot observe: {error}") from error


def _copied(value: Any) -> Any:
    torch = sys.modules.get("torch")  # where nobody has imported it, nothing is a tensor
    return value.detach().clone() if torch is not None and isinstance(value, torch.Tensor) else value
