"""The Fréchet distance of two sets of samples, each summed up by the mean and the covariance of its features.

    FD = ‖μ_x − μ_y‖² + tr C_x + tr C_y − 2·tr (C_x^{1/2}·C_y·C_x^{1/2})^{1/2}

It is W2² between the two Gaussians of these moments (Dowson & Landau 1982); with the features of an Inception network
it is the FID. The trace of the root is the sum of the roots of the eigenvalues of a symmetric matrix, so no root of a
product that is not symmetric is taken, whose rounding adds imaginary parts. Covariances are divided by n − 1. The
estimate is biased upwards, the more the fewer the samples: compare equal n, and read it beside its floor.

References:
    Heusel et al. 2017, eq. 6. https://arxiv.org/abs/1706.08500
    Dowson & Landau 1982. https://doi.org/10.1016/0047-259X(82)90077-X
    Chong & Forsyth 2020 (bias). https://arxiv.org/abs/1911.07023
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from attrs import frozen
from torch import Tensor

from fm_core.errors import DataError
from fm_plugins.metrics.points import as_points

__all__ = ["Frechet"]


@final
@frozen(eq=False)
class Frechet:
    """Fréchet distance, squared as the FID is.

    >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> Frechet()(x, x + 3)
    18.0

    Args:
        features: Maps samples `(n, *D)` to features `(n, F)`, such as a trained classifier's; None compares the samples
            themselves.
        batch: Samples whose features are computed at once.
    """

    features: Callable[[Tensor], Tensor] | None = None
    batch: int = 1024

    def __call__(self, x: Tensor, y: Tensor) -> float:
        """The distance between samples `(n, *D)` and `(m, *D)`.

        Raises:
            DataError: If there are fewer than two samples of either: they have no covariance.
            ShapeError, DivergenceError: As `as_points` does.
        """
        a, b = as_points(self._featured(x), self._featured(y))
        if min(len(a), len(b)) < 2:
            raise DataError(
                f"the Fréchet distance compares covariances, which need two samples of each; got {len(a)} and {len(b)}"
            )
        (mean_a, root_a), (mean_b, root_b) = _moments(a), _moments(b)
        # The eigenvalues of C_x^{1/2}·C_y·C_x^{1/2} are the squares of the singular values of R_x·R_yᵀ, C = Rᵀ·R: a
        # root is never taken of a difference, and n < F costs n² in place of F².
        overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
        spread = root_a.square().sum() + root_b.square().sum()
        return float((mean_a - mean_b).square().sum() + (spread - 2 * overlap).clamp(min=0))

    @torch.no_grad()
    def _featured(self, x: Tensor) -> Tensor:
        return x if self.features is None else torch.cat([self.features(part) for part in torch.split(x, self.batch)])


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `(F,)`, and R `(min(n, F), F)` with `Rᵀ·R` the covariance."""
    mean = x.mean(0)
    centred = (x - mean) / (len(x) - 1) ** 0.5
    return mean, centred if len(x) <= x.shape[1] else torch.linalg.qr(centred, mode="r").R
