"""Inpainting by replacing the data prediction where the data are known.

With a mask m, 1 where the data k are known, the guided prediction is `D* = m·k + (1 − m)·D`. Where m = 1 the field is
then that of a single point k: its states are `x_t = α_t·k + σ_t·ε` for one and the same ε, given by the first state,
`ε = (x_{t0} − α_{t0}·k)/σ_{t0}`, which is the source sample x0 itself where α(0) = 0. For a DDIM step,

    x_s = α_s·D* + (σ_s/σ_t)·(x_t − α_t·D*) = α_s·k + σ_s·ε,

keeps this form, and so does the path's ODE, since it is the step's limit; on the linear path the velocity `k − ε` is
constant, and any Runge–Kutta method follows it exactly. Where σ ends at 0 the known part ends at k, whatever the solver
did before: the data prediction closes the run. Stochastic solvers of the path's SDE keep its marginal, here N(α_t·k,
σ_t²·I): what replacing the *state* by freshly noised data aims at, without a second source of noise.

It is not the posterior of the rest given k: the rest sees the known part only through the network's input. Posterior
guidance with a mask for its operator goes on to correct that.

References:
    Song et al. 2021, section 5 and appendix I.2 (imputation by replacement). https://arxiv.org/abs/2011.13456
    Lugmayr et al. 2022, RePaint. https://arxiv.org/abs/2201.09865
    Song, Meng & Ermon 2021, DDIM, equation 12. https://arxiv.org/abs/2010.02502
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The guidance `inpaint`."""
    return [
        Component(
            "guidance",
            "inpaint",
            "fm_plugins.inpainting.inpaint:Inpaint",
            "known data in place of the data prediction, where a mask says so",
            "Song et al. 2021, https://arxiv.org/abs/2011.13456; Lugmayr et al. 2022, https://arxiv.org/abs/2201.09865",
            example={"known": 0.0, "mask": 0.5},
        )
    ]
