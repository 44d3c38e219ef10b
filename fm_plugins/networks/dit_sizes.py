"""DiTs of the published sizes.

    name      width    depth    heads    parameters with patch 2, of 32 × 32 × 4 latents, 1,000 classes, 8 outputs
    dit_s       384       12        6     33 M
    dit_b       768       12       12    130 M
    dit_l     1,024       24       16    458 M
    dit_xl    1,152       28       16    675 M

"DiT-XL/2" is `dit_xl(patch=2)`; the published networks give a variance beside the noise, `out_channels=8`.

References:
    Peebles & Xie 2023, tables 1 and 4. https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

from collections.abc import Sequence

from fm_plugins.networks.dit import DiT

__all__ = ["dit_b", "dit_l", "dit_s", "dit_xl"]

LATENT = (4, 32, 32)
"""Latents of images of 256 × 256."""


def dit_s(
    shape: Sequence[int] = LATENT,
    *,
    patch: int = 2,
    classes: int | None = None,
    cond_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> DiT:
    """DiT-S, 384 wide, 12 blocks.

    Args:
        shape: Event shape (C, H, W).
        patch: Side of a patch, published for 2, 4 and 8.
        classes, cond_dim, out_channels, checkpoint, seed: As `DiT` takes them.
    """
    return DiT(
        shape,
        patch=patch,
        width=384,
        depth=12,
        heads=6,
        classes=classes,
        cond_dim=cond_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )


def dit_b(
    shape: Sequence[int] = LATENT,
    *,
    patch: int = 2,
    classes: int | None = None,
    cond_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> DiT:
    """DiT-B, 768 wide, 12 blocks.

    Args:
        shape: Event shape (C, H, W).
        patch: Side of a patch, published for 2, 4 and 8.
        classes, cond_dim, out_channels, checkpoint, seed: As `DiT` takes them.
    """
    return DiT(
        shape,
        patch=patch,
        width=768,
        depth=12,
        heads=12,
        classes=classes,
        cond_dim=cond_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )


def dit_l(
    shape: Sequence[int] = LATENT,
    *,
    patch: int = 2,
    classes: int | None = None,
    cond_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> DiT:
    """DiT-L, 1024 wide, 24 blocks.

    Args:
        shape: Event shape (C, H, W).
        patch: Side of a patch, published for 2, 4 and 8.
        classes, cond_dim, out_channels, checkpoint, seed: As `DiT` takes them.
    """
    return DiT(
        shape,
        patch=patch,
        width=1024,
        depth=24,
        heads=16,
        classes=classes,
        cond_dim=cond_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )


def dit_xl(
    shape: Sequence[int] = LATENT,
    *,
    patch: int = 2,
    classes: int | None = None,
    cond_dim: int | None = None,
    out_channels: int | None = None,
    checkpoint: bool = False,
    seed: int | None = None,
) -> DiT:
    """DiT-XL, 1152 wide, 28 blocks.

    Args:
        shape: Event shape (C, H, W).
        patch: Side of a patch, published for 2, 4 and 8.
        classes, cond_dim, out_channels, checkpoint, seed: As `DiT` takes them.
    """
    return DiT(
        shape,
        patch=patch,
        width=1152,
        depth=28,
        heads=16,
        classes=classes,
        cond_dim=cond_dim,
        out_channels=out_channels,
        checkpoint=checkpoint,
        seed=seed,
    )
