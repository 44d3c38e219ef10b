"""Posterior guidance: samples of the data given a measurement `y = A(x1) + σ_y·n`, from a network trained without it.

By Bayes' rule the posterior's score is `∇ log p_t(x_t) + ∇ log p(y|x_t)`. The last is not known, for `p(y|x_t) = ∫
p(y|x1)·p(x1|x_t) dx1`. The three methods here take p(x1|x_t) as a Gaussian around the data prediction D = E[x1|x_t], so
that y given x_t is `N(A D, A C Aᵀ + σ_y²·I)`, and differ in its covariance C alone:

    dps      C = 0
    pigdm    C = r_t²·I,  r_t² = σ²/(α² + σ²): that of data with unit variance
    mmps     C = Cov[x1|x_t] = (σ²/α)·∂D/∂x_t, the second moment that the network knows

C is held fixed in the derivative (it is constant for Gaussian data), which leaves one form for all,

    ∇ log p(y|x_t) ≈ (∂D/∂x_t)ᵀ·Aᵀ·v,    (A C Aᵀ + σ_y²·I)·v = y − A(D).

With a linear A, mmps is exact on any Gaussian data and pigdm on that of unit variance; dps is exact as σ → 0, and too
strong before: at high noise it takes D for the data themselves.

Where mmps comes from: `D = (x_t + σ²·∇ log p_t)/α` and `∇² log p_t = (α²·Cov[x1|x_t] − σ²·I)/σ⁴` (Tweedie's formulas
for x_t = α·x1 + σ·x0) give `∂D/∂x_t = (α/σ²)·Cov[x1|x_t]`, a symmetric matrix.

The network is called once for a prediction; its graph then serves one vector–Jacobian product (dps, pigdm), or one for
each iteration of conjugate gradients and a last one (mmps). Every step is taken for each sample by itself.

References:
    Chung et al. 2023, Diffusion posterior sampling, section 3, Algorithm 1. https://arxiv.org/abs/2209.14687
    Song et al. 2023, Pseudoinverse-guided diffusion models. https://openreview.net/forum?id=9_gsMA8MRKQ
    Rozet et al. 2024, Learning diffusion priors from observations (MMPS). https://arxiv.org/abs/2405.13712
"""

from __future__ import annotations

from typing import Any

from fm_core import Component, hookimpl


def _identity(x: Any) -> Any:
    """The measurement of the data themselves: an operator to build the examples with."""
    return x


@hookimpl
def fm_components() -> list[Component]:
    """The guidances `dps`, `pigdm` and `mmps`."""
    problem = {"y": 0.0, "operator": _identity, "noise": 0.5}
    return [
        Component(
            "guidance",
            "dps",
            "fm_plugins.posterior_guidance.dps:dps",
            "posterior of a measurement by the data prediction alone; any differentiable operator",
            "Chung et al. 2023, https://arxiv.org/abs/2209.14687",
            example=problem,
            expected_failures={
                "posterior_of_a_linear_measurement": "dps takes the data as known, C = 0: exact only as σ → 0"
            },
        ),
        Component(
            "guidance",
            "pigdm",
            "fm_plugins.posterior_guidance.pigdm:pigdm",
            "posterior of a linear measurement, x1 given x_t of covariance r_t²·I",
            "Song et al. 2023, https://openreview.net/forum?id=9_gsMA8MRKQ",
            example=problem,
        ),
        Component(
            "guidance",
            "mmps",
            "fm_plugins.posterior_guidance.mmps:mmps",
            "posterior of a linear measurement, the covariance of x1 given x_t from the network's Jacobian",
            "Rozet et al. 2024, https://arxiv.org/abs/2405.13712",
            example=problem,
        ),
    ]
