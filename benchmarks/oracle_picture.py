"""The picture of `bench_oracles.py`: median error against network calls, a panel for each oracle."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fm_core.fit.files import replacing

__all__ = ["picture"]

OURS = {"auto": ("#0072b2", "o", "auto, uncalibrated"), "calibrated": ("#d55e00", "D", "calibrated")}


def picture(cells: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], file: Path) -> None:
    """Draws every solver's medians of every oracle that has cells.

    Args:
        cells: By `oracle/calls/solver`; those that failed have no median.
        titles: By oracle.
        file: `.png` or `.svg`.
    """
    shown = [key for key in titles if any(name.startswith(f"{key}/") for name in cells)]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.3 * len(shown), 3.6), layout="constrained")
        for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
            _panel(axes, _curves(cells, key), titles[key])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.axes[0].set_ylabel("median error of a sample")
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        with replacing(file) as (part,):
            figure.savefig(part, dpi=150, format=file.suffix[1:])


def _curves(cells: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """Median by calls, by solver."""
    curves: dict[str, dict[int, float]] = {}
    for name, cell in cells.items():
        oracle, calls, who = name.split("/", 2)
        if oracle == key and "median" in cell:
            curves.setdefault(who, {})[int(calls)] = cell["median"]
    return curves


def _panel(axes: Axes, curves: Mapping[str, Mapping[int, float]], title: str) -> None:
    peers = [curve for name, curve in curves.items() if name not in OURS]
    for i, curve in enumerate(peers):
        label = "solvers of diffusers, azula and torchdiffeq" if i == 0 else None
        axes.plot(*zip(*sorted(curve.items())), color="#b0b0b0", lw=0.7, label=label)
    budgets = sorted({calls for curve in curves.values() for calls in curve})
    best = [min(e for curve in peers for calls, e in curve.items() if calls <= most) for most in budgets]
    axes.plot(budgets, best, color="black", lw=1.6, ls="--", label="the best of them with at most as many calls")
    for name, (colour, marker, label) in OURS.items():
        if name in curves:
            points = zip(*sorted(curves[name].items()))
            axes.plot(*points, color=colour, lw=2, marker=marker, ms=4.5, label=label)
    least = min(error for name in OURS for error in curves.get(name, {0: best[-1]}).values())
    axes.set(xscale="log", yscale="log", xlabel="network calls", ylim=(least / 2, 10 * best[0]))
    axes.set_title("\n".join(textwrap.wrap(title, 32)))
    axes.set_xticks(budgets, labels=[str(calls) for calls in budgets])
    axes.minorticks_off()
    axes.grid(axis="y", lw=0.4, color="#e0e0e0")
