"""The conditional flow matching objective, `E ‖v(x_t, t) − (α'·x1 + σ'·x0)‖²` with t uniform.

Its gradient is that of flow matching's, `E ‖v(x_t, t) − u_t(x_t)‖²` with the marginal velocity u_t, which nobody can
evaluate.

References:
    Lipman et al. 2023, Theorem 2. https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from fm_core import Matching, Prediction

__all__ = ["cfm"]


def cfm() -> Matching:
    """Regression on the conditional velocity at uniform times.

    >>> cfm().needs == {"velocity"}
    True
    """
    return Matching(Prediction.VELOCITY)
