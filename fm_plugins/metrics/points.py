"""What a metric sees of samples: points in R^d, float64, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_core.errors import DataError, DivergenceError, ShapeError

__all__ = ["as_points"]


def as_points(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of samples as points, events flattened, float64, on x's device.

    Args:
        x: Samples, shape `(n, *D)`.
        y: Samples, shape `(m, *D)`.

    Returns:
        Points of shapes `(n, d)` and `(m, d)`, d the product of D (1 for scalars).

    Raises:
        ShapeError: If the events differ in shape, or there is no batch dimension.
        DataError: If a set or the event is empty.
        DivergenceError: If a sample is not finite.
    """
    if x.ndim == 0 or y.ndim == 0 or x.shape[1:] != y.shape[1:]:
        raise ShapeError(
            f"a metric compares samples of one event shape, (n, *D) with (m, *D); got {tuple(x.shape)} and "
            f"{tuple(y.shape)}. Reshape one of them; a single sample needs a batch dimension, x[None]."
        )
    return _flat(x, "first", x.device), _flat(y, "second", x.device)


def _flat(x: Tensor, which: str, device: torch.device) -> Tensor:
    if x.numel() == 0:
        raise DataError(
            f"the {which} set of samples is empty, shape {tuple(x.shape)}; a distance needs at least one sample of each"
        )
    # MPS has no float64, and distances of close points lose all their digits in float32.
    points = x.detach().to("cpu" if device.type == "mps" else device, torch.float64).reshape(x.shape[0], -1)
    bad = ~points.isfinite().all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise DivergenceError(
            f"{int(bad.sum())} of {len(points)} samples of the {which} set are not finite (the first is number "
            f"{first}), so their distance to anything is undefined. Find where they diverged, or count them and pass "
            "the others."
        )
    return points
