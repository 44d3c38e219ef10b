"""What every component keeps, of whatever kind: it is built with its example, and has what its protocol asks for."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from typing import Any

import torch

from fm_core.extras import lacking
from fm_core.hookspecs import KINDS
from fm_core.testing.kit import Failed, Skipped, Subject, check_of

__all__ = ["MEMBERS"]

MEMBERS: dict[str, tuple[str, ...]] = {
    "path": ("provides", "sample_source", "interpolate", "target", "convert"),
    "model": ("__call__",),
    "objective": ("needs", "sample_time", "loss"),
    "coupling": ("pair",),
    "solver": ("needs", "order", "evals_per_step", "solve"),
    "grid": ("times",),
    "guidance": ("needs", "guide"),
    "metric": ("__call__",),
    "codec": ("encode", "decode"),
}
"""What a component of a kind has at least; what else its protocol names has defaults."""

_HOOKS = ("fm_fit_start", "fm_fit_step", "fm_fit_end", "fm_sample_step", "fm_bench_record")


def builds(subject: Subject) -> None:
    """It is imported, built with the options of its `example`, and has the members that its protocol names."""
    try:
        built = _built(subject)
    except Exception as error:
        if extra := lacking(subject.source.distribution, error):
            raise Skipped(f"it needs what is not installed: pip install '{extra}'") from error
        raise
    missing = [name for name in MEMBERS.get(subject.component.kind, ()) if not hasattr(built, name)]
    if missing:
        raise Failed(f"a {subject.component.kind} has {', '.join(missing)}; this {type(built).__name__} has not")
    match subject.component.kind:
        case "recipe" if not isinstance(built, Mapping):
            raise Failed(f"a recipe is a mapping of the arguments of compose; got a {type(built).__name__}")
        case "dataset" if not callable(built) and not hasattr(built, "__getitem__"):
            raise Failed(f"a data set is called as (n, generator), or indexed; got a {type(built).__name__}")
        case "observer" if not any(callable(getattr(built, hook, None)) for hook in _HOOKS):
            raise Failed(f"an observer has one or more of {', '.join(_HOOKS)}; this {type(built).__name__} has none")


def _built(subject: Subject) -> Any:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # an observer may write where it stands
        if subject.component.kind != "model":
            return subject.build()
        with contextlib.suppress(Exception), torch.device("meta"):  # large networks are built for nothing
            return subject.build()
        return subject.build()


for _kind in KINDS:
    check_of(_kind)(builds)
