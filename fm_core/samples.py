"""What sampling gives."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from fm_core.transitions import Transitions

__all__ = ["Samples"]


@frozen(eq=False)
class Samples:
    """Samples, and what they cost.

    Args:
        x: Samples, shape `(B, *D)`.
        nfe: Network calls that each sample went through (the most over the chunks, where an adaptive solver differs).
        seed: Seed that draws these samples again.
        times: Times of the trajectory, float64 `(N+1,)`.
        status: Whether a sample is finite, bool `(B,)`.
        trajectory: States at these times, `(N+1, B, *D)`, if asked for.
        transitions: The states of noisy rows and their log-probabilities, if asked for.
    """

    x: Tensor
    nfe: int
    seed: int
    times: Tensor
    status: Tensor
    trajectory: Tensor | None = None
    transitions: Transitions | None = None

    @property
    def log_prob(self) -> Tensor | None:
        """Log-probability of every noisy transition, `(B, R)` in nats, if asked for."""
        return None if self.transitions is None else self.transitions.log_prob
