"""Classifier-free guidance and its kin: two answers of one network, with the condition (c) and without (u).

By Bayes' rule `∇ log p(y|x_t) = ∇ log p(x_t|y) − ∇ log p(x_t)`, so that the score of `p(x_t)·p(y|x_t)^s` is, in every
linear prediction,

    u + s·(c − u)                                                    cfg                s = 1 is the conditional field.

Ho & Salimans write `(1 + w)·c − w·u`, which is s = 1 + w. The two answers come from one call on a batch of 2B; the
network has been trained with its condition dropped at random (`fit(cond_dropout=)`) and knows `Model.null`. The others
change what is added to c:

    cfg_pp          the noise that a step puts back is u's: s grows as w/(1 − e^{−h}), with h the step in log(α/σ)
    apg             on data: only the part of c − u orthogonal to c, of bounded norm, with momentum
    cfg_zero_star   on the velocity: u is scaled to fit c, and the velocity is 0 at the very beginning

References:
    Ho & Salimans 2022, Classifier-free diffusion guidance, eq. 6. https://arxiv.org/abs/2207.12598
    Chung et al. 2024, CFG++. https://arxiv.org/abs/2406.08070
    Sadat et al. 2024, APG. https://arxiv.org/abs/2410.02416
    Fan et al. 2025, CFG-Zero*. https://arxiv.org/abs/2503.18886
"""

from __future__ import annotations

from fm_core import Component, hookimpl

_HOME = "fm_plugins.classifier_free_guidance"


@hookimpl
def fm_components() -> list[Component]:
    """The guidances `cfg`, `cfg_pp`, `apg` and `cfg_zero_star`."""
    return [
        Component(
            "guidance",
            "cfg",
            f"{_HOME}.cfg:CFG",
            "u + s·(c − u): classifier-free guidance, one batched call",
            "Ho & Salimans 2022, https://arxiv.org/abs/2207.12598",
            example={"scale": 2.0},
        ),
        Component(
            "guidance",
            "cfg_pp",
            f"{_HOME}.cfg_pp:CFGPlusPlus",
            "CFG++: guided data, unconditional noise; weight in [0, 1], for DDIM-like steps",
            "Chung et al. 2024, https://arxiv.org/abs/2406.08070",
            example={"weight": 0.6},
        ),
        Component(
            "guidance",
            "apg",
            f"{_HOME}.apg:APG",
            "adaptive projected guidance: orthogonal to the conditional data, bounded, with momentum",
            "Sadat et al. 2024, https://arxiv.org/abs/2410.02416",
            example={"scale": 4.0, "norm": 2.5, "momentum": -0.75},
        ),
        Component(
            "guidance",
            "cfg_zero_star",
            f"{_HOME}.cfg_zero_star:CFGZeroStar",
            "CFG-Zero*: optimised scale of the unconditional velocity, zero velocity at the start",
            "Fan et al. 2025, https://arxiv.org/abs/2503.18886",
            example={"scale": 3.0},
            expected_failures={
                "off_costs_nothing": "at scale 1 the first velocities are still 0; with zero_until=0 too it is off"
            },
        ),
    ]
