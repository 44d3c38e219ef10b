"""Grids: where a solver of N steps puts its N + 1 times.

A grid here is a warp w, an increasing map of [0, 1] onto itself, and its times over a span [a, b] are

    t_i = w(u_i),   u_i equally spaced from w⁻¹(a) to w⁻¹(b).

So the density of times belongs to t and not to the span: the grid of a sub-interval (editing, `start=0.4`) spaces its
times there as the whole grid does, and the grid of a falling span is the rising one reversed, as inversion needs.

    uniform      w(u) = u
    cosine       w(u) = 1 − cos(πu/2)              dense at the source, where w' = 0
    power        w(u) = 1 − (1 − u)^p              dense at the data for p > 1
    quadratic    power with p = 2                  DDIM's quadratic timesteps
    shift        w(u) = u/(u + shift·(1 − u))      dense at the source for shift > 1 (SD3, FLUX)

References:
    Du et al. 2024, CosyVoice (cosine). https://arxiv.org/abs/2407.05407
    Song et al. 2021, DDIM, appendix D.2 (quadratic). https://arxiv.org/abs/2010.02502
    Esser et al. 2024, Stable Diffusion 3, section 5.3.2 (shift). https://arxiv.org/abs/2403.03206
"""

from __future__ import annotations

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The grids, by name."""
    here = "fm_plugins.grids"
    return [
        Component("grid", "uniform", f"{here}.uniform:Uniform", "Equal steps in t"),
        Component(
            "grid",
            "cosine",
            f"{here}.cosine:Cosine",
            "1 − cos(πu/2): short steps near the source",
            "https://arxiv.org/abs/2407.05407",
        ),
        Component(
            "grid",
            "power",
            f"{here}.power:Power",
            "1 − (1−u)^p: short steps near the data",
            "https://arxiv.org/abs/2206.00364",
            example={"exponent": 1.25},
        ),
        Component(
            "grid",
            "quadratic",
            f"{here}.power:quadratic",
            "1 − (1−u)²: DDIM's quadratic timesteps",
            "https://arxiv.org/abs/2010.02502",
        ),
        Component(
            "grid",
            "shift",
            f"{here}.shift:Shift",
            "Noise level s ↦ shift·s/(1 + (shift−1)·s), as in SD3 and FLUX",
            "https://arxiv.org/abs/2403.03206",
            example={"shift": 3.0},
        ),
    ]
