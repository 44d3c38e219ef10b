"""Flow matching and conditional flow matching: the linear path and the regression on its velocity.

Lipman et al. 2023 (FM) take the conditional paths `p_t(x|x1) = N(t·x1, (1 − (1 − σ_min)t)²·I)`, which are `x_t = t·x1
+ (1 − (1 − σ_min)t)·x0` with x0 ~ N(0, I), and the conditional velocity `x1 − (1 − σ_min)·x0`: the path `linear` with
`sigma_min`. Their optimal-transport paths run in this library's time (their t = 0 is noise too); their
variance-exploding and variance-preserving conditional paths (equations 16 to 19) are the paths `ve` and `vp` of
`fm_plugins.score_sde`, whose conditional velocities are their `σ'/σ·(x − μ) + μ'`.

Tong et al. 2024 (I-CFM) take any source, pair it independently with the data, and smooth the segment by a third noise
of constant scale: `x_t = (1 − t)·x0 + t·x1 + σ·ε`, velocity `x1 − x0`: the path `icfm`. With σ = 0 it is `linear`
with σ_min = 0.

Both regress on the conditional velocity; the minimiser is the marginal velocity E[dx_t/dt | x_t], which solves the
continuity equation of the marginal p_t (Lipman et al., Theorems 1 and 2).

References:
    Lipman et al. 2023. https://arxiv.org/abs/2210.02747
    Tong et al. 2024. https://arxiv.org/abs/2302.00482
"""

from fm_core import Component, hookimpl

_LIPMAN = "Lipman et al. 2023, https://arxiv.org/abs/2210.02747"
_TONG = "Tong et al. 2024, https://arxiv.org/abs/2302.00482"


@hookimpl
def fm_components() -> list[Component]:
    """Paths `linear` and `icfm`, the coupling `independent`, the objective `cfm`, the recipes `cfm` and `fm`."""
    return [
        Component(
            "path",
            "linear",
            "fm_plugins.cfm.linear:linear",
            "x_t = t·x1 + (1 − (1 − σ_min)t)·x0 (conditional OT)",
            _LIPMAN,
        ),
        Component(
            "path", "icfm", "fm_plugins.cfm.icfm:ICFM", "x_t = (1 − t)·x0 + t·x1 + σ·ε", _TONG, example={"sigma": 0.1}
        ),
        Component(
            "coupling", "independent", "fm_plugins.cfm.independent:Independent", "x0 and x1 as they were drawn", _TONG
        ),
        Component(
            "objective", "cfm", "fm_plugins.cfm.objective:cfm", "regression on the conditional velocity", _LIPMAN
        ),
        Component(
            "recipe",
            "cfm",
            {"path": "linear", "objective": "cfm", "solver": "heun"},
            "conditional flow matching, independent pairs (I-CFM)",
            _TONG,
        ),
        Component(
            "recipe",
            "fm",
            {"path": {"name": "linear", "sigma_min": 1e-4}, "objective": "cfm", "solver": "heun"},
            "flow matching with optimal-transport conditional paths, σ_min = 1e-4",
            _LIPMAN,
        ),
    ]
