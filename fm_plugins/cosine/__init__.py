"""The cosine path, a quarter turn from noise to data: `x_t = sin(πt/2)·x1 + cos(πt/2)·x0`.

α² + σ² = 1, and the angle grows uniformly, so the velocity is v itself but for a factor: `dx_t/dt = −(π/2)·v`, and its
size is that of the data all along. Albergo & Vanden-Eijnden 2023 call it the trigonometric interpolant, SiT (Ma et al.
2024) the generalised variance-preserving path, GVP. Nichol & Dhariwal's squared cosine is the same ᾱ, offset by 0.008
and taken at discrete steps: `ddpm` with `betas="squared_cosine"`.

References:
    Albergo & Vanden-Eijnden 2023, Building normalizing flows with stochastic interpolants.
    https://arxiv.org/abs/2209.15571
    Ma et al. 2024, SiT. https://arxiv.org/abs/2401.08740
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The path `cosine`."""
    return [
        Component(
            "path",
            "cosine",
            "fm_plugins.cosine.schedule:cosine",
            "x_t = sin(πt/2)·x1 + cos(πt/2)·x0 (GVP, trigonometric interpolant)",
            "Albergo & Vanden-Eijnden 2023, https://arxiv.org/abs/2209.15571",
        )
    ]
