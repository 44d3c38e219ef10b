"""What sampling gives, and how the samples of chunks become one."""

from __future__ import annotations

import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor

from fm_core.transitions import Transitions, joined

__all__ = ["Gathered", "Samples"]


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


@frozen(eq=False)
class Gathered:
    """Chunks as they come. Without gradients they are written into one tensor of the whole batch at once: joined at the
    end, they would be held twice.
    """

    batch: int
    parts: list[Samples] = attribute(factory=list, init=False)
    _whole: dict[str, Tensor] = attribute(factory=dict, init=False)

    def add(self, part: Samples) -> None:
        """The samples of the next rows."""
        if not torch.is_grad_enabled() and len(part.x) < self.batch:
            x, trajectory = self._written("x", part.x, 0), part.trajectory
            if trajectory is not None:
                trajectory = self._written("trajectory", trajectory, 1)
            part = evolve(part, x=x, trajectory=trajectory)
        self.parts.append(part)

    def _written(self, name: str, part: Tensor, dim: int) -> Tensor:
        """The part as a view into the tensor of the whole."""
        if name not in self._whole:
            self._whole[name] = part.new_empty((*part.shape[:dim], self.batch, *part.shape[dim + 1 :]))
        into = self._whole[name].narrow(dim, sum(len(before.x) for before in self.parts), part.shape[dim])
        return into.copy_(part)

    def samples(self) -> Samples:
        """Those of all rows so far."""
        parts = self.parts
        trajectories = [part.trajectory for part in parts if part.trajectory is not None]
        transitions = [part.transitions for part in parts if part.transitions is not None]
        return evolve(
            parts[0],
            x=self._joined("x", [part.x for part in parts], 0),
            nfe=max(part.nfe for part in parts),
            status=torch.cat([part.status for part in parts]),
            trajectory=self._joined("trajectory", trajectories, 1) if trajectories else None,
            transitions=joined(transitions) if transitions else None,
        )

    def _joined(self, name: str, parts: list[Tensor], dim: int) -> Tensor:
        if name in self._whole:
            return self._whole[name].narrow(dim, 0, sum(part.shape[dim] for part in parts))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
