"""The falling half of a U-Net: stages at every resolution, each resolution half the one before.

    level l has width·m_l channels and sides ⌈H/2^l⌉ × ⌈W/2^l⌉: `blocks` stages, then a convolution of stride 2

References:
    Ronneberger et al. 2015, U-Net. https://arxiv.org/abs/1505.04597
    Ho et al. 2020, appendix B. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_plugins.networks.seeded import convolution
from fm_plugins.networks.stages import Plan, Shrink, Stage, recomputed

__all__ = ["Encoder", "Middle", "image_shape"]


def image_shape(shape: Sequence[int], who: str) -> tuple[int, int, int]:
    """The shape of images, (C, H, W).

    Raises:
        ValueError: If it is another shape.
    """
    if len(shape) != 3 or any(side < 1 for side in shape):
        raise ValueError(f"{who} takes images: shape=(channels, height, width), each at least 1; got {tuple(shape)}")
    return shape[0], shape[1], shape[2]


class Encoder(nn.Module):
    """Stages and resolutions from an image down.

    Args:
        shape: Of the images, (C, H, W).
        plan: What the stages share.
        generator: Draws the weights.
        width: Channels that the multipliers multiply.
        multipliers: One for each level.
        blocks: Stages of a level.
        attention: Levels with attention, 0 the finest, −1 the coarsest.
        checkpoint: Compute the stages again in the backward pass instead of keeping their values.

    Attributes:
        levels: Channels of every level, and whether it attends.
        kept: Channels of every map that `forward` returns.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        plan: Plan,
        generator: torch.Generator,
        *,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.levels = _levels(shape, width, multipliers, blocks, attention)
        self.checkpoint, self.random = checkpoint, plan.dropout > 0
        self.kept = [width]
        self.enter = convolution(shape[0], width, generator)
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        for level, (channels, attends) in enumerate(self.levels):
            stages = nn.ModuleList()
            for _ in range(blocks):
                stages.append(Stage(self.kept[-1], channels, plan.attending(attends), generator))
                self.kept.append(channels)
            self.down.append(stages)
            if level + 1 < len(self.levels):
                self.shrink.append(Shrink(channels, generator))
                self.kept.append(channels)

    def forward(self, x: Tensor, embedded: Tensor, context: Tensor | None, mask: Tensor | None) -> list[Tensor]:
        """The maps after every layer, the last at the lowest resolution."""
        maps = [self.enter(x)]
        for level, stages in enumerate(self.down):
            for stage in stages:  # type: ignore[attr-defined]  # a ModuleList, of which nn.Module knows nothing
                maps.append(self.run(stage, maps[-1], embedded, context, mask))
            if level < len(self.shrink):
                maps.append(self.shrink[level](maps[-1]))
        return maps

    def run(self, stage: nn.Module, *inputs: Any) -> Tensor:
        """A stage's output, its values kept or computed again."""
        if self.checkpoint and torch.is_grad_enabled():
            return recomputed(stage, *inputs, random=self.random and self.training)  # type: ignore[no-any-return]
        return stage(*inputs)  # type: ignore[no-any-return]


class Middle(nn.Module):
    """Two stages at the lowest resolution, attention between them.

    Args:
        channels: Of the map.
        plan: What the stages share.
        generator: Draws the weights.
    """

    def __init__(self, channels: int, plan: Plan, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Stage(channels, channels, plan.attending(True), generator)
        self.second = Stage(channels, channels, plan.attending(False), generator)

    def forward(self, x: Tensor, embedded: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The map, of the same shape."""
        return self.second(self.first(x, embedded, context, mask), embedded)  # type: ignore[no-any-return]


def _levels(
    shape: Sequence[int], width: int, multipliers: Sequence[int], blocks: int, attention: Sequence[int]
) -> list[tuple[int, bool]]:
    """Channels of every level, and whether it attends."""
    if not multipliers:
        raise ValueError("a U-Net has at least one level: multipliers=(1,) or more")
    for name, value in {"width": width, "blocks": blocks, "a multiplier": min(multipliers)}.items():
        if value < 1:
            raise ValueError(f"{name} is at least 1; got {value}")
    if min(shape[1:]) < 2 ** (len(multipliers) - 1):
        raise ValueError(
            f"{len(multipliers)} levels halve the sides {len(multipliers) - 1} times, which {tuple(shape[1:])} does "
            "not bear; give fewer multipliers"
        )
    count = len(multipliers)
    if unknown := [level for level in attention if not -count <= level < count]:
        raise ValueError(
            f"attention names levels, 0 (the finest) to {count - 1}, or −1 (the coarsest); got {unknown[0]}"
        )
    attending = {level % count for level in attention}
    return [(width * m, level in attending) for level, m in enumerate(multipliers)]
