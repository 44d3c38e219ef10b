"""OT-CFM: flow matching on the minibatch optimal-transport coupling.

The independent coupling q(x0)·q(x1) makes straight conditional paths cross, so their average, the marginal flow, bends
and the regression target has a variance. Pairing every batch by exact optimal transport,

    min over permutations π of Σ_i |x0_i − x1_π(i)|²,

uncrosses the paths within the batch. The marginals stay what they are (a permutation loses nothing and doubles
nothing), so the same loss E|u_θ(x_t, t) − (x1 − x0)|² still has a flow from q(x0) to q(x1) as its minimum. As the batch
grows the pairing tends to the optimal plan and the flow to the dynamic optimal transport of Benamou and Brenier:
straight lines that few solver steps follow, of energy E∫|u|² dt = W2²(q(x0), q(x1)). At a finite batch the energy lies
above that, which is what a larger `pool` is for.

The coupling is not independent: the score is no longer −noise/σ, and what needs a score (SDEs, classifier guidance) is
refused.

References:
    Tong et al. 2023, Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport.
    https://arxiv.org/abs/2302.00482
    Pooladian et al. 2023, Multisample Flow Matching. https://arxiv.org/abs/2304.14772
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The coupling and the recipe that trains on it."""
    return [
        Component(
            "coupling",
            "minibatch_ot",
            "fm_plugins.ot_cfm.coupling:MinibatchOT",
            summary="exact optimal-transport pairing of a batch, or of a larger pool",
            reference="https://arxiv.org/abs/2302.00482",
            example={},
        ),
        Component(
            "recipe",
            "ot_cfm",
            {"path": "linear", "objective": "cfm", "coupling": "minibatch_ot", "solver": "heun"},
            summary="flow matching on minibatch optimal transport",
            reference="https://arxiv.org/abs/2302.00482",
        ),
    ]
