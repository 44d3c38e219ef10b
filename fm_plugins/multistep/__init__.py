"""Multistep and single-step exponential integrators: one generator of coefficients, under the literature's names.

On a Gaussian path the probability-flow ODE splits into a linear part, solved exactly, and an integral of the
network's prediction, which is replaced by a polynomial:

    data       x_s = (σ_s/σ_t)·x_t + σ_s·∫ e^λ·D dλ,        λ = log(α/σ)
    noise      x_s = (α_s/α_t)·x_t − α_s·∫ e^{−λ}·N dλ
    velocity   x_s = x_t + ∫ u dt

A solver of this family is a choice of *space* (the three above), of the *variable* in which the polynomial is one (t,
λ, σ/α), of its *order*, of *history or stages*, and whether it is *corrected*:

| name | space | variable | predictions |
|---|---|---|---|
| `adams_bashforth`, `adams_pc` | velocity | t | history, with a corrector |
| `dpm_solver`, `dpm_solver_multistep` | noise | λ | stages; history |
| `dpm_solver_pp_2s`, `dpm_solver_pp` | data | λ | a stage; history |
| `unipc` | data or noise | λ | history and corrector |
| `deis` | noise | σ/α, t, λ | history |
| `ipndm`, `pndm` | noise | the step's number | history; pseudo-Runge–Kutta |
| `sde_dpm_solver_pp`, `sa_solver`, `seeds` | data, noise | λ | with exact noise |
| `multistep`, `single_step` | any | any | any |

Weights are exact (`integrals.py`); the ½-shortcuts of published solvers are options (`shortcut.py`). Order 1 of data
and noise is DDIM in any variable.
"""

from typing import Any

from fm_core import Component, hookimpl

_HERE = "fm_plugins.multistep"
_HAIRER = "Hairer, Nørsett & Wanner 1993, III.1, https://doi.org/10.1007/978-3-540-78862-1"
_DPM = "Lu et al. 2022, https://arxiv.org/abs/2206.00927"
_DPM_PP = "Lu et al. 2022, https://arxiv.org/abs/2211.01095"
_DEIS = "Zhang & Chen 2023, https://arxiv.org/abs/2204.13902"

_SOLVERS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("adams_bashforth", "adams:adams_bashforth", "velocity in t, explicit, any order", _HAIRER, {"order": 3}),
    ("adams_pc", "adams:adams_pc", "Adams–Bashforth–Moulton: velocity in t, corrected, one call a step", _HAIRER, {}),
    ("dpm_solver", "dpm_solver:dpm_solver", "DPM-Solver-1, 2, 3: noise in λ, single-step", _DPM, {"variable": "sigma"}),
    ("dpm_solver_multistep", "dpm_solver:dpm_solver_multistep", "noise in λ, multistep", _DPM_PP, {}),
    ("dpm_solver_pp", "dpm_solver:dpm_solver_pp", "DPM-Solver++ 2M, 3M: data in λ, multistep", _DPM_PP, {"order": 3}),
    ("dpm_solver_pp_2s", "dpm_solver:dpm_solver_pp_2s", "DPM-Solver++ 2S: data in λ, single-step", _DPM_PP, {}),
    (
        "sde_dpm_solver_pp",
        "dpm_solver:sde_dpm_solver_pp",
        "SDE-DPM-Solver++ 1, 2M, 3M: data in λ, exact noise",
        _DPM_PP,
        {"tau": 0.5},
    ),
    (
        "unipc",
        "unipc:unipc",
        "UniPC: data or noise in λ, predictor and corrector, any order",
        "Zhao et al. 2023, https://arxiv.org/abs/2302.04867",
        {"order": 2, "shortcut": "bh2"},
    ),
    ("deis", "deis:deis", "DEIS-AB: noise in σ/α, t or λ", _DEIS, {"order": 2}),
    ("ipndm", "pndm:ipndm", "Adams–Bashforth's weights of equal steps on the noise", _DEIS, {}),
    ("pndm", "pndm:pndm", "the same after three pseudo-Runge–Kutta steps", "https://arxiv.org/abs/2202.09778", {}),
    (
        "sa_solver",
        "sa_solver:sa_solver",
        "stochastic Adams with controlled variance: data in λ, predictor and corrector",
        "Xue et al. 2023, https://arxiv.org/abs/2309.05019",
        {"tau": 0.8, "band": [0.05, 1.0]},
    ),
    (
        "seeds",
        "seeds:seeds",
        "SEEDS-1, 2, 3: noise or data in λ with stages, exact noise",
        "Gonzalez et al. 2023, https://arxiv.org/abs/2305.14267",
        {"order": 2},
    ),
    (
        "multistep",
        "members:multistep",
        "any space, variable, order and corrector with a history",
        _DEIS,
        {"space": "velocity", "variable": "t", "order": 2, "corrector": 3},
    ),
    ("single_step", "members:single_step", "any space, variable and nodes of stages", _DPM, {"nodes": [0.5]}),
)


@hookimpl
def fm_components() -> list[Component]:
    """The solvers, by name."""
    return [
        Component("solver", name, f"{_HERE}.{target}", summary, reference, example=dict(example))
        for name, target, summary, reference, example in _SOLVERS
    ]
