"""U-Net for images: residual stages down and up through the resolutions, each map of the way down joined on the way up.

    e = silu(W·s(t) + class + vector)              s(t) sinusoids of 1000·t, as DDPM's of its index (`time_embedding`)
    h_0 = conv(x),  h_i = stage_i(h_{i−1}, e) or its half size                       down: `encoder`
    h = stage(attention(stage(h)))                                                   middle
    h = stage([h, h_i], e) for the h_i in reverse, doubled between resolutions       up
    f = W_out * silu(norm(h)),  W_out = 0 at first

So an untrained network returns zeros. The last convolution of every residual branch starts at zero too: as deep as it
is, it starts as a shallow one. Groups of channels are normalised for each sample alone, so no row depends on another.

References:
    Ho et al. 2020, DDPM, appendix B. https://arxiv.org/abs/2006.11239
    Dhariwal & Nichol 2021, ADM, section 3 and appendix. https://arxiv.org/abs/2105.05233
    Rombach et al. 2022, section 3.3 (conditions by cross-attention). https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_core.errors import ShapeError
from fm_core.randomness import make_generator
from fm_plugins.networks.conditions import Conditions
from fm_plugins.networks.encoder import Encoder, Middle, image_shape
from fm_plugins.networks.seeded import convolution, group_norm, silent
from fm_plugins.networks.stages import Grow, Plan, Stage
from fm_plugins.networks.time_embedding import TimeEmbedding

__all__ = ["UNet"]


@final
class UNet(nn.Module):
    """U-Net with time, class, vector and sequence conditions.

    >>> net = UNet((1, 8, 8), width=16, multipliers=(1, 2), blocks=1, classes=10, seed=0)
    >>> net(torch.zeros(5, 1, 8, 8), torch.linspace(0, 1, 5), torch.arange(5)).shape
    torch.Size([5, 1, 8, 8])

    Args:
        shape: Event shape (C, H, W); sides may be odd and differ.
        width: Channels of the first level; the embedding of time has four times as many.
        multipliers: Channels of every level as multiples of `width`; each level has half the sides of the one before.
        blocks: Residual stages of a level on the way down; one more on the way up.
        attention: Levels with attention, 0 the finest, −1 the coarsest; the middle always has it.
        heads: Attention heads.
        dropout: Probability in residual blocks, while training.
        film: Whether the embedding scales and shifts (ADM), or is added (DDPM).
        classes: Number of classes K, for labels `(B,)` in 0 … K. K itself is "no class", so the model is
            `fm.Model(net, predicts=…, null=K)`.
        cond_dim: Length of condition vectors `(B, cond_dim)`, added to the embedding of time ("global").
        context_dim: Length of the elements of condition sequences `(B, L, context_dim)`, which every place with
            attention attends to ("local").
        out_channels: Channels of the output; those of the state by default.
        checkpoint: Compute the stages again in the backward pass instead of keeping their values: less memory, a third
            more time.
        seed: Seed of the weights, drawn on the CPU from a generator of their own; None draws from fresh entropy.

    Raises:
        ValueError: For sizes that do not fit.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (),
        heads: int = 4,
        dropout: float = 0.0,
        film: bool = True,
        classes: int | None = None,
        cond_dim: int | None = None,
        context_dim: int | None = None,
        out_channels: int | None = None,
        checkpoint: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        generator = make_generator(seed)
        self.shape = image_shape(shape, "a U-Net")
        if width < 2 or width % 2:
            raise ValueError(f"width is at least 2 and even, for as many sines as cosines of time; got {width}")
        plan = Plan(4 * width, heads, dropout, film, context_dim)
        self.embed_time = TimeEmbedding(width, 4 * width, generator)
        self.embed_cond = Conditions(4 * width, generator, classes=classes, cond_dim=cond_dim, context_dim=context_dim)
        self.encoder = Encoder(
            self.shape,
            plan,
            generator,
            width=width,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            checkpoint=checkpoint,
        )
        channels, kept = self.encoder.kept[-1], list(self.encoder.kept)
        self.middle = Middle(channels, plan, generator)
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level, (outputs, attends) in reversed(list(enumerate(self.encoder.levels))):
            stages = nn.ModuleList()
            for _ in range(blocks + 1):
                stages.append(Stage(channels + kept.pop(), outputs, plan.attending(attends), generator))
                channels = outputs
            self.up.append(stages)
            if level:
                self.grow.append(Grow(channels, generator))
        self.norm = group_norm(channels)
        self.leave = silent(convolution(channels, out_channels or self.shape[0], generator))

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The network's output at states x_t `(B, C, H, W)`, times t `(B,)` and conditions.

        Args:
            x_t: States, shape `(B, C, H, W)`.
            t: Times in [0, 1], shape `(B,)`, float32 or float64.
            cond: Labels `(B,)`, vectors `(B, cond_dim)` or sequences `(B, L, context_dim)`, if the network was made for
                one of them. A dict of them by the names "class", "vector" and "context" if for several; a sequence may
                have a "mask" `(B, L)` beside it, True where an element counts.

        Returns:
            Shape `(B, out_channels, H, W)`.

        Raises:
            ShapeError: For states or conditions of another shape.
            ConditionError: For a condition that is missing, unexpected or out of range.
        """
        if x_t.shape[1:] != self.shape:
            raise ShapeError(
                f"this U-Net takes states (B, {', '.join(map(str, self.shape))}); got {tuple(x_t.shape)}; "
                f"build it with shape={tuple(x_t.shape[1:])} for these"
            )
        embedded, context, mask = self.embed_cond(self.embed_time(t, x_t.dtype), cond)
        maps = self.encoder(x_t, embedded, context, mask)
        h = self.encoder.run(self.middle, maps[-1], embedded, context, mask)
        for level, stages in enumerate(self.up):
            for stage in stages:  # type: ignore[attr-defined]  # a ModuleList, of which nn.Module knows nothing
                h = self.encoder.run(stage, torch.cat([h, maps.pop()], 1), embedded, context, mask)
            if level < len(self.grow):
                h = self.grow[level](h, maps[-1].shape[2:])
        return self.leave(F.silu(self.norm(h)))  # type: ignore[no-any-return]
