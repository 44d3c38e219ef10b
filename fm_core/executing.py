"""The one executor of all tables: it asks the network where a row needs it, and adds up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fm_core.combining import combine, multiplies, product
from fm_core.plan import Plan
from fm_core.protocols import OnStep
from fm_core.randomness import normal
from fm_core.shapes import time_dtype

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["OnNoise", "execute"]

OnNoise = Callable[[int, Tensor, Tensor], None]
"""Called with a row's index, the state that it made, and the noise in it."""


def execute(
    plan: Plan,
    field: Field,
    x: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    on_noise: OnNoise | None = None,
) -> Tensor:
    """Runs a plan: the one executor of all tables.

    Args:
        plan: The table.
        field: Gives the predictions p_j, of the plan's space.
        x: First state y_0, shape `(B, *D)`. The state keeps its dtype.
        cond: Condition, any pytree with the batch first, or None.
        generator: Draws the noise z_s, standard normal; a `BlockGenerator` draws it independently of the batch.
        on_step: Called with `(t, x)` for y_0 and every accepted state.
        on_noise: Called with `(s, x, z)` for the state that row s made with the noise z.

    Returns:
        The last state, shape `(B, *D)`.
    """
    dtype, shape, device = x.dtype, x.shape, x.device
    times = plan.clock(shape[0], time_dtype(dtype), device)
    groups, weights = plan.products(dtype) if multiplies(x) else (plan.steps, None)
    ask, kinds = field.ask, (plan.space,)
    held: dict[int, Tensor] = {0: x}
    if on_step:
        on_step(plan.t0, x)
    del x  # the first state is forgotten after its last use, like any other
    for i, group in enumerate(groups):
        for j, target in group.evaluate:
            prediction = ask(held[j], times[j], cond, kinds, times[target])
            held[-1 - j] = prediction if prediction.dtype is dtype else prediction.to(dtype)
            del prediction  # or it would outlive its last use
        terms = [held[index] for index in group.operands]
        rows = weights[i] if weights else None
        made = [combine(group.weights[0], terms)] if rows is None else product(rows, terms)
        del terms
        if group.noise:
            z = normal(shape, generator=generator, dtype=dtype, device=device)
            made[-1].add_(z, alpha=group.noise)
            if on_noise:
                on_noise(group.first + len(made) - 2, made[-1], z)
            del z
        held.update(enumerate(made, group.first))
        for index in group.spent:
            del held[index]
        if on_step:
            for time, state in zip(group.accepted, made):
                if time is not None:
                    on_step(time, state)
    return made[-1]
