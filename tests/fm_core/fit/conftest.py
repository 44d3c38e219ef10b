"""A small pipeline to train, made of objects: a linear path, a regression on the velocity, a two-layer network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

import fm_core as fm


@frozen
class Linear:
    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t


class Net(nn.Module):
    """Any event shape; a condition `{"label": (B,), "shift": (B, *D)}` is used if given."""

    def __init__(self, size: int = 2, *, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(size + 1, 16), nn.SELU(), nn.Dropout(dropout), nn.Linear(16, size))
        self.labels = nn.Embedding(10, size)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / 4)

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        out = self.layers(torch.cat([x_t.flatten(1), t[:, None]], 1)).reshape(x_t.shape)
        if cond is not None:
            out = out + self.labels(cond["label"]).reshape(x_t.shape) + cond["shift"]
        return out


@frozen(eq=False)
class Reverse:
    """A coupling that pairs in reverse order, so that its work can be seen."""

    pool: int | None = None
    independent: bool = False

    def pair(
        self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return torch.arange(len(x0)), torch.arange(len(x1)).flip(0)


@pytest.fixture
def compose() -> Callable[..., fm.Pipeline]:
    def make(net: nn.Module | None = None, **parts: Any) -> fm.Pipeline:
        whole = {"path": fm.GaussianPath(Linear()), "objective": fm.Matching("velocity")} | parts
        return fm.compose(model=fm.Model(net if net is not None else Net(), predicts="velocity"), **whole)

    return make


@pytest.fixture
def x1() -> Tensor:
    return torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) + 2


@pytest.fixture
def reverse() -> Callable[..., Reverse]:
    return Reverse


@pytest.fixture
def make_net() -> Callable[..., Net]:
    return Net


def weights(pipeline: fm.Pipeline) -> Tensor:
    """All parameters of a pipeline's network in one vector."""
    return torch.cat([p.detach().flatten() for p in pipeline.model.net.parameters()])


@pytest.fixture(name="weights")
def weights_of() -> Callable[[fm.Pipeline], Tensor]:
    return weights
