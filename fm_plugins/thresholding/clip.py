"""Static thresholding: the data prediction clamped to a range.

References:
    Saharia et al. 2022, section 2.3. https://arxiv.org/abs/2205.11487
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.prediction import Prediction
from fm_plugins.thresholding.noise import keeping_noise

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Clip"]


@final
@frozen
class Clip:
    """The data prediction clamped to [low, high].

    Args:
        low, high: The range of the data, in its units.
        keep_noise: Whether a DDIM step puts the network's noise back (diffusers' DDIM) or that of the clipped data
            (DDPM).

    Raises:
        ValueError: If the range is empty.
    """

    low: float = -1.0
    high: float = 1.0
    keep_noise: bool = attribute(default=False, kw_only=True)

    needs: frozenset[Prediction] = attribute(default=frozenset({Prediction.DATA}), init=False, repr=False)
    acts_on = Prediction.DATA
    evals = 1
    layer = None

    @property
    def per_step(self) -> bool:
        """Whether what it does depends on where a step ends."""
        return self.keep_noise

    def __attrs_post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the range of the data from {self.low} to {self.high} is empty; low must be below high")

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The clipped data prediction.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first, or None.
            until: The time the solver is going to, shape `(B,)`; needed to keep the noise.

        Returns:
            Shape `(B, *D)`.

        Raises:
            TimeError: If the noise shall be kept and the solver does not say where it is going.
        """
        data: Tensor = field.predict(x_t, t, cond, Prediction.DATA, until=until)
        clipped = data.clamp(self.low, self.high)
        return keeping_noise(field.path, data, clipped, t, until, "clip") if self.keep_noise else clipped
