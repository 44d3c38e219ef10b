"""A codec: data standardised by a known mean and scale, `z = (x − mean)/std`, so that the path lives at unit size."""

from __future__ import annotations

from typing import final

from attrs import field as attribute, frozen, validators
from torch import Tensor

__all__ = ["Standardised"]


@final
@frozen
class Standardised:
    """Maps data to unit size and back.

    Args:
        mean: Mean of the data.
        std: Standard deviation of the data.
    """

    mean: float = 0.0
    std: float = attribute(default=1.0, validator=validators.gt(0))

    def encode(self, x: Tensor) -> Tensor:
        """Data to the space of the path, elementwise, any shape."""
        return (x - self.mean) / self.std

    def decode(self, z: Tensor) -> Tensor:
        """The space of the path to data, elementwise, any shape."""
        return z * self.std + self.mean
