"""U-Nets of named sizes.

    name          for             width, multipliers     blocks    attention     parameters (no conditions)
    unet_tiny     8 × 8           32, (1, 1)             1         middle        304,673
    unet_small    28 – 32 px      64, (1, 2, 2)          2         lowest        6,946,881
    unet_cifar10  32 × 32 × 3     128, (1, 2, 2, 2)      2         second        35,746,307: DDPM's

`unet_tiny` trains on digits in minutes on two CPU cores. `unet_cifar10` has DDPM's layers: one head of attention, and
the embedding of time is added. The time is t·1000, and the frequencies of the sinusoids are `10000^(−i/64)`, where
DDPM's are `10000^(−i/63)`. Each takes another `shape`, and whatever else `UNet` does.

References:
    Ho et al. 2020, DDPM, appendix B. https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from functools import partial

from fm_plugins.networks.unet import UNet

__all__ = ["unet_cifar10", "unet_small", "unet_tiny"]

unet_tiny = partial(UNet, shape=(1, 8, 8), width=32, multipliers=(1, 1), blocks=1)
unet_small = partial(UNet, shape=(1, 28, 28), width=64, multipliers=(1, 2, 2), blocks=2, attention=(-1,))
unet_cifar10 = partial(
    UNet,
    shape=(3, 32, 32),
    width=128,
    multipliers=(1, 2, 2, 2),
    blocks=2,
    attention=(1,),
    heads=1,
    film=False,
    dropout=0.1,
)
