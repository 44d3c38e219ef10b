"""Adaptive ODE solvers through torchdiffeq: a tolerance instead of a number of steps.

An embedded Runge–Kutta pair takes a step twice from the same stages, at orders p and p − 1. The difference e estimates
the error, and the step is taken if for every sample b

    ‖e_b / (atol + rtol·max(|x_b|, |x'_b|))‖_RMS ≤ 1,

otherwise it is tried again, shorter; the next one is `0.9·‖·‖^(−1/p)` times as long. The tolerance holds for *every*
sample: the norm is the maximum over samples of each one's root mean square, where torchdiffeq's is one mean over the
batch, under which a few hard samples hide among many easy ones. Samples still share their steps, so a sample's last
digits, within the tolerance, depend on the hardest of its batch.

    dopri5          order 5, 6 network calls a step    Dormand & Prince 1980
    dopri8          order 8, 13                        Prince & Dormand 1981
    bosh3           order 3, 3                         Bogacki & Shampine 1989
    fehlberg2       order 2, 2                         Fehlberg 1969
    adaptive_heun   order 2, 1

References:
    Chen et al. 2018, Neural ODEs (adjoint). https://arxiv.org/abs/1806.07366
    Hairer, Nørsett & Wanner 1993, Solving ODEs I, section II.4. https://doi.org/10.1007/978-3-540-78862-1
    torchdiffeq. https://github.com/rtqichen/torchdiffeq
"""

from __future__ import annotations

from fm_core import Component, hookimpl

_REFERENCE = "https://github.com/rtqichen/torchdiffeq"


@hookimpl
def fm_components() -> list[Component]:
    """The adaptive solvers, by name."""
    summaries = {
        "dopri5": "Adaptive Dormand–Prince, order 5, 6 calls a step",
        "dopri8": "Adaptive Dormand–Prince, order 8, 13 calls a step",
        "bosh3": "Adaptive Bogacki–Shampine, order 3, 3 calls a step",
        "fehlberg2": "Adaptive Runge–Kutta–Fehlberg, order 2, 2 calls a step",
        "adaptive_heun": "Adaptive Heun, order 2, 1 call a step",
    }
    here = "fm_plugins.torchdiffeq.adaptive"
    return [Component("solver", name, f"{here}:{name}", summary, _REFERENCE) for name, summary in summaries.items()]
