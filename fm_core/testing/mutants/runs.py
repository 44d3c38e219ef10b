"""Solvers that break what belongs to a run, with one defect each: its noise, state, condition or gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_core.shapes import map_tensors
from fm_core.testing.mutants.plans import Loop, maruyama
from fm_core.testing.mutants.planting import Changed, plant
from fm_core.testing.mutants.solvers import STATEFUL, loop, velocity, wrapped

__all__: list[str] = []


def _noisy(draw: Any) -> Any:
    """A loop that adds noise from `draw(x, generator)`."""
    return lambda: Loop(
        lambda field, x, t, s, g: x + (s - t) * velocity(field, x, t) + 0.1 * draw(x, g), stochastic=True
    )


plant("solver", "seeds", "noise from torch's global generator", _noisy(lambda x, g: torch.randn(x.shape).to(x)))
plant(
    "solver",
    "seeds",
    "a seed of its own for every run",
    _noisy(lambda x, g: torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)),
)
plant("solver", "seeds", "declared deterministic, with noise", lambda: Changed(maruyama(), stochastic=False))


def _of_first(cond: Any) -> Any:
    return map_tensors(lambda value: value[:1].expand_as(value), cond)


plant(
    "solver",
    "condition_reaches_the_network",
    "the condition dropped",
    wrapped(lambda solve, *a, cond=None, **k: solve(*a, **k)),
)
plant(
    "solver",
    "condition_reaches_the_network",
    "the first sample's condition for all",
    wrapped(lambda solve, *a, cond=None, **k: solve(*a, cond=_of_first(cond), **k)),
)
plant(
    "solver",
    "condition_reaches_the_network",
    "conditions that are no tensor dropped",
    wrapped(lambda solve, *a, cond=None, **k: solve(*a, cond=cond if isinstance(cond, Tensor) else None, **k)),
)
plant(
    "solver",
    "condition_reaches_the_network",
    "the later half of the run asked without the condition",
    wrapped(
        lambda solve, f, x, times, *, cond=None, **k: solve(
            Changed(f, ask=lambda x, t, c, *a: f.ask(x, t, c if float(t[0]) < 0.5 else None, *a)),
            x,
            times,
            cond=cond,
            **k,
        )
    ),
)
plant(
    "solver",
    "images_are_rows_of_numbers",
    "half speed on images",
    loop(lambda field, x, t, s, g: velocity(field, x, t) * (1 if x.ndim == 2 else 0.5)),
)
plant(
    "solver",
    "images_are_rows_of_numbers",
    "the velocity's norm over the channels, where over the event is meant",
    loop(lambda field, x, t, s, g: _limited(velocity(field, x, t))),
)
plant(
    "solver",
    "images_are_rows_of_numbers",
    "flat states only",
    loop(lambda field, x, t, s, g: velocity(field, x, t) @ torch.eye(x.shape[1]).to(x)),
)
plant("solver", "gradients_pass", "states detached", loop(lambda field, x, t, s, g: velocity(field, x.detach(), t)))
plant(
    "solver",
    "gradients_pass",
    "the network asked under no_grad",
    wrapped(lambda solve, *a, **k: torch.no_grad()(solve)(*a, **k)),
    found="samplers decorated with no_grad",
)
plant(
    "solver",
    "gradients_pass",
    "the last state detached",
    wrapped(lambda solve, *a, **k: solve(*a, **k).detach()),
)


def _limited(u: Tensor) -> Tensor:
    limited: Tensor = u / u.norm(dim=1, keepdim=True).clamp(min=1)
    return limited


class _Counting:
    """Adams–Bashforth with step index and history on the solver."""

    def __init__(self, what: str) -> None:
        self.what, self.index = what, 0
        self.last: Tensor | None = None

    def __call__(self, field: Any, x: Tensor, t: float, s: float, generator: Any) -> Tensor:
        if self.what == "index":
            return self._by_index(field, x, t, s)
        before = self.last
        self.last = velocity(field, x, t)
        slope = self.last if before is None or before.shape != x.shape else 1.5 * self.last - 0.5 * before
        return x + (s - t) * slope

    def _by_index(self, field: Any, x: Tensor, t: float, s: float) -> Tensor:
        u = velocity(field, x, t)
        self.index += 1
        return x + (s - t) * u * (1.0 if self.index % 2 else 0.5)


plant(
    "solver",
    "threads_share_it",
    "the step's index kept on the solver",
    lambda: Loop(_Counting("index")),
    found=STATEFUL,
)
plant(
    "solver", "threads_share_it", "the history kept on the solver", lambda: Loop(_Counting("history")), found=STATEFUL
)
plant("solver", "stops_on_nan", "NaN replaced by 0", loop(lambda field, x, t, s, g: velocity(field, x, t).nan_to_num()))


def _again(field: Any, x: Tensor, t: float, s: float, generator: Any) -> Tensor:
    while not bool((u := velocity(field, x, t)).isfinite().all()):
        pass
    return u


plant("solver", "stops_on_nan", "a step tried until it is finite", loop(_again), found="torchdiffeq under python -O")
