"""Denoising diffusion implicit models: a family of samplers for one network, from deterministic to ancestral.

Every member has the marginals of the path: with D the data and N = (x_t − α_t·D)/σ_t the noise prediction,

    x_s = α_s·D + √(σ_s² − σ_η²)·N + σ_η·z,    σ_η² = η²·β̃,    β̃ = (σ_t² − (α_t/α_s)²·σ_s²)·σ_s²/σ_t².

η = 1 is DDPM's ancestral sampling. η = 0 is deterministic: the exact solution of the probability-flow ODE wherever D
stands still, and on a falling grid its inverse.
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The solver `ddim`, with the paper's η, and the recipe of its name."""
    return [
        Component(
            "solver",
            "ddim",
            "fm_plugins.ddim.solver:ddim",
            "DDIM with the paper's η on any monotone grid: order 1, one evaluation per step",
            "Song et al. 2021, https://arxiv.org/abs/2010.02502",
            example={"eta": 0.5},
        ),
        Component(
            "recipe",
            "ddim",
            {"path": "ddpm", "objective": "ddpm", "solver": "ddim"},
            "denoising diffusion, sampled deterministically: the recipe ddpm with η = 0",
            "Song et al. 2021, https://arxiv.org/abs/2010.02502",
        ),
    ]
