"""Multistep members of the family: exact exponential integrators with a history, as tables.

At grid point n the last `order` predictions are interpolated over [t_n, t_{n+1}]. The history is short at first: the
order rises 1, 2, 3, …, or the first steps have stages (`start="single_step"`). In a step of data that is far longer
than the one before it, as the last to a small σ/α, the order is 1. With a corrector of order c, that state is only
predicted; the network is asked there, and c nodes, the new one among them, give the corrected state

    ŷ_{n+1} = a·y_n + Σ_j b_j·p_j + noise·z,      y_{n+1} = ŷ_{n+1} + Σ_j (b'_j − b_j)·p_j + b'_{n+1}·p_{n+1}.

p_{n+1} is not asked again at the corrected state: it is history from then on, and a step costs one call. The error of
the predicted state enters with a factor h, so predictor order k and corrector order k + 1 make order k + 1 in all. The
last state is not corrected unless asked, since p_N would serve nothing else; its own error is of order k + 1 anyway.
Nor is a state of noise that a coarse step reaches, in which σ/α falls more than eightfold.

Noise. An interpolation of order 2 in the drift and fresh noise of the exact variance have weak order 2 for additive
noise, whose size knows no state: with `Z_n = X_n − (h/2)·f_{n−1}` the two-step rule `X_{n+1} = X_n + h·(3/2·f_n −
1/2·f_{n−1}) + σ·ΔW` is `Z_{n+1} = Z_n + h·f(X_n) + σ·ΔW`, whose modified equation (Euler–Maruyama's, drift
`−h/2·(f'f + σ²f''/2)` and diffusion `−h/2·f'σ`, and `+h/2·f'f` for f(X_n)), carried through `X = Z + (h/2)·f`, is the
SDE up to O(h²). No weak order above 2 is claimed: it would need iterated integrals of the noise.

References:
    Hairer, Nørsett & Wanner 1993, III.1 (Adams, PECE). https://doi.org/10.1007/978-3-540-78862-1
    Zhao et al. 2023, UniPC, Theorem 3.1 (the corrector's order). https://arxiv.org/abs/2302.04867
    Xue et al. 2023, SA-Solver, Algorithm 1. https://arxiv.org/abs/2309.05019
    Shardlow 2006, Modified equations for SDEs. https://doi.org/10.1007/s10543-005-0041-0
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen, validators
from torch import Tensor

from fm_core import Plan, Prediction, ProbabilityPath, Row
from fm_core.prediction import as_prediction
from fm_plugins.multistep.integrals import SPACES, VARIABLES, Clock
from fm_plugins.multistep.rows import Weights, table_row, total
from fm_plugins.multistep.shortcut import SHORTCUTS, Shortcut, shortened
from fm_plugins.multistep.stages import SingleStep, Tau, check_tau, stage_nodes, tau_squared

__all__ = ["HIGHEST", "Multistep"]

HIGHEST = 8
"""Above, weights of equally spaced nodes alternate in sign and grow."""

_ORDER = validators.and_(validators.instance_of(int), validators.ge(1), validators.le(HIGHEST))
_CORRECTOR = validators.and_(validators.instance_of(int), validators.ge(0), validators.le(HIGHEST + 1))


@frozen
class Multistep:
    """A multistep member, called as the coefficient function of a `TableSolver`.

    Args:
        space: What is interpolated: data, noise or velocity.
        variable: "t", "lambda" (log α/σ) or "sigma" (σ/α).
        order: Order of the explicit step.
        corrector: Order of the corrector; 0 for none.
        lower_order_final: Whether the order falls …, 3, 2, 1 in the last steps (correctors' …, 3, 2).
        correct_last: Whether the last state is corrected too, for one more call.
        start: "rising" orders 1, 2, 3, …, or "single_step": stages where the history is short, for orders ≤ 3.
        shortcut: A published simplification at order 2, see `shortcut.py`; in λ only.
        tau: τ of the noise; 0 is deterministic.
    """

    space: Prediction = field(converter=as_prediction, validator=validators.in_(SPACES))
    variable: str = field(validator=validators.in_(VARIABLES))
    order: int = field(validator=_ORDER)
    corrector: int = field(default=0, validator=_CORRECTOR, kw_only=True)
    lower_order_final: bool = field(default=False, kw_only=True)
    correct_last: bool = field(default=False, kw_only=True)
    start: str = field(default="rising", validator=validators.in_(("rising", "single_step")), kw_only=True)
    shortcut: Shortcut | None = field(default=None, validator=validators.in_(SHORTCUTS), kw_only=True)
    tau: Tau = field(default=0.0, kw_only=True, validator=check_tau)

    def __attrs_post_init__(self) -> None:
        if self.start == "single_step":
            stage_nodes(self.order)
        if self.shortcut and (self.variable != "lambda" or self.space == Prediction.VELOCITY):
            raise ValueError(
                f"shortcuts are of data and noise in λ; got shortcut={self.shortcut!r} for {self.space} in "
                f"{self.variable!r}; leave it out: the weights are exact then"
            )

    @property
    def reached(self) -> int:
        """Order of the whole without noise: the corrector's, if there is one, for which an order less is predicted."""
        return min(self.corrector, self.order + 1) if self.corrector else self.order

    def __call__(self, path: ProbabilityPath, times: Tensor) -> Plan:
        """The table on a grid, float64 `(N+1,)`."""
        steps = len(times) - 1
        first = (
            SingleStep(self.space, self.variable, stage_nodes(self.order), shortcut=self.shortcut, tau=self.tau)
            if self.start == "single_step"
            else None
        )
        clock = first.clock(path, times) if first else Clock.of(path, self.space, self.variable, times.tolist())
        clock.prepare([(n, n + 1, tau_squared(self.tau, clock, n, n + 1)) for n in range(steps)])
        rows: list[Row] = []
        state, asked = 0, {0: 0}  # index of the state at the grid point; by grid point, that of its prediction
        for n in range(steps):
            if first and n < self.order - 1:
                first.step(clock, n, steps, state, rows)
                state = asked[n + 1] = len(rows)
                continue
            correcting = self.corrector and (self.correct_last or n < steps - 1)
            weights, corrected = self._weights(clock, n, steps, corrects=bool(correcting))
            tau2 = tau_squared(self.tau, clock, n, n + 1)
            t, named = float(clock.t[n + 1]), {asked[k]: w for k, w in weights.items()}
            rows.append(
                table_row(
                    t, {state: clock.carry(n, n + 1, tau2)}, named, clock.noise(n, n + 1, tau2), accepted=not corrected
                )
            )
            state = asked[n + 1] = len(rows)
            if corrected:
                rows.append(self._corrected(rows[-1], t, state, {asked[k]: w for k, w in corrected.items()}))
                state = len(rows)
        return Plan(self.space, float(times[0]), rows)

    def _corrected(self, predicted: Row, t: float, state: int, corrected: Weights) -> Row:
        """The corrected state: without noise from the states themselves, with noise through the predicted one."""
        if not predicted.noise:
            return table_row(t, dict(predicted.states), corrected)
        return table_row(t, {state: 1.0}, total(corrected, {j: -w for j, w in predicted.predictions}))

    def _weights(self, clock: Clock, n: int, steps: int, *, corrects: bool) -> tuple[Weights, Weights]:
        """Weights of the explicit step n, and of its corrector; none where the new prediction cannot be a node."""
        left = steps - n if self.lower_order_final else HIGHEST
        order = 1 if clock.overreaches(n) else min(self.order, n + 1, left)
        nodes = range(n, n - order, -1)
        explicit = self._interpolated(clock, n, nodes)
        if not corrects:
            return explicit, {}
        implicit = range(n + 1, n + 1 - min(self.corrector, n + 2, left + 1), -1)
        if clock.coarse(n, n + 1) or n + 1 not in clock.usable(implicit, n, n + 1):
            return explicit, {}
        return explicit, self._interpolated(clock, n, implicit)

    def _interpolated(self, clock: Clock, n: int, nodes: Sequence[int]) -> Weights:
        tau2 = tau_squared(self.tau, clock, n, n + 1)
        if self.shortcut:
            return shortened(self.shortcut, clock, n, n + 1, nodes, tau2)
        return clock.weights(n, n + 1, nodes, tau2)
