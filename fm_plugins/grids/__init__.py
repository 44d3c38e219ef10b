"""Grids: where a solver of N steps puts its N + 1 times.

A grid here is a warp w of time, an increasing map of [0, 1] onto itself, and its times over a span [a, b] are

    t_i = w(u_i),   u_i equally spaced from w⁻¹(a) to w⁻¹(b).

So the density of times belongs to t and not to the span: the grid of a sub-interval (editing, `start=0.4`) spaces its
times there as the whole grid does, and the grid of a falling span is the rising one reversed, as inversion needs.

    uniform      w(u) = u
    cosine       w(u) = 1 − cos(πu/2)              dense at the source, where w' = 0
    power        w(u) = 1 − (1 − u)^p              dense at the data for p > 1
    quadratic    power with p = 2                  DDIM's quadratic timesteps
    shift        w(u) = u/(u + shift·(1 − u))      dense at the source for shift > 1 (SD3, FLUX)
    flux_shift   shift with log(shift) linear in the number of image tokens
    beta         w = F⁻¹ of a Beta distribution    dense at both ends below 1

or a spacing of the noise level σ/α, whose times follow from the path (`noise_level.py`):

    karras       (σ/α)^{1/ρ} equally spaced        EDM's, ρ = 7
    sigma        σ/α equally spaced
    log_snr      log(α/σ) equally spaced
    sigmas       σ/α given by hand

References:
    Du et al. 2024, CosyVoice (cosine). https://arxiv.org/abs/2407.05407
    Song et al. 2021, DDIM, appendix D.2 (quadratic). https://arxiv.org/abs/2010.02502
    Esser et al. 2024, Stable Diffusion 3, section 5.3.2 (shift). https://arxiv.org/abs/2403.03206
    Lee et al. 2024 (beta). https://arxiv.org/abs/2407.12173
    Karras et al. 2022, EDM, equation 5 (karras). https://arxiv.org/abs/2206.00364
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
        Component(
            "grid",
            "flux_shift",
            f"{here}.shift:flux_shift",
            "The shift e^µ with µ linear in the number of image tokens",
            "https://github.com/black-forest-labs/flux",
            example={"tokens": 1024},
        ),
        Component(
            "grid",
            "beta",
            f"{here}.beta:Beta",
            "Quantiles of a Beta distribution: short steps near both ends",
            "https://arxiv.org/abs/2407.12173",
        ),
        Component(
            "grid",
            "karras",
            f"{here}.noise_level:karras",
            "ρ-th roots of σ/α equally spaced: short steps near the data",
            "https://arxiv.org/abs/2206.00364",
            example={"rho": 7.0, "sigma_min": 0.01, "sigma_max": 20.0},
        ),
        Component(
            "grid", "sigma", f"{here}.noise_level:sigma", "Equal steps in σ/α", "https://arxiv.org/abs/2010.02502"
        ),
        Component(
            "grid",
            "log_snr",
            f"{here}.noise_level:log_snr",
            "Equal steps in log(α/σ)",
            "https://arxiv.org/abs/2206.00927",
        ),
        Component(
            "grid",
            "sigmas",
            f"{here}.noise_level:sigmas",
            "Noise levels σ/α given by hand",
            "https://arxiv.org/abs/2206.00364",
            example={"levels": [10.0, 3.0, 1.0, 0.3, 0.1]},
        ),
    ]
