"""Errors of trajectories, compared: one that is not finite is infinitely bad, and spoils no figure of the others.

A run that leaves the network's domain may overflow, under one table and not under another. Medians take such an error
to be larger than all others; of two tables the one under which fewer trajectories diverge is better, whatever else they
do; a root mean square is one over the trajectories that end, with the number of those that do not beside it.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

__all__ = ["better", "distances", "median", "ranked", "robust", "said", "summary"]

TOLERATED = 1.5
"""How many times the best uncalibrated table's root-mean-square error is let pass: a few trajectories rule it."""

DIVERGED = 1e9
"""What a trajectory that is not finite counts in a mean of logarithms: more than all others together can make good."""


def distances(ends: Tensor, others: Tensor) -> Tensor:
    """Root-mean-square distances `(…, B)` of ends `(…, B, E)` from others `(B, E)`; not finite where an end is not."""
    return (ends - others).square().mean(-1).sqrt()


def median(errors: Tensor) -> float:
    """The median of errors `(B,)`, infinite where most are not finite.

    >>> import torch
    >>> median(torch.tensor([math.nan, 1.0, 3.0])), median(torch.tensor([math.nan, math.inf, 3.0]))
    (3.0, inf)
    """
    return float(errors.nan_to_num(math.inf, math.inf).median())


def robust(errors: Tensor, scale: float) -> Tensor:
    """The mean of ½·log(e² + δ²) over trajectories, of errors `(…, B)`, in which divergence outweighs all else.

    Args:
        errors: e.
        scale: δ, finite.
    """
    logs = (errors.square() + scale**2).log() / 2
    return logs.nan_to_num(DIVERGED, DIVERGED).mean(-1)


def ranked(errors: Tensor) -> tuple[int, float]:
    """What fits are sorted by, the best first: how many trajectories diverge, then the median of errors `(B,)`."""
    return _diverged(errors), median(errors)


def better(after: Tensor, before: Tensor) -> bool:
    """Whether errors `(B,)` are better: a lower median, no more trajectories that diverge, and a root mean square over
    those that end under both which is at most `TOLERATED` times the other.
    """
    lost, both = _diverged(after) - _diverged(before), after.isfinite() & before.isfinite()
    if median(after) >= median(before) or lost > 0:
        return False
    return not bool(both.any()) or _rms(after[both]) <= TOLERATED * _rms(before[both])


def summary(errors: Tensor) -> dict[str, Any]:
    """The median of errors `(B,)`, the root mean square of those that are finite, None where there is none, and how
    many are not.
    """
    middle, rms = median(errors), _rms(errors[errors.isfinite()])
    return {
        "median": middle if math.isfinite(middle) else None,
        "rms": rms if math.isfinite(rms) else None,
        "diverged": _diverged(errors),
    }


def said(errors: Tensor) -> str:
    """Median and root mean square, in words."""
    found = summary(errors)
    middle, rms = (f"{found[key]:.3g}" if found[key] is not None else "infinite" for key in ("median", "rms"))
    lost = f", with {found['diverged']} of {len(errors)} diverging" if found["diverged"] else ""
    return f"{middle} in the median and {rms} in the root mean square{lost}"


def _diverged(errors: Tensor) -> int:
    return int((~errors.isfinite()).sum())


def _rms(errors: Tensor) -> float:
    """The root mean square; NaN of none."""
    largest = errors.max() if len(errors) else errors.sum()
    if not largest > 0:
        return float(errors.mean())
    return float(largest * (errors / largest).square().mean().sqrt())  # the squares of errors may overflow
