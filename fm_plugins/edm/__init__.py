"""EDM: the design space of diffusion models, with every choice its own.

Karras et al. 2022 write `x = y + σ·n` with y the data and n ~ N(0, I): α = 1 here. Their choices are

- the noise levels `σ_i = (σ_max^{1/ρ} + i/(N−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ`, then 0. The path `edm` has σ(t) of
  this form, so that a uniform grid of t is theirs; the last step, to σ = 0, is the data prediction that closes the run;
- the loss `E λ(σ)·‖D(y + σ·n; σ) − y‖²` with ln σ ~ N(−1.2, 1.2²) and λ = (σ² + σ_data²)/(σ·σ_data)²: the objective
  `edm`, at its best with the preconditioned network that predicts data (model `edm_precond`);
- Heun's method with churn: noise is raised before every step and solved away: the solver `edm`.

References:
    Karras et al. 2022, Table 1 and Algorithm 2. https://arxiv.org/abs/2206.00364
"""

from fm_core import Component, hookimpl

_KARRAS = "Karras et al. 2022, https://arxiv.org/abs/2206.00364"


@hookimpl
def fm_components() -> list[Component]:
    """The path, the objective, the solver and the recipe `edm`."""
    return [
        Component("path", "edm", "fm_plugins.edm.schedule:edm", "α = 1, σ on the ρ grid", _KARRAS),
        Component(
            "objective",
            "edm",
            "fm_plugins.edm.objective:edm",
            "regression on the data, log-normal noise levels, EDM's weight",
            _KARRAS,
        ),
        Component("solver", "edm", "fm_plugins.edm.solver:edm", "Heun's method with churn", _KARRAS),
        Component(
            "recipe",
            "edm",
            {"path": "edm", "objective": "edm", "solver": "edm"},
            "EDM's noise levels, loss and stochastic sampler",
            _KARRAS,
        ),
    ]
