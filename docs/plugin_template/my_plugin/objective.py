"""An objective: regression on the conditional velocity, at times that are logit-normal.

L = E ‖v(x_t, t) − (α'·x1 + σ'·x0)‖²,   logit t ~ N(mean, std²)

The minimiser is the marginal velocity E[dx_t/dt | x_t] whatever the times are drawn from; they decide where the network
is trained most, here in the middle of the path.

References:
    Lipman et al. 2023, Theorem 2. https://arxiv.org/abs/2210.02747
    Esser et al. 2024, Stable Diffusion 3, eq. 19. https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import torch
from attrs import field as attribute, frozen, validators
from fm_core import Field, PathSample, Prediction, ProbabilityPath
from fm_core.protocols import span_of
from fm_core.randomness import normal
from torch import Tensor

__all__ = ["LogitNormalMatching"]


@final
@frozen
class LogitNormalMatching:
    """Velocity regression at logit-normal times.

    Args:
        mean: Mean of logit t; above 0 times lie nearer to the data.
        std: Standard deviation of logit t.
    """

    needs: ClassVar[frozenset[Prediction]] = frozenset({Prediction.VELOCITY})

    mean: float = 0.0
    std: float = attribute(default=1.0, validator=validators.gt(0))

    def sample_time(
        self,
        path: ProbabilityPath,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Training times inside the path's span, shape `(B,)`."""
        low, high = span_of(path, Prediction.VELOCITY, self.needs)
        z = normal((batch,), generator=generator, device=device)
        return low + (high - low) * torch.sigmoid(self.mean + self.std * z)

    def loss(self, field: Field, sample: PathSample, cond: Any = None) -> Tensor:
        """Squared error of every sample, averaged over its event, shape `(B,)`."""
        predicted = field.predict(sample.x_t, sample.t, cond, Prediction.VELOCITY)
        error: Tensor = predicted - field.path.target(sample, Prediction.VELOCITY)
        return error.square().flatten(1).mean(1)
