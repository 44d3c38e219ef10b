"""Denoising diffusion probabilistic models: N small steps of noise, undone one by one.

The forward process multiplies and adds noise, `q(x_k | x_{k−1}) = N(√(1 − β_k)·x_{k−1}, β_k·I)` for k = 0 … N−1 (the
paper counts from 1), so that `q(x_k | x1) = N(√ᾱ_k·x1, (1 − ᾱ_k)·I)` with `ᾱ_k = Π_{j ≤ k} (1 − β_j)`. In this
library's notation and time that is the Gaussian path with

    α = √ᾱ_k,  σ = √(1 − ᾱ_k)   at   t = 1 − (k + 1)/N,

and x1 itself at t = 1, where there is no index: the path `ddpm`, smooth between these knots. What the paper calls x_0
is x1 here, and its ε is x0. Networks predict the noise, under the simple loss `E‖ε̂(x_k, k) − ε‖²` (objective `ddpm`),
and are told t instead of k.

Sampling is ancestral: `p(x_{k−1} | x_k)` has the mean of the posterior `q(x_{k−1} | x_k, x̂1)` and the variance β_k or
that of the posterior, `β̃_k = (1 − ᾱ_{k−1})/(1 − ᾱ_k)·β_k` (solver `ddpm`). On fewer than N steps the same formulas hold
for the β of the steps that are left.

References:
    Ho et al. 2020, Denoising diffusion probabilistic models. https://arxiv.org/abs/2006.11239
    Nichol & Dhariwal 2021 (squared cosine). https://arxiv.org/abs/2102.09672
    Lin et al. 2023 (zero terminal SNR). https://arxiv.org/abs/2305.08891
"""

from fm_core import Component, hookimpl

_HO = "Ho et al. 2020, https://arxiv.org/abs/2006.11239"


@hookimpl
def fm_components() -> list[Component]:
    """The path, the objective, the solver and the recipe `ddpm`."""
    return [
        Component(
            "path",
            "ddpm",
            "fm_plugins.ddpm.schedule:ddpm",
            "√ᾱ·x1 + √(1 − ᾱ)·x0 with ᾱ = Π(1 − β): linear, scaled-linear, squared-cosine or given β",
            _HO,
        ),
        Component(
            "objective", "ddpm", "fm_plugins.ddpm.objective:ddpm", "regression on the noise, the simple loss", _HO
        ),
        Component("solver", "ddpm", "fm_plugins.ddpm.solver:ddpm", "ancestral sampling, variance β or posterior", _HO),
        Component(
            "recipe",
            "ddpm",
            {"path": "ddpm", "objective": "ddpm", "solver": "ddpm"},
            "denoising diffusion: linear β, the simple loss on the noise, ancestral sampling",
            _HO,
        ),
    ]
