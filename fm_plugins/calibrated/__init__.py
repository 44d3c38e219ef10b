"""Calibrated tables: fixed times and weights, fitted to one network's field by `fm_core.calibration`.

    y_{s+1} = y_s + Σ_{j≤s} b_sj·u_j,    y = x/(α + σ),    u_j = E[x1 − x0 | y_j, t_j]

A calibrated table is right for one path, one kind of prediction and one number of network calls, and refuses all
others. It is data: its options are numbers, so a saved pipeline holds it, and a plugin can publish it, as

    table = json.loads(…)  # what json.dumps(fm.registry.to_config(pipe.solver)) wrote
    Component("solver", "my_net_8", functools.partial(fm.registry.from_config, "solver", table), "8 calls for my_net")

References:
    Butcher 2006, General linear methods. https://doi.org/10.1017/S0962492906220014
    Shaul et al. 2023, Bespoke solvers. https://arxiv.org/abs/2310.19075
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The solver `calibrated`."""
    return [
        Component(
            "solver",
            "calibrated",
            "fm_plugins.calibrated.solver:calibrated",
            "fixed times and weights, fitted to one network by fm.calibrate",
            "Butcher 2006, https://doi.org/10.1017/S0962492906220014",
            example={
                "space": "velocity",
                "times": [0.0, 0.5, 1.0],
                "weights": [[0.5], [-0.25, 0.75]],
            },
        )
    ]
