"""A solver is a table: every fixed-grid solver is a general linear method, so a solver plugin only computes
coefficients.

Each new state is a weighted sum of earlier states, earlier predictions and fresh noise,

    y_{s+1} = Σ_k a_k·y_k + Σ_j b_j·p_j + noise·z_s,    p_j = field(y_j, t_j),

with float64 weights known before the first network call. Runge–Kutta stages, multistep history, predictor–corrector
and churn all fit; one executor runs them all.

References:
    Butcher 2006, General linear methods. https://doi.org/10.1017/S0962492906220014
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field as attribute, frozen, validators
from torch import Tensor

from fm_core.errors import BudgetError, TimeError
from fm_core.gaussian import check_times
from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import OnStep, ProbabilityPath, TimeGrid
from fm_core.randomness import normal
from fm_core.shapes import time_dtype

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["Plan", "Row", "TableSolver", "execute"]

Terms = tuple[tuple[int, float], ...]
"""Pairs (index, weight)."""


@frozen
class Row:
    """One new state: `y_{s+1} = Σ a_k·y_k + Σ b_j·p_j + noise·z_s`, only what is used being stored.

    Args:
        t: The time at which the new state lives.
        states: Pairs (k, a_k), k ≤ s.
        predictions: Pairs (j, b_j), j ≤ s; p_j is evaluated only if some row uses it.
        noise: Standard deviation of the fresh noise.
        accepted: Whether the new state is a grid point, part of the trajectory.
    """

    t: float
    states: Terms
    predictions: Terms
    noise: float = 0.0
    accepted: bool = True


def _as_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(rows)


@frozen
class _Instruction:
    """A row as the executor reads it. A buffer index k ≥ 0 is the state y_k, and −1 − j is the prediction p_j."""

    evaluate: tuple[tuple[int, int], ...]
    """Pairs (j, index of the state whose time the solver is going to): predictions first used here."""
    operands: tuple[int, ...]
    weights: tuple[float, ...]
    noise: float
    spent: tuple[int, ...]
    """What is used here for the last time."""
    accepted: float | None
    """The time of the new state if it is a grid point."""


@frozen
class Plan:
    """A table of rows, from the state y_0 at t0.

    Args:
        space: What the predictions p_j are.
        t0: Time of the first state.
        rows: One row for each new state.

    Raises:
        ValueError: If a row uses what does not exist yet, or a weight is not finite.
    """

    space: Prediction = attribute(converter=as_prediction)
    t0: float
    rows: tuple[Row, ...] = attribute(converter=_as_rows)

    @rows.validator
    def _check_rows(self, _: object, rows: tuple[Row, ...]) -> None:
        if not rows:
            raise ValueError("a plan has at least one row; got none")
        for s, row in enumerate(rows):
            if not (row.states or row.predictions):
                raise ValueError(f"row {s} of the plan (to t = {row.t:.6g}) uses no state and no prediction")
            for index, weight in (*row.states, *row.predictions):
                if not 0 <= index <= s:
                    raise ValueError(
                        f"row {s} of the plan uses index {index}; a row s may use states and predictions 0 … s"
                    )
                if not math.isfinite(weight):
                    raise ValueError(
                        f"row {s} of the plan (to t = {row.t:.6g}) has the weight {weight} for index {index}"
                    )
            if not math.isfinite(row.noise) or not math.isfinite(row.t):
                raise ValueError(f"row {s} of the plan has noise {row.noise} and t {row.t}; both must be finite")

    @cached_property
    def state_times(self) -> tuple[float, ...]:
        """The time of every state y_0 … y_S."""
        return (self.t0, *(row.t for row in self.rows))

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The grid: t0 and the time of every accepted state."""
        return (self.t0, *(row.t for row in self.rows if row.accepted))

    @cached_property
    def evaluated(self) -> tuple[int, ...]:
        """The predictions that some row uses, rising."""
        return tuple(sorted({j for row in self.rows for j, _ in row.predictions}))

    @property
    def nfe(self) -> int:
        """Network evaluations."""
        return len(self.evaluated)

    @property
    def stochastic(self) -> bool:
        """Whether some row adds noise."""
        return any(row.noise for row in self.rows)

    def rebase(self, path: ProbabilityPath, native: Prediction) -> Plan:
        """The same plan on predictions of kind `native`: each `b_j·p_j` becomes `b_j·m_j·y_j + b_j·k_j·q_j`.

        Args:
            path: Path whose `affine(t, src, dst)` gives m and k.
            native: Kind in which the network's predictions arrive.

        Raises:
            TimeError: If the conversion does not exist at a time where the plan asks the network.
        """
        if native == self.space or not self.evaluated:
            return evolve(self, space=native)
        times = torch.tensor([self.state_times[j] for j in self.evaluated], dtype=torch.float64)
        m, k = path.affine(times, src=native, dst=self.space)  # type: ignore[attr-defined]
        bad = ~(m.isfinite() & k.isfinite())
        if bad.any():
            raise TimeError(
                f"a {native} prediction does not determine the {self.space} at t = {times[bad][0]:.6g}, where this "
                f"plan asks for it; keep the grid inside path.span({str(native)!r}, {{{str(self.space)!r}}}), or train "
                "the network on another prediction"
            )
        maps = dict(zip(self.evaluated, zip(m.tolist(), k.tolist(), strict=True), strict=True))
        return Plan(native, self.t0, tuple(_rebased(row, maps) for row in self.rows))

    def denoised(self, path: ProbabilityPath) -> Plan:
        """The plan with one more row, the data prediction at the last state, which carries it to t = 1.

        Args:
            path: Path whose `affine(t, src, dst)` turns the plan's space into data.
        """
        last, t = len(self.rows), torch.tensor(self.state_times[-1], dtype=torch.float64)
        m, k = (float(c) for c in path.affine(t, src=self.space, dst=Prediction.DATA))  # type: ignore[attr-defined]
        row = Row(1.0, ((last, m),) if m else (), ((last, k),) if k else ())
        return evolve(self, rows=(*self.rows, row))

    @cached_property
    def program(self) -> tuple[_Instruction, ...]:
        """The rows as instructions: every prediction just before its first use, everything forgotten after its last."""
        going_to = self._next_accepted()
        operands = [tuple(k for k, _ in row.states) + tuple(-1 - j for j, _ in row.predictions) for row in self.rows]
        evaluate: list[list[tuple[int, int]]] = [[] for _ in self.rows]
        last_use = {k: k for k in range(len(self.rows))}  # a state that nothing uses goes with the next row
        for s, used in enumerate(operands):
            for index in used:
                if index < 0 and index not in last_use:
                    evaluate[s].append((-1 - index, going_to[s]))
                    last_use[-1 - index] = s
                last_use[index] = s
        spent: list[list[int]] = [[] for _ in self.rows]
        for index, s in last_use.items():
            spent[s].append(index)
        return tuple(
            _Instruction(
                evaluate=tuple(evaluate[s]),
                operands=operands[s],
                weights=tuple(weight for _, weight in row.states + row.predictions),
                noise=row.noise,
                spent=tuple(spent[s]),
                accepted=row.t if row.accepted else None,
            )
            for s, row in enumerate(self.rows)
        )

    def clock(self, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
        """The time of every state as the network receives it, each `(B,)`, kept for the next run of the same kind."""
        key = (batch, dtype, device)
        kept = self._clocks.get(key)
        if kept is None:
            with torch.inference_mode(False):  # they outlive this run, and may meet gradients in another
                grid = torch.tensor(self.state_times, dtype=dtype, device=device)
                kept = grid[:, None].expand(-1, batch).unbind()
            self._clocks.clear()
            self._clocks[key] = kept
        return kept

    @cached_property
    def _clocks(self) -> dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, ...]]:
        return {}

    def _next_accepted(self) -> list[int]:
        """For every row the index of the first accepted state that it or a later row makes."""
        going_to, target = [], len(self.rows)
        for s in range(len(self.rows) - 1, -1, -1):
            target = s + 1 if self.rows[s].accepted else target
            going_to.append(target)
        return going_to[::-1]


def _rebased(row: Row, maps: dict[int, tuple[float, float]]) -> Row:
    states, predictions = defaultdict[int, float](float), defaultdict[int, float](float)  # an index may occur twice
    for index, weight in row.states:
        states[index] += weight
    for index, weight in row.predictions:
        m, k = maps[index]
        states[index] += weight * m
        predictions[index] += weight * k
    return evolve(row, states=_used(states), predictions=_used(predictions))


def _used(weights: dict[int, float]) -> Terms:
    return tuple((index, weight) for index, weight in weights.items() if weight)


def execute(
    plan: Plan,
    field: Field,
    x: Tensor,
    *,
    cond: Any = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Runs a plan: the one executor of all tables.

    Args:
        plan: The table.
        field: Gives the predictions p_j, of the plan's space.
        x: First state y_0, shape `(B, *D)`. The state keeps its dtype.
        cond: Condition, any pytree with the batch first, or None.
        generator: Draws the noise z_s, standard normal; a `BlockGenerator` draws it independently of the batch.
        on_step: Called with `(t, x)` for y_0 and every accepted state.

    Returns:
        The last state, shape `(B, *D)`.
    """
    dtype, shape, device = x.dtype, x.shape, x.device
    times = plan.clock(shape[0], time_dtype(dtype), device)
    ask, kinds = field.ask, (plan.space,)
    held: dict[int, Tensor] = {0: x}
    if on_step:
        on_step(plan.t0, x)
    del x  # the first state is forgotten after its last use, like any other
    for new, row in enumerate(plan.program, 1):
        for j, target in row.evaluate:
            prediction = ask(held[j], times[j], cond, kinds, times[target])
            held[-1 - j] = prediction if prediction.dtype is dtype else prediction.to(dtype)
            del prediction  # or it would outlive its last use
        terms = [held[index] for index in row.operands]
        total = _combine(row.weights, terms)
        if row.noise:
            total = total.add_(normal(shape, generator=generator, dtype=dtype, device=device), alpha=row.noise)
        del terms
        for index in row.spent:
            del held[index]
        held[new] = total
        if on_step and row.accepted is not None:
            on_step(row.accepted, total)
    return total


def _combine(weights: tuple[float, ...], terms: list[Tensor]) -> Tensor:
    """Σ w·x as a new tensor, one kernel for each term; a first term of weight 1 costs none."""
    if weights[0] == 1.0 and len(terms) > 1:
        total = torch.add(terms[0], terms[1], alpha=weights[1])
        if len(terms) == 2:
            return total
        rest = 2
    else:
        total, rest = terms[0] * weights[0], 1
    for weight, term in zip(weights[rest:], terms[rest:]):
        total.add_(term, alpha=weight)
    return total


@frozen(eq=False)
class TableSolver:
    """Makes a coefficient function a `Solver`.

    Args:
        plan: `plan(path, times) -> Plan`, with times float64 `(N+1,)` on the CPU, strictly monotone.
        space: The kind of prediction that the plan uses.
        order: Order of convergence (weak order for a stochastic table).
        evals_per_step: Network evaluations of one step once the history is full.
        stochastic: Whether the plan adds noise. Such a solver needs the score to be known and cannot invert.
        geometries: Geometries of paths that it serves.
        grid: A grid of its own, used unless the caller gives one.
        exact_in: The variable ("t", "log_snr" or "noise_to_signal") in which predictions that are polynomials of degree
            < order are integrated exactly; None where there is none.
        starts_blind: Whether it can start where predictions of its space say nothing of the data (noise at α = 0). If
            not, runs start a little later.
    """

    plan: Callable[[ProbabilityPath, Tensor], Plan]
    space: Prediction = attribute(converter=as_prediction, kw_only=True)
    order: int = attribute(kw_only=True, validator=validators.ge(1))
    evals_per_step: int = attribute(default=1, kw_only=True, validator=validators.ge(1))
    stochastic: bool = attribute(default=False, kw_only=True)
    geometries: frozenset[str] = attribute(default=frozenset({"euclidean"}), kw_only=True, converter=frozenset)
    grid: TimeGrid | None = attribute(default=None, kw_only=True)
    exact_in: str | None = attribute(
        default=None, kw_only=True, validator=validators.in_((None, "t", "log_snr", "noise_to_signal"))
    )
    starts_blind: bool = attribute(default=False, kw_only=True)

    @property
    def needs(self) -> frozenset[Prediction]:
        """The one kind of prediction that the table uses."""
        return frozenset({self.space})

    def prepare(self, field: Field, times: Tensor, *, final: bool = False) -> Plan:
        """The plan on this grid in the field's native space; `final` adds the data prediction that carries the last
        state to t = 1.

        Raises:
            TimeError: For a falling grid where the solver is stochastic.
        """
        if self.stochastic and times[0] > times[-1]:
            raise TimeError(
                f"a stochastic solver cannot invert: the grid falls from {times[0]:.6g} to {times[-1]:.6g}; "
                "use a deterministic solver (ddim, heun, …) for inversion"
            )
        plan = self.plan(field.path, times)
        if plan.space != self.space:
            raise ValueError(f"the solver declares space {str(self.space)!r} but its plan is in {str(plan.space)!r}")
        if plan.stochastic and not self.stochastic:
            raise ValueError("the plan adds noise, but the solver does not declare it; say stochastic=True")
        if final:
            plan = plan.denoised(field.path)
        if plan.space in field.arriving or not hasattr(field.path, "affine"):
            return plan
        return plan.rebase(field.path, field.native)

    def solve(
        self,
        field: Field,
        x: Tensor,
        times: Tensor,
        *,
        cond: Any = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Carries states x `(B, *D)` along the field from `times[0]` to `times[-1]`.

        Args:
            field: Field to follow.
            x: States, shape `(B, *D)`.
            times: Grid, `(N+1,)`, strictly increasing, or strictly decreasing to invert.
            cond: Condition, any pytree with the batch first, or None.
            generator: Draws the noise of a stochastic table.
            on_step: Called with `(t, x)` for the first and every accepted state.

        Returns:
            States at `times[-1]`, shape `(B, *D)`.
        """
        return execute(
            self.prepare(field, check_times(times)), field, x, cond=cond, generator=generator, on_step=on_step
        )

    def steps_for(self, field: Field, nfe: int, times: Callable[[int], Tensor], *, final: bool = False) -> int:
        """The most steps whose plan costs at most `nfe` network calls.

        Args:
            field: Field to follow.
            nfe: Budget of network calls.
            times: Gives the grid of a number of steps.
            final: Whether the closing data prediction is part of the cost.

        Raises:
            BudgetError: If even one step costs more.
        """
        steps = max(1, nfe // self.evals_per_step + 1)
        while steps and (cost := self.prepare(field, times(steps), final=final).nfe) > nfe:
            steps -= 1
        if not steps:
            raise BudgetError(
                f"one step of this solver costs {cost} network calls; got nfe={nfe}; give at least nfe={cost}"
            )
        return steps
