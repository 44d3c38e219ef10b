"""A batch carried chunk by chunk: what is finished outlives an error in a later chunk, and samples that a solver gives
up do not take the others along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor

from fm_core.transitions import joined

__all__ = ["Gathered", "apart", "streamed"]


class Part(Protocol):
    """What a run gives for some rows of the batch: `Samples`, or `Encoded`."""

    @property
    def x(self) -> Tensor: ...
    @property
    def nfe(self) -> int: ...
    @property
    def status(self) -> Tensor: ...
    @property
    def trajectory(self) -> Tensor | None: ...


P = TypeVar("P", bound=Part)


def streamed(carry: Callable[[slice], P], batch: int, chunk: int, found_by: Callable[[P], str]) -> P:
    """The whole batch, chunk after chunk; an error takes those that are finished with it, as `error.finished`.

    Args:
        carry: Carries these rows.
        batch: Number of samples.
        chunk: Number of samples to carry at once.
        found_by: What finished samples depend on, for the note on the error.
    """
    gathered: Gathered = Gathered(batch)
    try:
        for first in range(0, batch, chunk):
            gathered.add(carry(slice(first, min(first + chunk, batch))))
    except BaseException as error:  # Ctrl-C, too, must not lose hours of work
        if gathered.parts:
            finished: P = gathered.whole()
            error.finished = finished  # type: ignore[attr-defined]
            error.add_note(
                f"The first {len(finished.x)} of {batch} samples are finished: `error.finished` holds them. Each "
                f"depends on {found_by(finished)} alone."
            )
        raise
    result: P = gathered.whole()
    return result


def apart(carry: Callable[[slice], P], lost: Callable[[slice], P], rows: slice, spent: int) -> P:
    """Rows that a solver gave up together for those among them that diverge: half by half, until these are alone.

    Args:
        carry: Carries rows again.
        lost: What there is of a row that diverges.
        rows: The rows given up.
        spent: Network calls that this has cost.
    """
    count = rows.stop - rows.start
    if count == 1:
        made = lost(rows)
    else:
        halves, middle = Gathered(count), rows.start + count // 2
        halves.add(carry(slice(rows.start, middle)))
        halves.add(carry(slice(middle, rows.stop)))
        made = halves.whole()
    return evolve(made, nfe=made.nfe + spent)  # type: ignore[misc]


@frozen(eq=False)
class Gathered:
    """Chunks as they come. Without gradients they are written into one tensor of the whole batch at once: joined at the
    end, they would be held twice.
    """

    batch: int
    parts: list[Any] = attribute(factory=list, init=False)
    _whole: dict[str, Tensor] = attribute(factory=dict, init=False)

    def add(self, part: Any) -> None:
        """The next rows."""
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

    def whole(self) -> Any:
        """All rows so far."""
        parts = self.parts
        trajectories = [part.trajectory for part in parts if part.trajectory is not None]
        transitions = [part.transitions for part in parts if getattr(part, "transitions", None) is not None]
        return evolve(
            parts[0],
            x=self._joined("x", [part.x for part in parts], 0),
            nfe=max(part.nfe for part in parts),
            status=torch.cat([part.status for part in parts]),
            trajectory=self._joined("trajectory", trajectories, 1) if trajectories else None,
            **({"transitions": joined(transitions)} if transitions else {}),
        )

    def _joined(self, name: str, parts: list[Tensor], dim: int) -> Tensor:
        if name in self._whole:
            return self._whole[name].narrow(dim, 0, sum(part.shape[dim] for part in parts))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
