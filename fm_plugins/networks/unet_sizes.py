"""U-Nets of named sizes.

    name          for             width, multipliers     blocks    attention     parameters (no conditions)
    unet_tiny     8 × 8           32, (1, 1)             1         middle        0.3 M
    unet_small    28 – 32 px      64, (1, 2, 2)          2         lowest        6 M
    unet_cifar10  32 × 32 × 3     128, (1, 2, 2, 2)      2         16, middle    35,746,307: DDPM's 35.7 M

References:
    Ho et al. 2020, DDPM, appendix B. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from collections.abc import Sequence

from fm_plugins.networks.encoder import image_shape, sides
from fm_plugins.networks.unet import UNet

__all__ = ["unet_cifar10", "unet_small", "unet_tiny"]


def unet_tiny(
    shape: Sequence[int] = (1, 8, 8),
    *,
    dropout: float = 0.0,
    classes: int | None = None,
    cond_dim: int | None = None,
    context_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> UNet:
    """A U-Net for digits of 8 × 8, which trains in minutes on two CPU cores.

    >>> sum(p.numel() for p in unet_tiny(seed=0).parameters())
    304673

    Args:
        shape: Event shape (C, H, W).
        dropout, classes, cond_dim, context_dim, out_channels, checkpoint, seed: As `UNet` takes them.
    """
    return UNet(
        shape,
        width=32,
        multipliers=(1, 1),
        blocks=1,
        dropout=dropout,
        classes=classes,
        cond_dim=cond_dim,
        context_dim=context_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )


def unet_small(
    shape: Sequence[int] = (1, 28, 28),
    *,
    dropout: float = 0.0,
    classes: int | None = None,
    cond_dim: int | None = None,
    context_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> UNet:
    """A U-Net for 28 to 32 pixels: three levels, attention at the lowest.

    Args:
        shape: Event shape (C, H, W).
        dropout, classes, cond_dim, context_dim, out_channels, checkpoint, seed: As `UNet` takes them.
    """
    multipliers = (1, 2, 2)
    return UNet(
        shape,
        width=64,
        multipliers=multipliers,
        blocks=2,
        attention=sides(image_shape(shape, "a U-Net"), len(multipliers))[-1:],
        dropout=dropout,
        classes=classes,
        cond_dim=cond_dim,
        context_dim=context_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )


def unet_cifar10(
    shape: Sequence[int] = (3, 32, 32),
    *,
    dropout: float = 0.1,
    classes: int | None = None,
    cond_dim: int | None = None,
    context_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> UNet:
    """DDPM's U-Net for CIFAR-10: four levels, one head of attention at the second, the embedding of time added.

    Its layers and their 35,746,307 parameters are DDPM's. The time is t·1000, and the frequencies of the sinusoids are
    `10000^(−i/64)` where DDPM's are `10000^(−i/63)`.

    Args:
        shape: Event shape (C, H, W).
        dropout, classes, cond_dim, context_dim, out_channels, checkpoint, seed: As `UNet` takes them.
    """
    multipliers = (1, 2, 2, 2)
    return UNet(
        shape,
        width=128,
        multipliers=multipliers,
        blocks=2,
        attention=sides(image_shape(shape, "a U-Net"), len(multipliers))[1:2],
        heads=1,
        film=False,
        dropout=dropout,
        classes=classes,
        cond_dim=cond_dim,
        context_dim=context_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )
