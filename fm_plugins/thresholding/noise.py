"""What becomes of the noise when the data prediction is changed."""

from __future__ import annotations

from torch import Tensor

from fm_core.errors import TimeError
from fm_core.guiding import renoised
from fm_core.protocols import ProbabilityPath
from fm_core.shapes import over

__all__ = ["keeping_noise"]


def keeping_noise(
    path: ProbabilityPath, data: Tensor, changed: Tensor, t: Tensor, until: Tensor | None, who: str
) -> Tensor:
    """The data prediction on which a DDIM step takes `changed` as its data and puts the noise of `data` back.

    Args:
        path: Gaussian path.
        data: The network's data prediction, shape `(B, *D)`.
        changed: The data to use, shape `(B, *D)`.
        t: Times, shape `(B,)`.
        until: The time the solver is going to, shape `(B,)`. Where it is t itself, no noise is put back.
        who: The guidance, for the message.

    Raises:
        TimeError: If the solver does not say where it is going.
    """
    if until is None:
        raise TimeError(
            f"{who} with keep_noise=True puts the network's noise back at the end of a step, and this solver does not "
            "say where its steps end (until=None); use a solver with a fixed grid, such as 'ddim', or keep_noise=False"
        )
    return data + over(renoised(path, t, until), data) * (changed - data)
