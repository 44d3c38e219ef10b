"""The demonstration's pictures: trajectories, densities over time, digits, quality against network calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.collections import LineCollection
from torch import Tensor

from fm_core import Pipeline
from fm_core.fit.files import replacing

if TYPE_CHECKING:
    from fm_core.cli.showcase import Figure

__all__ = ["animation", "densities", "digits", "quality", "style", "trajectories"]

SOURCE, DATA, PATH = "#3b6fb6", "#d1495b", "#9aa0a6"
SOLVER_COLOURS = {"euler": "#d1495b", "heun": "#3b6fb6", "rk4": "#2a9d8f", "dopri5": "#6a4c93"}
EXTENT = 3.8
"""Half the width of the plane that is shown."""


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Plain figures: no frame, small legends, 120 dots an inch."""
    settings: dict[Any, Any] = {
        "figure.dpi": 120,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(settings):
        yield


def trajectories(pipes: Mapping[str, Pipeline], path: Path, seed: int, count: int = 200) -> None:
    """The ways that `count` samples take from noise to data, one panel a method."""
    figure, panels = plt.subplots(1, len(pipes), figsize=(3.6 * len(pipes), 3.8), squeeze=False)
    for axes, (method, pipe) in zip(panels[0], pipes.items()):
        way = _way(pipe, count, seed)
        lines = LineCollection([*way.transpose(0, 1).numpy()], colors=PATH, linewidths=0.5, alpha=0.7)
        axes.add_collection(lines)
        _dots(axes, way[0], 5, SOURCE, "noise (t = 0)")
        _dots(axes, way[-1], 5, DATA, "samples (t = 1)")
        axes.set_title(method)
        _plane(axes)
    panels[0][0].legend(loc="upper left", markerscale=2)
    figure.suptitle("From noise to data: straighter paths need fewer network calls")
    _write(figure, path)


def densities(pipes: Mapping[str, Pipeline], real: Tensor, path: Path, seed: int, count: int = 20_000) -> None:
    """Histograms of samples at five times, one row a method, real data at the end of each row."""
    shown = (0.0, 0.25, 0.5, 0.75, 1.0)
    figure, panels = plt.subplots(len(pipes), len(shown) + 1, figsize=(1.8 * len(shown) + 2, 1.95 * len(pipes)))
    for row, (method, pipe) in zip(panels, pipes.items()):
        way = _way(pipe, count, seed)
        for axes, t in zip(row, shown):
            _histogram(axes, way[round(t * (len(way) - 1))])
            axes.set_title(f"t = {t:g}")
        _histogram(row[-1], real)
        row[-1].set_title("real data")
        row[0].set_ylabel(method, visible=True)
    figure.suptitle("The density over time")
    _write(figure, path)


def digits(real: Tensor, pipe: Pipeline, path: Path, seed: int, side: int = 10) -> None:
    """Real digits beside generated ones."""
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[: side**2]
    drawn = pipe.sample((side**2, *real.shape[1:]), steps=50, seed=seed).x
    figure, panels = plt.subplots(1, 2, figsize=(8, 4.3))
    for axes, images, title in zip(panels, (real[order], drawn), ("real", "generated: ot_cfm, heun, 100 calls")):
        tiles = images.reshape(side, side, *images.shape[-2:]).clamp(-1, 1)
        framed = torch.nn.functional.pad(tiles, (1, 1, 1, 1), value=-1)
        axes.imshow(framed.permute(0, 2, 1, 3).flatten(0, 1).flatten(1).numpy(), cmap="gray")
        axes.set_title(title)
        axes.axis("off")
    _write(figure, path)


def quality(figures: Sequence[Figure], path: Path) -> None:
    """The metric against network calls, a line for each solver, a panel for each method, the floor dashed."""
    methods = list(dict.fromkeys(figure.method for figure in figures))
    sheet, panels = plt.subplots(1, len(methods), figsize=(3.6 * len(methods) + 0.6, 3.4), squeeze=False, sharey=True)
    for axes, method in zip(panels[0], methods):
        for solver, colour in SOLVER_COLOURS.items():
            line = [f for f in figures if (f.method, f.solver) == (method, solver)]
            axes.errorbar(
                [f.nfe for f in line],
                [f.value for f in line],
                [f.std for f in line],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=1.2,
                capsize=2,
                label=solver,
            )
        axes.axhline(figures[0].floor, color="black", linewidth=0.8, linestyle="--", label="floor: real against real")
        axes.set(title=f"{method} on {figures[0].data}", xlabel="network calls", xscale="log", yscale="log")
        ticks = sorted({f.nfe for f in figures})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    panels[0][0].set_ylabel(figures[0].metric)
    panels[0][-1].legend()
    _write(sheet, path)


def animation(pipe: Pipeline, path: Path, seed: int, count: int = 2000, frames: int = 40) -> None:
    """Samples on their way from noise to data, and a moment of rest at the end."""
    way = _way(pipe, count, seed, frames)
    figure, axes = plt.subplots(figsize=(4, 4))
    dots = _dots(axes, way[0], 3, DATA)
    title = axes.set_title("t = 0.00")
    _plane(axes)

    def draw(frame: int) -> tuple[Any, ...]:
        step = min(frame, frames)
        dots.set_offsets(way[step].numpy())
        title.set_text(f"t = {step / frames:.2f}")
        return dots, title

    film = FuncAnimation(figure, draw, frames=frames + 12)
    with replacing(path) as (temporary,):
        film.save(temporary, writer=PillowWriter(fps=15))
    plt.close(figure)


def _way(pipe: Pipeline, count: int, seed: int, steps: int = 40) -> Tensor:
    """States along the way, `(steps + 1, count, 2)`."""
    trajectory = pipe.replace(solver="heun").sample((count, 2), steps=steps, seed=seed, trajectory=True).trajectory
    assert trajectory is not None
    return trajectory.cpu()


def _dots(axes: Any, points: Tensor, size: float, colour: str, label: str = "") -> Any:
    x, y = points.numpy().T
    return axes.scatter(x, y, s=size, color=colour, label=label, zorder=2)


def _histogram(axes: Any, points: Tensor) -> None:
    limits = [[-EXTENT, EXTENT]] * 2
    axes.hist2d(*points.T.numpy(), bins=90, range=limits, cmap="magma")
    axes.set(aspect="equal", xticks=[], yticks=[])


def _plane(axes: Any) -> None:
    axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal", xticks=[], yticks=[])


def _write(figure: Any, path: Path) -> None:
    with replacing(path) as (temporary,):
        figure.savefig(temporary, format=path.suffix[1:])
    plt.close(figure)
