"""Score-based modelling by stochastic differential equations: noise is added by an SDE, and taken away by its reversal.

Song et al. 2021 run s = 1 − t from the data to the noise, `dx = f·x ds + g dW`. Linear drift makes Gaussian paths:

    VP       f = −β/2, g² = β                      α = exp(−½∫β),  σ² = 1 − α²       path `vp`
    sub-VP   f = −β/2, g² = β·(1 − e^{−2∫β})       α = exp(−½∫β),  σ = 1 − α²        path `sub_vp`
    VE       f = 0,    g² = d(σ²)/ds               α = 1,          σ geometric       path `ve`

with β linear in s. In every case `g² = 2σ²·d(log α/σ)/dt`, this library's default. VP is the limit of DDPM's forward
process for N → ∞ with N·β_k → β(s), VE that of annealed Langevin's noise levels (NCSN). The variance-exploding and
variance-preserving conditional paths of Lipman et al. 2023 (their equations 16 to 19) are `ve` and `vp`.

Backwards, towards the data, any `dX = (u + ½g²·score) dt + g dW` keeps the marginals, g free: solvers `euler_maruyama`
and `stochastic_heun`; `predictor_corrector` adds steps of Langevin dynamics at a fixed time. Networks predict the
score and are trained by denoising score matching (objective `dsm`).

References:
    Song et al. 2021, Score-based generative modeling through SDEs. https://arxiv.org/abs/2011.13456
    Lipman et al. 2023. https://arxiv.org/abs/2210.02747
"""

from fm_core import Component, hookimpl

_SONG = "Song et al. 2021, https://arxiv.org/abs/2011.13456"
_HOME = "fm_plugins.score_sde"


@hookimpl
def fm_components() -> list[Component]:
    """The paths `vp`, `sub_vp` and `ve`, three stochastic solvers, the recipe `score_sde`."""
    return [
        Component("path", "vp", f"{_HOME}.vp:vp", "variance preserving: α = exp(−½∫β), σ² = 1 − α²", _SONG),
        Component("path", "sub_vp", f"{_HOME}.sub_vp:sub_vp", "sub-VP: α = exp(−½∫β), σ = 1 − α²", _SONG),
        Component("path", "ve", f"{_HOME}.ve:ve", "variance exploding: α = 1, σ geometric", _SONG),
        Component(
            "solver",
            "euler_maruyama",
            f"{_HOME}.euler_maruyama:euler_maruyama",
            "the reverse SDE with any noise level g(t), weak order 1",
            _SONG,
        ),
        Component(
            "solver",
            "stochastic_heun",
            f"{_HOME}.stochastic_heun:stochastic_heun",
            "the reverse SDE with any noise level g(t), two evaluations per step",
            _SONG,
        ),
        Component(
            "solver",
            "predictor_corrector",
            f"{_HOME}.predictor_corrector:PredictorCorrector",
            "a step of the reverse SDE, then steps of Langevin dynamics",
            _SONG,
        ),
        Component(
            "recipe",
            "score_sde",
            {"path": "vp", "objective": "dsm", "solver": "euler_maruyama"},
            "variance-preserving SDE, denoising score matching, the reverse SDE",
            _SONG,
        ),
    ]
