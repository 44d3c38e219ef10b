"""The cosine grid of flow-matching speech models: t = 1 − cos(πu/2) = 2·sin²(πu/4).

w'(0) = 0 and w'(1) = π/2: the first of N steps is only π²/(8N²) long, the last 1.57 times a uniform one. The calls go
to where the sample's coarse structure is decided. It is F5-TTS's sway sampling `u + s·(cos(πu/2) − 1 + u)` at its
default s = −1. It is not the cosine *schedule* of Nichol & Dhariwal, which is a path.

References:
    Du et al. 2024, CosyVoice. https://arxiv.org/abs/2407.05407
    Chen et al. 2024, F5-TTS, section 3.3 (sway sampling). https://arxiv.org/abs/2410.06885
"""

from __future__ import annotations

import math
from typing import final

from attrs import frozen
from torch import Tensor

from fm_core.protocols import ProbabilityPath
from fm_plugins.grids.warp import warped

__all__ = ["Cosine"]


@final
@frozen
class Cosine:
    """Short steps near the source, t = 1 − cos(πu/2).

    >>> [round(t, 4) for t in Cosine().times(None, 2).tolist()]
    [0.0, 0.2929, 1.0]
    """

    def times(self, path: ProbabilityPath | None, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """Grid of `steps` steps over `span`.

        Args:
            path: Not looked at.
            steps: Number of steps N.
            span: First and last time, in [0, 1]; falling to invert.

        Returns:
            Times `(N + 1,)`, float64 on the CPU.

        Raises:
            TimeError: For a grid that does not exist.
        """
        # By the half angle, since 1 − cos cancels near u = 0.
        return warped(
            lambda u: 2 * (math.pi / 4 * u).sin().square(), lambda t: (t / 2).sqrt().asin() * (4 / math.pi), steps, span
        )
