"""`auto`: a sound table and grid for the budget, on every Gaussian path, without calibrating; and `straight`.

In straight coordinates (`fm_core.straight`) every Gaussian path is the linear one, and Adams predictor–correctors serve
them all. The choice looks at the number of steps, and at whether the path's velocity lasts to both ends:

    velocity to both ends (linear, cosine)    up to 7 steps    Adams PC-2    short at both ends, above all the source
                                              8                Adams PC-4    short at the data
                                              up to 14         Adams PC-4    short at both ends
                                              more             Adams PC-5    the same
    velocity alone (icfm)                     as for velocities to both ends, on the path's own clock
    others (VP, VE, EDM)                      up to 7          Adams PC-2    short at both ends, above all the source
                                              more             Adams PC-3    the same

It has the least median error of end points, or nearly, among the plain tables and grids here: on exact fields of
Gaussian mixtures in 2 and 32 dimensions, and for the others on a U-Net of digits, whose errors at the source of a
diffusion, divided by α there, do not forgive high orders.

`straight` takes any other table of velocities, or grid, there.

References:
    Hairer, Nørsett & Wanner 1993, III.1 (Adams, PECE). https://doi.org/10.1007/978-3-540-78862-1
    Karras et al. 2022, section 2 (scale and time of a flow are free). https://arxiv.org/abs/2206.00364
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The solver `auto`, and solver and grid `straight`."""
    reference = "Karras et al. 2022, https://arxiv.org/abs/2206.00364"
    return [
        Component(
            "solver",
            "auto",
            "fm_plugins.auto.solver:auto",
            "a sound table and grid for the path and the number of steps",
            "Hairer, Nørsett & Wanner 1993, https://doi.org/10.1007/978-3-540-78862-1",
        ),
        Component(
            "solver",
            "straight",
            "fm_plugins.auto.solver:straight",
            "a table of the linear path's velocities, on any Gaussian path",
            reference,
            example={"solver": {"kind": "solver", "name": "adams_pc", "order": 3}},
        ),
        Component(
            "grid",
            "straight",
            "fm_plugins.auto.solver:StraightGrid",
            "a grid of the linear path, at the same noise levels on any other",
            reference,
            example={"grid": {"kind": "grid", "name": "power", "exponent": 1.25}},
        ),
    ]
