"""Errors raised on purpose: what was got, what was expected, why it matters, how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fm_core.compat import Problem

__all__ = [
    "ArgumentError",
    "BudgetError",
    "CompatError",
    "ConditionError",
    "DataError",
    "DivergenceError",
    "FMError",
    "FitError",
    "PluginError",
    "PredictionError",
    "SavedFileError",
    "ShapeError",
    "TimeError",
    "UnknownNameError",
    "did_you_mean",
]


class FMError(Exception):
    """Base class of every error this library raises on purpose."""


class ArgumentError(FMError, TypeError):
    """An argument of another type than its function takes."""


class UnknownNameError(FMError, LookupError):
    """A registry name that no loaded plugin provides, or that several provide."""


class PluginError(FMError, RuntimeError):
    """A plugin that could not be loaded, or a component of it that could not be imported."""


class PredictionError(FMError, ValueError):
    """A prediction kind that is unknown, ambiguous, or cannot be converted here."""


class ShapeError(FMError, ValueError):
    """Tensors whose shapes do not fit each other, or a network that returns another shape than its state."""


class TimeError(FMError, ValueError):
    """Times outside the interval in which the path or the network is defined, or not strictly monotone."""


class ConditionError(FMError, ValueError):
    """A condition that is missing, out of range, or not of the network's form."""


class DataError(FMError, ValueError):
    """Training data that is empty, too small for the batch, or not of a supported kind."""


class SavedFileError(FMError, ValueError):
    """A saved pipeline that cannot be written or read: unknown keys, missing weights, parts without a registry name."""


class BudgetError(FMError, ValueError):
    """A budget of steps or network calls that is contradictory, too small to be met, or exceeded."""


class DivergenceError(FMError, ArithmeticError):
    """A state, a prediction or a loss that is not finite."""


class FitError(FMError, RuntimeError):
    """Training that had to stop early.

    Attributes:
        result: The `FitResult` as it stood: the weights, averages and losses reached before the failure.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class CompatError(FMError, ValueError):
    """Parts that do not compose: one error for all problems, each with its reason and its fix.

    Attributes:
        problems: Every problem found, as `fm_core.compat.Problem` values.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "these parts do not compose" + (f" ({count} problems)" if count > 1 else "")
        super().__init__("\n".join([f"{head}:", *(f"  {i}. {p}" for i, p in enumerate(self.problems, 1))]))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known names, or lists them all when none is close.

    >>> did_you_mean("huen", ["heun", "euler"])
    "did you mean 'heun'?"
    >>> did_you_mean("zzz", ["heun", "euler"])
    "known: 'euler', 'heun'"
    >>> did_you_mean("zzz", [])
    'none is known'
    """
    names = sorted({str(name) for name in known})  # an enum member is shown as its value
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"known: {', '.join(map(repr, names))}" if names else "none is known"
