"""`auto`: a sound table and grid for the path and the budget, without calibrating.

The choice looks at the path and at the number of steps, at nothing else. It is what had the least median error of end
points, among all plain tables and grids here, on exact fields of Gaussian mixtures in 2 and 32 dimensions:

    paths                                           few steps                      many
    straight: linear                                Adams PC-4 in t,               Adams PC-5, steps short
                                                    steps short at the data        at both ends (from 15)
    curved, the velocity there to the end: cosine   Adams PC-4, quadratic          Adams PC-5, quadratic (from 8)
    whose velocity ends before the data: VP         data in t, 2 and corrector,    3 and corrector (from 7)
                                                    equal steps in log-SNR
    that a data prediction closes: VE, EDM          data in σ/α, 2 and corrector   UniPC-3 (from 25)

References:
    Hairer, Nørsett & Wanner 1993, III.1 (Adams, PECE). https://doi.org/10.1007/978-3-540-78862-1
    Lu et al. 2022, DPM-Solver++. https://arxiv.org/abs/2211.01095
"""

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The solver `auto`."""
    return [
        Component(
            "solver",
            "auto",
            "fm_plugins.auto.solver:auto",
            "a sound table and grid for the path and the number of steps",
            "Hairer, Nørsett & Wanner 1993, https://doi.org/10.1007/978-3-540-78862-1",
        )
    ]
