"""Reflow: the teacher's own source–data pairs, on which to train the next flow.

    one = pipe.fit(x1, steps=5_000).pipeline                        # 1-rectified
    two = one.fit(reflow(one, 10_000, nfe=100), steps=5_000).pipeline      # 2-rectified, and so on

References:
    Liu et al. 2023, Algorithm 1. https://arxiv.org/abs/2209.03003
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fm_core import CompatError, Pairs, Pipeline, Problem
from fm_core.building import name_of
from fm_core.drawing import whole_shape
from fm_core.protocols import declared
from fm_core.randomness import BlockGenerator, fresh_seed

__all__ = ["reflow"]


def reflow(
    teacher: Pipeline,
    shape: int | Sequence[int],
    *,
    cond: Any = None,
    steps: int | None = None,
    nfe: int | None = None,
    times: Sequence[float] | Tensor | None = None,
    seed: int | None = None,
    chunk: int | None = None,
) -> Pairs:
    """Pairs (x0, x1) in which x1 is where the teacher carries x0.

    Args:
        teacher: Trained pipeline, with the solver that makes the pairs (`teacher.replace(solver=…)` for another).
        shape: Shape `(N, *D)`, or N where the teacher remembers D from its training.
        cond: Condition of every pair, N rows; it rides along into the training.
        steps, nfe, times: Budget of the solver, as in `sample`; none for an adaptive one.
        seed: Seed of the source; fresh entropy for None.
        chunk: Number of pairs made at once; all by default.

    Returns:
        The pairs, with a line of provenance: solver, network calls, number, seed.

    Raises:
        CompatError: For a stochastic solver, which does not couple x0 to one x1.
    """
    if teacher.solver is not None and declared(teacher.solver, "stochastic"):
        raise CompatError(
            [
                Problem(
                    "reflow with a stochastic solver",
                    "reflow pairs x0 with the one x1 that the flow carries it to; with fresh noise there is no such x1",
                    "use teacher.replace(solver='heun') or another deterministic solver",
                )
            ]
        )
    seed = fresh_seed() if seed is None else seed
    whole = whole_shape(teacher, shape)
    device, dtype = teacher.placement
    draws = BlockGenerator(seed, 0, whole[0], device)
    x0 = draws.draw(lambda n, g: teacher.path.sample_source((n, *whole[1:]), generator=g, dtype=dtype, device=device))
    out = teacher.sample(x0=x0, cond=cond, steps=steps, nfe=nfe, times=times, seed=seed, chunk=chunk)
    solver = name_of(teacher.solver)
    return Pairs(
        x0, out.x, cond, provenance=f"reflow: {whole[0]} pairs by {solver}, {out.nfe} network calls, seed {seed}"
    )
