"""my_plugin: components for fm-core.

Targets are strings, imported on first use, so that listing plugins imports neither torch nor what is implemented here.
`example` holds options with which the conformance kit builds a component.
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """What this package offers, by kind and name."""
    return [
        Component(
            "path",
            "my_plugin",
            "my_plugin.path:path",
            summary="x_t = (t·x1 + (1 − t)·x0)/√(t² + (1 − t)²)",
        ),
        Component(
            "model",
            "my_plugin",
            "my_plugin.model:Network",
            summary="a small network of state and time",
            example={"shape": 2, "seed": 0},
        ),
        Component(
            "objective",
            "my_plugin",
            "my_plugin.objective:LogitNormalMatching",
            summary="velocity regression at logit-normal times",
            reference="Esser et al. 2024, https://arxiv.org/abs/2403.03206",
        ),
        Component(
            "coupling",
            "my_plugin",
            "my_plugin.coupling:Sorted",
            summary="pairs sorted along a random direction, where that is cheaper",
        ),
        Component(
            "solver",
            "my_plugin",
            "my_plugin.solver:ralston",
            summary="order 2, two evaluations per step",
            reference="Ralston 1962, https://doi.org/10.1090/S0025-5718-1962-0150954-0",
        ),
        Component(
            "grid",
            "my_plugin",
            "my_plugin.grid:ChebyshevLobatto",
            summary="short steps at both ends",
            reference="Trefethen 2019, https://doi.org/10.1137/1.9781611975949",
        ),
        Component(
            "guidance",
            "my_plugin",
            "my_plugin.guidance:ClassifierFree",
            summary="u + scale·(c − u)",
            reference="Ho & Salimans 2022, https://arxiv.org/abs/2207.12598",
            example={"scale": 2.0},
        ),
        Component(
            "recipe",
            "my_plugin",
            {"path": "cosine", "objective": "cfm", "solver": "rk4"},
            summary="flow matching on the cosine path, sampled by RK4",
        ),
        Component(
            "dataset",
            "my_plugin",
            "my_plugin.dataset:Spiral",
            summary="a noisy spiral in the plane",
        ),
        Component(
            "metric",
            "my_plugin",
            "my_plugin.metric:SquaredMMD",
            summary="squared maximum mean discrepancy of a Gaussian kernel",
            reference="Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html",
        ),
        Component(
            "problem",
            "my_plugin",
            "my_plugin.problem:Ellipse",
            summary="a Gaussian of unequal spreads, its flow in closed form",
        ),
        Component(
            "codec",
            "my_plugin",
            "my_plugin.codec:Standardised",
            summary="z = (x − mean)/std",
            example={"mean": 1.0, "std": 2.0},
        ),
        Component(
            "observer",
            "my_plugin",
            "my_plugin.observer:LossFile",
            summary="a CSV file of the training loss",
            example={"path": "losses.csv"},
        ),
    ]
