"""The smoothed segment of I-CFM: `x_t = (1 − t)·x0 + t·x1 + σ·ε`, with a third noise and any source.

Given both ends `p_t(x|x0, x1) = N((1 − t)·x0 + t·x1, σ²·I)`, whose mean moves and whose covariance does not, so
`u_t = x1 − x0`. With three unknowns a prediction is no longer linear in two: only the velocity is known, and nothing
converts.

References:
    Tong et al. 2024, equations 14 and 15. https://arxiv.org/abs/2302.00482
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen, validators
from torch import Tensor

from fm_core import PathSample, Prediction, PredictionError, ShapeError
from fm_core.gaussian import Source, source_samples
from fm_core.randomness import normal
from fm_core.shapes import batch_time, over

__all__ = ["ICFM"]


@frozen(eq=False)
class ICFM:
    """The path `x_t = (1 − t)·x0 + t·x1 + σ·ε`.

    Sampling starts from x0 itself, as Tong et al. do: σ is meant to be small beside the source.

    Args:
        sigma: Standard deviation of the smoothing noise, the same at all times.
        source: Draws x0, `(n, generator) -> (n, *D)`; standard normal for None.
    """

    sigma: float = field(default=0.0, validator=validators.ge(0.0))
    source: Source | None = None

    @property
    def provides(self) -> frozenset[Prediction]:
        """The velocity alone."""
        return frozenset({Prediction.VELOCITY})

    def sample_source(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Source samples x0, shape `(B, *D)`."""
        return source_samples(self.source, shape, generator, dtype, device)

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor, *, generator: torch.Generator | None = None) -> PathSample:
        """`(1 − t)·x0 + t·x1 + σ·ε`, shape `(B, *D)`; ε is drawn by the generator."""
        if x0.shape != x1.shape:
            raise ShapeError(f"x0 and x1 must have one shape; got {tuple(x0.shape)} and {tuple(x1.shape)}")
        t = batch_time(t, x1)
        x_t = torch.lerp(x0, x1, over(t, x1))
        if self.sigma:
            x_t = x_t.add_(normal(x1.shape, generator=generator, dtype=x1.dtype, device=x1.device), alpha=self.sigma)
        return PathSample(x_t, t, x0, x1)

    def target(self, sample: PathSample, kind: Prediction) -> Tensor:
        """`x1 − x0`, shape `(B, *D)`.

        Raises:
            PredictionError: For another kind than the velocity.
        """
        if kind != Prediction.VELOCITY:
            raise _unknown(kind)
        return sample.x1 - sample.x0

    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, *, src: Prediction, dst: Prediction) -> Tensor:
        """The value itself where `src` is `dst`.

        Raises:
            PredictionError: For two different kinds.
        """
        if src != dst:
            raise _unknown(dst if src == Prediction.VELOCITY else src)
        return value


def _unknown(kind: str) -> PredictionError:
    return PredictionError(
        f"the path icfm knows the velocity alone; got {str(kind)!r}: with a third noise the other predictions do not "
        "follow from it. Use the path 'linear' (σ = 0), where all convert."
    )
