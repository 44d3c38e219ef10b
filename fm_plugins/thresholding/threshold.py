"""The guidance that changes the data prediction by a function, and what becomes of the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from attrs import field as attribute, frozen
from torch import Tensor

from fm_core.errors import TimeError
from fm_core.guiding import renoised
from fm_core.prediction import Prediction
from fm_core.protocols import ProbabilityPath
from fm_core.shapes import over

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Threshold"]


@final
@frozen(eq=False)
class Threshold:
    """The data prediction kept in the range of the data.

    Args:
        bounded: The data prediction in its range, `(B, *D) -> (B, *D)`, sample by sample.
        keep_noise: Whether a DDIM step puts the network's noise back (diffusers' DDIM) or that of the bounded data
            (DDPM).
    """

    bounded: Callable[[Tensor], Tensor]
    keep_noise: bool = attribute(default=False, kw_only=True)

    needs: frozenset[Prediction] = attribute(default=frozenset({Prediction.DATA}), init=False, repr=False)
    acts_on = Prediction.DATA
    evals = 1
    layer = None

    @property
    def per_step(self) -> bool:
        """Whether what it does depends on where a step ends."""
        return self.keep_noise

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        """The bounded data prediction.

        Args:
            field: The field inside.
            x_t: States, shape `(B, *D)`.
            t: Times, shape `(B,)`.
            cond: Condition, any pytree with the batch first, or None.
            until: The time the solver is going to, shape `(B,)`; needed to keep the noise. Where it is t itself, no
                noise is put back.

        Returns:
            Shape `(B, *D)`.

        Raises:
            TimeError: If the noise shall be kept and the solver does not say where it is going.
        """
        data: Tensor = field.predict(x_t, t, cond, Prediction.DATA, until=until)
        bounded = self.bounded(data)
        return _keeping_noise(field.path, data, bounded, t, until) if self.keep_noise else bounded


def _keeping_noise(path: ProbabilityPath, data: Tensor, bounded: Tensor, t: Tensor, until: Tensor | None) -> Tensor:
    """The data prediction on which a DDIM step takes `bounded` as its data and puts the noise of `data` back."""
    if until is None:
        raise TimeError(
            "keep_noise=True puts the network's noise back at the end of a step, and this solver does not say where "
            "its steps end (until=None); use a solver with a fixed grid, such as 'ddim', or keep_noise=False"
        )
    return data + over(renoised(path, t, until), data) * (bounded - data)
