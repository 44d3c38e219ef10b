"""Regression on the data, and on v: what networks predict besides noise, score and velocity.

Noise prediction says nothing of the data where α = 0, and divides by α near it; data prediction is its mirror image at
σ = 0. Salimans & Ho 2022 predict `v = α·x0 − σ·x1`, which is informative at both ends: with α = sin φ, σ = cos φ it is
`−dx/dφ`, the velocity by the angle. All losses are weighted losses of one kind, `‖Δx̂‖² : ‖Δε̂‖² : ‖Δv̂‖² = σ² : α² :
(α² + σ²)²` for one network on one path, so the weightings of the literature are named for any of them.

References:
    Salimans & Ho 2022, section 4. https://arxiv.org/abs/2202.00512
"""

from fm_core import Component, hookimpl

_SALIMANS = "Salimans & Ho 2022, https://arxiv.org/abs/2202.00512"


@hookimpl
def fm_components() -> list[Component]:
    """The objectives `data` and `v`."""
    return [
        Component("objective", "data", "fm_plugins.denoising.objective:data", "regression on the data", _SALIMANS),
        Component("objective", "v", "fm_plugins.denoising.objective:v", "regression on v = α·x0 − σ·x1", _SALIMANS),
    ]
