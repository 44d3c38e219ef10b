"""The ½-shortcuts of published solvers at order 2, which move trajectories and must be asked for by name.

With two predictions, the exact weight of the slope `S = (P_k − P_n)/((λ_k − λ_n)/h)` over a step h = λ_s − λ_t is

    data    α_s·(1 − (1 − e^{−h})/h),      noise    −σ_s·((e^h − 1)/h − 1).

Published solvers take half of some B(h) in its place, equal to it as h → 0:

    bh1                 ½·α_s·h                 −½·σ_s·h
    bh2 = midpoint      ½·α_s·(1 − e^{−h})      −½·σ_s·(e^h − 1)

bh1 and bh2 are UniPC's, for the predictor of order 2 and the corrector of order 2 alike; "midpoint" is the name of bh2
in DPM-Solver-2, DPM-Solver++ 2S and 2M, whose exact form diffusers calls "heun". At any other order there is none.

References:
    Zhao et al. 2023, UniPC, section 3.3 and appendix. https://arxiv.org/abs/2302.04867
    Lu et al. 2022, DPM-Solver++, Algorithms 1 and 2. https://arxiv.org/abs/2211.01095
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fm_core import Prediction
from fm_plugins.multistep.integrals import Clock
from fm_plugins.multistep.rows import Weights

__all__ = ["SHORTCUTS", "Shortcut", "shortened"]

Shortcut = Literal["bh1", "bh2", "midpoint"]

SHORTCUTS = (None, "bh1", "bh2", "midpoint")


def shortened(shortcut: str, clock: Clock, i: int, j: int, nodes: Sequence[int], tau2: float) -> Weights:
    """The weights of a step from i to j through two predictions with the shortcut; the exact ones for any other number.

    Args:
        shortcut: "bh1", "bh2" or "midpoint".
        clock: Of data or noise in λ.
        i, j: Indices of the times at which the step begins and ends.
        nodes: Indices of the times of the predictions.
        tau2: τ² of the step.
    """
    usable = clock.usable(nodes, i, j)
    if len(usable) != 2:
        return clock.weights(i, j, nodes, tau2)
    (other,) = (node for node in usable if node != i)
    (mass,) = clock.weights(i, j, [i], tau2).values()
    gap = float(clock.log_ratio[j] - clock.log_ratio[i])
    if shortcut == "bh1":
        whole = gap * float(clock.alpha[j] if clock.space is Prediction.DATA else -clock.sigma[j]) * (1 + tau2)
    else:
        whole = mass
    slope = 0.5 * whole * gap / float(clock.log_ratio[other] - clock.log_ratio[i])
    return {i: mass - slope, other: slope}
