"""The oracles by name, each on whatever Gaussian path is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_core import GaussianPath
from fm_core.building import name_of
from fm_core.errors import CompatError
from fm_core.mixture import GaussianMixture
from fm_core.prediction import as_prediction
from fm_core.randomness import make_generator
from fm_core.registry import from_config
from fm_plugins.problems.oracle import Oracle

__all__ = [
    "eight_gaussians",
    "gaussian",
    "guided_gaussians",
    "image_modes",
    "labelled_gaussians",
    "line",
    "modes",
    "modes_32d",
    "modes_512d",
]

Path = str | Mapping[str, Any] | GaussianPath
RADIUS, STD = 5.0, math.sqrt(0.1)
"""Of the ring, as in TorchCFM's documentation and in most exact comparisons."""

LABELS = 4


def _oracle(
    title: str, classes: Sequence[GaussianMixture], path: Path, predicts: str | None, scale: float = 1.0
) -> Oracle:
    from fm_core.compat import Problem

    built = from_config("path", path)
    if not isinstance(built, GaussianPath) or built.source is not None:
        raise CompatError(
            [
                Problem(
                    f"{name_of(built)} has no closed form here",
                    "an oracle is a mixture of Gaussians on a Gaussian path from N(0, I)",
                    "use path='linear', 'cosine', 'vp', 've', 'edm', …",
                )
            ]
        )
    where = "" if name_of(built) == "linear" else f", path {name_of(built)}"
    return Oracle(
        title=title + where,
        classes=tuple(classes),
        path=built,
        predicts=None if predicts is None else as_prediction(predicts),
        scale=scale,
    )


def _ring(radius: float, std: float) -> GaussianMixture:
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return GaussianMixture(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def gaussian(
    path: Path = "linear", shape: Sequence[int] = (2,), mean: float = 1.0, std: float = 0.5, predicts: str | None = None
) -> Oracle:
    """One Gaussian N(m·1, s²·I), whose flow is a closed form.

    Args:
        path: A Gaussian path, by name or as an object.
        shape: Shape of one state.
        mean: Every coordinate's mean.
        std: Its standard deviation.
        predicts: What the network predicts.
    """
    law = GaussianMixture(torch.full((1, *shape), mean, dtype=torch.float64), std)
    return _oracle(f"Gaussian in {law.means[0].numel()}-D", [law], path, predicts)


def line(path: Path = "linear", predicts: str | None = None) -> Oracle:
    """Three unequal modes on a line.

    Args:
        path: A Gaussian path.
        predicts: What the network predicts.
    """
    law = GaussianMixture([[-2.0], [0.5], [3.0]], [0.3, 0.2, 0.5], [0.3, 0.5, 0.2])
    return _oracle("three modes in 1-D", [law], path, predicts)


def eight_gaussians(
    path: Path = "linear", predicts: str | None = None, radius: float = RADIUS, std: float = STD
) -> Oracle:
    """Eight equally likely Gaussians on a ring.

    Args:
        path: A Gaussian path.
        predicts: What the network predicts.
        radius: Distance of the modes from the origin.
        std: Standard deviation of a mode.
    """
    return _oracle("eight Gaussians in 2-D", [_ring(radius, std)], path, predicts)


def modes(
    path: Path = "linear",
    dimension: int = 32,
    count: int = 64,
    std: float = 0.2,
    seed: int = 0,
    predicts: str | None = None,
) -> Oracle:
    """Equally likely modes at standard normal places.

    Args:
        path: A Gaussian path.
        dimension: Coordinates of a state.
        count: Number of modes.
        std: Standard deviation of a mode.
        seed: Of their places.
        predicts: What the network predicts.
    """
    places = torch.randn(count, dimension, generator=make_generator(seed), dtype=torch.float64)
    return _oracle(f"{count} modes in {dimension}-D", [GaussianMixture(places, std)], path, predicts)


modes_32d = partial(modes, dimension=32, count=64, std=0.2)
modes_512d = partial(modes, dimension=512, count=8, std=0.3)


def image_modes(
    path: Path = "linear",
    shape: Sequence[int] = (3, 8, 8),
    count: int = 10,
    std: float = 0.2,
    seed: int = 0,
    predicts: str | None = None,
) -> Oracle:
    """Smooth pictures with values of about unit size, each the mean of a mode.

    Args:
        path: A Gaussian path.
        shape: Channels, height, width.
        count: Number of pictures.
        std: Standard deviation of a pixel around its picture.
        seed: Of the pictures.
        predicts: What the network predicts.
    """
    law = GaussianMixture(_pictures(count, shape, seed), std)
    return _oracle(f"{count} pictures {tuple(shape)}", [law], path, predicts)


def _pictures(count: int, shape: Sequence[int], seed: int) -> Tensor:
    """Sums of the three lowest cosine waves of height and width with normal weights, scaled to unit variance."""
    channels, height, width = shape
    weights = torch.randn(count, channels, 3, 3, generator=make_generator(seed), dtype=torch.float64)
    rows, columns = (
        torch.stack(
            [torch.cos(torch.pi * k * (torch.arange(size, dtype=torch.float64) + 0.5) / size) for k in range(3)]
        )
        for size in (height, width)
    )
    pictures = torch.einsum("nckl,kh,lw->nchw", weights, rows, columns)
    return pictures / pictures.std()


def labelled_gaussians(
    path: Path = "linear", predicts: str | None = None, radius: float = RADIUS, std: float = STD, scale: float = 1.0
) -> Oracle:
    """The ring of eight with four labels, each of two opposite modes; the label is the condition.

    Args:
        path: A Gaussian path.
        predicts: What the network predicts.
        radius: Distance of the modes from the origin.
        std: Standard deviation of a mode.
        scale: Scale of classifier-free guidance, 1 for none.
    """
    ring = _ring(radius, std)
    laws = [GaussianMixture(ring.means[[c, c + LABELS]], std) for c in range(LABELS)]
    guided = "" if scale == 1.0 else f", guided ×{scale:g}"
    return _oracle(f"labelled Gaussians in 2-D{guided}", laws, path, predicts, scale)


guided_gaussians = partial(labelled_gaussians, scale=2.0)
