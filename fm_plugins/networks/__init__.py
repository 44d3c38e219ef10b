"""Networks: what a `Model` gives a meaning to.

A network is any module called as `net(x_t, t)`, or `net(x_t, t, cond)` with a condition, that returns `(B, *D)` for x_t
`(B, *D)` and t `(B,)`. It does not know what it predicts.

    mlp      f(x, t, c) = W_{n+1}·a(W_n ⋯ a(W_1·[x, τ(t), c])),   τ(t) = t, or a linear map of sines and cosines of t

References:
    Tong, Malkin, et al. 2024, TorchCFM (3 × 64, SELU, time concatenated). https://arxiv.org/abs/2302.00482
    Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B (sinusoidal embedding). https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The networks, by name."""
    return [
        Component(
            "model",
            "mlp",
            "fm_plugins.networks.mlp:MLP",
            "Time-embedded MLP for states of any shape; 3 × 64 SELU by default",
            "https://arxiv.org/abs/2302.00482",
            example={"shape": 2},
        )
    ]
