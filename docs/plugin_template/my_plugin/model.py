"""A model: a small network of state and time, `f(x, t) = W₃·a(W₂·a(W₁·[x, t]))` with a = SiLU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from fm_core import ShapeError
from fm_core.randomness import make_generator
from torch import Tensor, nn

__all__ = ["Network"]


@final
class Network(nn.Module):
    """A multilayer perceptron of two hidden layers. What it predicts is said when a pipeline is composed.

    Args:
        shape: Event shape D of a state, a number for vectors.
        width: Units of a hidden layer.
        seed: Seed of the weights, drawn from a generator of their own; None draws from fresh entropy.
    """

    def __init__(self, shape: int | Sequence[int], *, width: int = 64, seed: int | None = None) -> None:
        super().__init__()
        self.shape = torch.Size((shape,) if isinstance(shape, int) else shape)
        size, generator = self.shape.numel(), make_generator(seed)
        self.layers = nn.Sequential(
            _linear(size + 1, width, generator),
            nn.SiLU(),
            _linear(width, width, generator),
            nn.SiLU(),
            _linear(width, size, generator),
        )

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The network's output, shape `(B, *D)`, at states `(B, *D)` and times `(B,)`.

        Raises:
            ShapeError: For states of another shape, or a condition.
        """
        if x_t.shape[1:] != self.shape or cond is not None:
            wrong = "a condition" if cond is not None else f"states {tuple(x_t.shape)}"
            raise ShapeError(f"this network takes states (B, *{tuple(self.shape)}) and no condition; got {wrong}")
        features = torch.cat([x_t.flatten(1), t.to(x_t.dtype).unsqueeze(1)], 1)
        output: Tensor = self.layers(features)
        return output.reshape(x_t.shape)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer drawn as PyTorch draws it, from this generator instead of the global one."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
