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

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

import torch
from attrs import evolve, field as attribute, frozen
from torch import Tensor

from fm_core.combining import FEW
from fm_core.errors import TimeError
from fm_core.plan_export import check_row, described, plan_of_json, plan_to_json
from fm_core.prediction import Prediction, as_prediction
from fm_core.program import Group, Instruction, groups, instructions
from fm_core.protocols import ProbabilityPath

__all__ = ["Plan", "Row"]

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
            check_row(s, row.t, row.states, row.predictions, row.noise)

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

    def describe(self, *, digits: int = 5) -> str:
        """The plan as a readable table; see `fm_core.plan_export.described`."""
        return described(self, digits=digits)

    def to_json(self) -> str:
        """The plan as JSON, which `from_json` reads back to the last bit."""
        return plan_to_json(self)

    @staticmethod
    def from_json(text: str | bytes) -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            SavedFileError: If the text is no such JSON.
            ArgumentError: If it is no text.
        """
        return plan_of_json(text)

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
    def program(self) -> tuple[Instruction, ...]:
        """The rows as instructions: every prediction just before its first use, everything forgotten after its last."""
        return instructions(self)

    @cached_property
    def steps(self) -> tuple[Group, ...]:
        """The program row by row."""
        return groups(self.program, fused=False)

    def products(self, dtype: torch.dtype) -> tuple[tuple[Group, ...], tuple[tuple[Tensor, ...] | None, ...]]:
        """The program in fused groups; of those worth a product also the weights of each sum, `(1, operands)`."""
        kept = self._products.get(dtype)
        if kept is None:
            fused = groups(self.program, fused=True)
            with torch.inference_mode(False):
                kept = self._products[dtype] = (
                    fused,
                    tuple(
                        tuple(torch.tensor([row], dtype=dtype) for row in group.weights)
                        if len(group.operands) > FEW or len(group.weights) > 1
                        else None
                        for group in fused
                    ),
                )
        return kept

    @cached_property
    def _products(self) -> dict[torch.dtype, tuple[tuple[Group, ...], tuple[tuple[Tensor, ...] | None, ...]]]:
        return {}

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
