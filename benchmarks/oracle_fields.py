"""The fields of `bench_oracles.py`: velocities of Gaussian mixtures in closed form, and a small network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

import fm_core as fm
from fm_core.prediction import Prediction, row
from fm_core.randomness import make_generator
from fm_core.testing import GaussianMixture

__all__ = ["ORACLES", "Oracle"]

TRAINING = 6000
"""Steps of the network."""


@frozen
class Oracle:
    """A field, and how much of it is run.

    Args:
        title: In words.
        make: Makes the pipeline, given a folder to keep a network in.
        shape: Shape of a sample.
        samples, seeds: Samples of a seed, and how many seeds.
        pilot: Trajectories to calibrate on, or more where the table has more numbers.
        classes: How many classes the network is told; 0 for one without a condition.
    """

    title: str
    make: Callable[[Path], fm.Pipeline]
    shape: tuple[int, ...]
    samples: int
    seeds: int
    pilot: int
    classes: int = 0

    def cond(self, n: int) -> Tensor | None:
        """The classes of so many samples, in turn."""
        return torch.arange(n) % self.classes if self.classes else None


def ring() -> GaussianMixture:
    """8 Gaussians, radius 5, std √.1."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    return GaussianMixture(5 * torch.stack([angle.cos(), angle.sin()], 1), torch.tensor(math.sqrt(0.1)))


def modes(dimension: int, std: float) -> GaussianMixture:
    """64 modes, their means standard normal."""
    means = torch.randn(64, dimension, generator=make_generator(0), dtype=torch.float64)
    return GaussianMixture(means, torch.tensor(std))


def exact(name: str, mixture: GaussianMixture, predicts: str) -> Callable[[Path], fm.Pipeline]:
    """A pipeline of a mixture's exact field on a path."""

    def make(folder: Path) -> fm.Pipeline:
        path = fm.build("path", name)
        return fm.compose(path=path, model=fm.Model(quick(mixture, path, predicts), predicts=predicts), solver="auto")

    return make


def quick(mixture: GaussianMixture, path: Any, predicts: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The mixture's network, of modes alike, by two products: E[a·x1 + b·x0 | x, k] is linear in the mode k's mean."""
    means, variance, kind = mixture.means, mixture.stds.square().max(), Prediction(predicts)
    halves = means.square().sum(1) / 2

    def net(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        levels = path.alpha(t), path.sigma(t), path.d_alpha(t), path.d_sigma(t)
        alpha, sigma = levels[:2]
        a, b = row(kind, *levels)
        spread = alpha.square() * variance + sigma.square()
        mean = ((alpha * (x @ means.T) - alpha.square() * halves) / spread).softmax(1) @ means
        return a * mean + (a * alpha * variance + b * sigma) / spread * (x - alpha * mean)

    x = torch.randn(8, means.shape[1], generator=make_generator(9), dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    torch.testing.assert_close(net(x, t), mixture.model(path, kind)(x, t), rtol=1e-9, atol=1e-9)
    return net


def digits(folder: Path) -> fm.Pipeline:
    """A small U-Net trained on digits as a DDPM, told the class; kept in the folder."""
    kept = folder / "network"
    if not kept.exists():
        data = fm.build("dataset", "digits", split="train")
        net = fm.build("model", "unet_tiny", shape=[1, 8, 8], classes=10, seed=0)
        pipe = fm.recipe("ddpm", model=fm.Model(net, predicts="noise", null=10))
        trained = pipe.fit((data.x1, data.labels), steps=TRAINING, batch_size=128, lr=2e-3, cond_dropout=0.1, seed=0)
        trained.pipeline.save(kept)
    return fm.load(kept).replace(solver="auto")


ORACLES = {
    "dim2": Oracle("8 Gaussians in 2-D, linear path", exact("linear", ring(), "velocity"), (2,), 512, 3, 512),
    "dim32": Oracle("64 modes in 32-D, linear path", exact("linear", modes(32, 0.2), "velocity"), (32,), 256, 3, 512),
    "vp": Oracle("8 Gaussians in 2-D, VP path, noise prediction", exact("vp", ring(), "noise"), (2,), 512, 3, 512),
    "dim128": Oracle(
        "64 modes in 128-D, linear path", exact("linear", modes(128, 0.5), "velocity"), (128,), 256, 3, 256
    ),
    "digits": Oracle("a U-Net trained on digits as a DDPM, by class", digits, (1, 8, 8), 40, 1, 40, classes=10),
}
