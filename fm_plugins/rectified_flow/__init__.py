"""Rectified flow: straight lines from noise to data, straightened again by reflow.

Liu et al. 2023 regress on `x1 − x0` along `x_t = t·x1 + (1 − t)·x0`, which is conditional flow matching on the linear
path. What is theirs is *reflow*: the pairs (x0, x1) are replaced by (x0, Z1(x0)), where Z1 carries x0 along the
learned flow, and the network is trained again. The marginals stay, the transport cost falls for every convex cost,
and the paths grow straighter (Theorem 3.5), so fewer steps do. Repeated k − 1 times this gives the k-rectified flow:
`fm_plugins.rectified_flow.reflow.reflow(pipe, n, …)` makes the pairs, `pipe.fit(pairs, …)` trains on them.

Esser et al. 2024 draw the training times logit-normally, `t = 1/(1 + exp(−(m + s·z)))`, z ~ N(0, 1), for the middle
of the path is the hard part. The density is symmetric in t ↔ 1 − t for m = 0; their t runs from data to noise, so a
positive m there is a negative one here.

References:
    Liu et al. 2023. https://arxiv.org/abs/2209.03003
    Esser et al. 2024. https://arxiv.org/abs/2403.03206
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The objective and the recipe `rectified_flow`."""
    return [
        Component(
            "objective",
            "rectified_flow",
            "fm_plugins.rectified_flow.objective:rectified_flow",
            "regression on the velocity at logit-normal times",
            "Esser et al. 2024, https://arxiv.org/abs/2403.03206",
        ),
        Component(
            "recipe",
            "rectified_flow",
            {"path": "linear", "objective": "rectified_flow", "solver": "euler"},
            "straight lines, logit-normal times; reflow straightens them further",
            "Liu et al. 2023, https://arxiv.org/abs/2209.03003",
        ),
    ]
