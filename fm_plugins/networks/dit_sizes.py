"""DiTs of the published sizes.

    name      width    depth    heads    parameters with patch 2, of 32 × 32 × 4 latents, 1,000 classes, 8 outputs
    dit_s       384       12        6     33 M
    dit_b       768       12       12    130 M
    dit_l     1,024       24       16    458 M
    dit_xl    1,152       28       16    675 M

"DiT-XL/2" is `dit_xl(patch=2)`; the published networks give a variance beside the noise, `out_channels=8`. Their states
are latents of images of 256 × 256 unless a `shape` is given.

References:
    Peebles & Xie 2023, tables 1 and 4. https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

from functools import partial

from fm_plugins.networks.dit import DiT

__all__ = ["dit_b", "dit_l", "dit_s", "dit_xl"]

_latent = partial(DiT, shape=(4, 32, 32), patch=2)

dit_s = partial(_latent, width=384, depth=12, heads=6)
dit_b = partial(_latent, width=768, depth=12, heads=12)
dit_l = partial(_latent, width=1024, depth=24, heads=16)
dit_xl = partial(_latent, width=1152, depth=28, heads=16)
