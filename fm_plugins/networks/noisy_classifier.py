"""A classifier of noisy states: logits of `p(c | x_t)` at every time, for guidance and, at t = 1, for features.

    images     the falling half of a U-Net and its middle, then the mean over places (ADM's adaptive pooling)
    vectors    a multilayer perceptron of [x_t, e],   e = silu(W_2·silu(W_1·s(t))),  s(t) sinusoids of 1000·t

Its gradient is what classifier guidance adds: `∇ log p_t(x|c) = ∇ log p_t(x) + ∇_x log p(c | x_t)`. It is no vector
field: it answers `(B, K)`, and no path, objective or solver takes it.

References:
    Dhariwal & Nichol 2021, section 4 and appendix. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_core.errors import ShapeError
from fm_core.randomness import make_generator
from fm_plugins.networks.encoder import Encoder, Middle, image_shape
from fm_plugins.networks.seeded import group_norm, linear
from fm_plugins.networks.stages import Plan
from fm_plugins.networks.time_embedding import TimeEmbedding

__all__ = ["NoisyClassifier"]


@final
class NoisyClassifier(nn.Module):
    """Logits of the classes of noisy states.

    >>> net = NoisyClassifier((1, 8, 8), classes=10, seed=0)
    >>> x_t, t = torch.zeros(5, 1, 8, 8), torch.linspace(0, 1, 5)
    >>> net(x_t, t).shape, net.features(x_t, t).shape
    (torch.Size([5, 10]), torch.Size([5, 64]))

    Args:
        shape: Event shape D of a state: (C, H, W) for images, a number or (D,) for vectors.
        classes: Number of classes K.
        width: Channels of the first level, or half the units of a hidden layer for vectors.
        multipliers: Channels of every level as multiples of `width`; for vectors one hidden layer each, `2·m·width`.
        blocks: Residual stages of a level (images).
        attention: Levels with attention, 0 the finest, besides the place below the coarsest, which has it (images).
        heads: Attention heads (images).
        dropout: Probability inside the blocks, while training.
        checkpoint: Compute the stages again in the backward pass (images).
        seed: Seed of the weights, drawn on the CPU from a generator of their own; None draws from fresh entropy.

    Raises:
        ValueError: For sizes that do not fit.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        classes: int,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (),
        heads: int = 4,
        dropout: float = 0.0,
        checkpoint: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = torch.Size((shape,) if isinstance(shape, int) else shape)
        if classes < 2 or width < 2 or width % 2:
            raise ValueError(f"classes is at least 2 and width even, at least 2; got {classes} and {width}")
        self.classes = classes
        self.returns = (classes,)  # one answer is no event: the conformance kit reads it
        generator, length = make_generator(seed), 4 * width
        self.embed_time = TimeEmbedding(width, length, generator)
        self.body: _Images | _Vectors
        if len(self.shape) == 1:
            self.body = _Vectors(self.shape[0], length, [2 * width * m for m in multipliers], dropout, generator)
        else:
            plan = Plan(length, heads, dropout)
            image = image_shape(self.shape, "a NoisyClassifier of images")
            encoder = Encoder(
                image,
                plan,
                generator,
                width=width,
                multipliers=multipliers,
                blocks=blocks,
                attention=attention,
                checkpoint=checkpoint,
            )
            self.body = _Images(encoder, plan, generator)
        self.leave = linear(self.body.size, classes, generator)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits `(B, K)` at states x_t `(B, *D)` and times t `(B,)`.

        Raises:
            ShapeError: For states of another shape.
        """
        return self.leave(self.features(x_t, t))  # type: ignore[no-any-return]

    def features(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the last linear layer sees, `(B, F)`, at states x_t `(B, *D)` and times t `(B,)`.

        Raises:
            ShapeError: For states of another shape.
        """
        if x_t.shape[1:] != self.shape:
            raise ShapeError(
                f"this classifier takes states (B, {', '.join(map(str, self.shape))}); got {tuple(x_t.shape)}"
            )
        embedded = F.silu(self.embed_time(t, x_t.dtype))
        return self.body(x_t, embedded)  # type: ignore[no-any-return]


class _Images(nn.Module):
    """Encoder, middle, and the mean over places."""

    def __init__(self, encoder: Encoder, plan: Plan, generator: torch.Generator) -> None:
        super().__init__()
        self.size = encoder.kept[-1]
        self.encoder = encoder
        self.middle = Middle(self.size, plan, generator)
        self.norm = group_norm(self.size)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        lowest = self.encoder(x, embedded, None, None)[-1]
        h = self.encoder.run(self.middle, lowest, embedded)
        return F.silu(self.norm(h)).mean((2, 3))


class _Vectors(nn.Module):
    """Hidden layers on state and time."""

    def __init__(
        self, inputs: int, embedding: int, hidden: list[int], dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        sizes = [inputs + embedding, *hidden]
        self.size = sizes[-1]
        self.layers = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = torch.cat([x, embedded.to(x.dtype)], 1)
        for layer in self.layers:
            h = self.dropout(F.silu(layer(h)))
        return h
