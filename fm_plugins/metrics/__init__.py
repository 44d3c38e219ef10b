"""Distances between two sets of samples, the energy of a path, and the floor that gives such figures a meaning.

    wasserstein2             W2² = min_π E‖x − π(x)‖², exact
    sliced_wasserstein2      SW2² = E_θ W2²(⟨θ, x⟩, ⟨θ, y⟩), θ uniform on the sphere
    energy_distance          2E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖
    frechet                  W2² between the Gaussians of equal moments, of samples or of their features (FID)
    normalized_path_energy   |∫E‖v‖² dt − W2²(q0, q1)| / W2²(q0, q1)

The first four are called with samples, `metric(x, y)` of shapes `(n, *D)` and `(m, *D)`, and return a float, computed
in float64. None of them is 0 between two finite samples of one law: read each beside its `floor`, its mean between
independent draws of the very same generator at the very same n. The last one takes a velocity field and the two ends;
it has a floor of its own.

References:
    Peyré & Cuturi 2019, Computational optimal transport. https://arxiv.org/abs/1803.00567
    Székely & Rizzo 2013, Energy statistics. https://doi.org/10.1016/j.jspi.2013.03.018
    Tong et al. 2024, Minibatch OT (NPE). https://arxiv.org/abs/2302.00482
"""

from __future__ import annotations

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The metrics, by name."""
    here = "fm_plugins.metrics"
    return [
        Component(
            "metric",
            "wasserstein2",
            f"{here}.wasserstein2:Wasserstein2",
            "Exact 2-Wasserstein distance",
            "https://arxiv.org/abs/1803.00567",
        ),
        Component(
            "metric",
            "sliced_wasserstein2",
            f"{here}.sliced_wasserstein2:SlicedWasserstein2",
            "2-Wasserstein distance averaged over lines",
            "https://doi.org/10.1007/s10851-014-0506-3",
        ),
        Component(
            "metric",
            "energy_distance",
            f"{here}.energy_distance:EnergyDistance",
            "Energy distance, biased (≥ 0) or unbiased",
            "https://doi.org/10.1016/j.jspi.2013.03.018",
        ),
        Component(
            "metric",
            "frechet",
            f"{here}.frechet:Frechet",
            "Fréchet distance of means and covariances, as in the FID",
            "https://arxiv.org/abs/1706.08500",
        ),
        Component(
            "metric",
            "normalized_path_energy",
            f"{here}.path_energy:NormalizedPathEnergy",
            "How much more energy a field spends than optimal transport",
            "https://arxiv.org/abs/2302.00482",
        ),
    ]
