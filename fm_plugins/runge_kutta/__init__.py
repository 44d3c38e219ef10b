"""Explicit Runge–Kutta methods on the velocity, as tables.

With the tableau (A, b, c), h = s − t and stages `p_i = u(x_t + h·Σ_{j<i} a_ij·p_j, t + c_i·h)`, a step is `x_s = x_t
+ h·Σ_i b_i·p_i`. A method of order p is exact, in one step, on velocities that are polynomials in t of degree p − 1.

References:
    Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, II.1–II.2.
    https://doi.org/10.1007/978-3-540-78862-1
"""

from fm_core import Component, hookimpl

_HOME = "fm_plugins.runge_kutta.solver"
_HAIRER = "Hairer, Nørsett & Wanner 1993, https://doi.org/10.1007/978-3-540-78862-1"


@hookimpl
def fm_components() -> list[Component]:
    """The solvers `euler`, `midpoint`, `heun`, `rk4`, and `runge_kutta` for any explicit Butcher tableau."""
    return [
        Component("solver", "euler", f"{_HOME}:euler", "order 1, one evaluation per step", _HAIRER),
        Component("solver", "midpoint", f"{_HOME}:midpoint", "order 2, two evaluations per step", _HAIRER),
        Component(
            "solver",
            "heun",
            f"{_HOME}:heun",
            "explicit trapezoid: order 2, two evaluations per step",
            "Karras et al. 2022, Algorithm 1, https://arxiv.org/abs/2206.00364",
        ),
        Component("solver", "rk4", f"{_HOME}:rk4", "the classical method: order 4, four evaluations per step", _HAIRER),
        Component(
            "solver",
            "runge_kutta",
            f"{_HOME}:runge_kutta",
            "any explicit Butcher tableau; its order is computed",
            _HAIRER,
            example={"a": [[], [0.5], [-1.0, 2.0]], "b": [1 / 6, 2 / 3, 1 / 6]},
        ),
    ]
