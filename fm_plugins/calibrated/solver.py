"""The solver of a calibrated table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from attrs import field as attribute, frozen
from torch import Tensor

from fm_core import BudgetError, CompatError, Field, Plan, Prediction, ProbabilityPath, Problem, Row, TimeError
from fm_core.executing import execute
from fm_core.field import schedule_fingerprint
from fm_core.gaussian import check_times
from fm_core.prediction import as_prediction
from fm_core.protocols import OnStep

__all__ = ["Calibrated", "OwnGrid", "calibrated"]

SAME = 1e-6
"""Schedules, and times, that differ by less are one."""


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _rows(values: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(_numbers(row) for row in values)


def _kinds(names: Sequence[str]) -> tuple[Prediction, ...]:
    return tuple(map(as_prediction, names))


@final
@frozen
class OwnGrid:
    """The times of a calibrated table, and no others.

    Args:
        own: The times, N + 1 of them, strictly rising.
    """

    own: tuple[float, ...] = attribute(converter=_numbers)

    def times(self, path: ProbabilityPath | None, steps: int, span: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        """The times, `(N + 1,)`, float64.

        Raises:
            BudgetError: For another number of steps.
            TimeError: For another span.
        """
        own = self.own
        if steps != len(own) - 1:
            raise BudgetError(
                f"this table was calibrated for {len(own) - 1} steps and has no others; got a budget of {steps}. Give "
                f"steps={len(own) - 1}, or calibrate for that budget: fm.calibrate(pipe, …, nfe=…)"
            )
        if max(abs(span[0] - own[0]), abs(span[1] - own[-1])) > SAME:
            raise TimeError(
                f"this table was calibrated from t = {own[0]:.6g} to {own[-1]:.6g}; got {span[0]:.6g} to "
                f"{span[1]:.6g}. Use an uncalibrated solver to start elsewhere, or to invert"
            )
        return torch.tensor(own, dtype=torch.float64, device="cpu")


@final
@frozen(eq=False)
class Calibrated:
    """A table fitted to one field: y_{s+1} = a_s·y_s + Σ_{j≤s} b_sj·p_j.

    Args:
        space: What p_j is.
        times: N + 1 times, strictly rising.
        carry: a_s, N numbers.
        weights: b_sj, row s of s + 1 numbers.
        schedule: α and σ of the path it was fitted on, at t = 1/8 … 7/8; empty to serve any path.
        predicts: What the network predicts that it was fitted to; empty to serve any.
        provenance: What it was fitted to, and how well.

    Raises:
        ValueError: For numbers that make no table.
    """

    space: Prediction = attribute(converter=as_prediction)
    times: tuple[float, ...] = attribute(converter=_numbers)
    carry: tuple[float, ...] = attribute(converter=_numbers)
    weights: tuple[tuple[float, ...], ...] = attribute(converter=_rows)
    schedule: tuple[float, ...] = attribute(default=(), converter=_numbers)
    predicts: tuple[Prediction, ...] = attribute(default=(), converter=_kinds)
    provenance: Mapping[str, Any] = attribute(factory=dict)
    grid: OwnGrid = attribute(init=False, repr=False)
    table: Plan = attribute(init=False, repr=False)

    order = 1
    evals_per_step = 1
    stochastic = False
    starts_blind = True

    @grid.default
    def _grid(self) -> OwnGrid:
        check_times(self.times)
        return OwnGrid(self.times)

    @table.default
    def _table(self) -> Plan:
        steps = len(self.times) - 1
        if len(self.carry) != steps or [len(row) for row in self.weights] != list(range(1, steps + 1)):
            raise ValueError(
                f"{steps + 1} times need {steps} numbers in carry, and {steps} rows of weights of 1 … {steps} numbers; "
                f"got {len(self.carry)}, and rows of {[len(row) for row in self.weights]}"
            )
        rows = [
            Row(t, ((s, a),) if a else (), tuple((j, b) for j, b in enumerate(row) if b))
            for s, (t, a, row) in enumerate(zip(self.times[1:], self.carry, self.weights, strict=True))
        ]
        return Plan(self.space, self.times[0], rows)

    @property
    def needs(self) -> frozenset[Prediction]:
        """The one kind of prediction that the table weighs."""
        return frozenset({self.space})

    def plan(self, path: ProbabilityPath, times: Tensor) -> Plan:
        """The table.

        Args:
            path: The path it was fitted on.
            times: Its own times.

        Raises:
            CompatError: For another path.
            BudgetError, TimeError: For other times.
        """
        here = schedule_fingerprint(path)
        if self.schedule and not _same(self.schedule, here):
            raise _misplaced(
                f"the path here has other α and σ than {self.provenance.get('path', 'the one')!r} it was fitted on"
            )
        own = self.grid.times(path, len(times) - 1, (float(times[0]), float(times[-1])))
        if not torch.allclose(own, times.to(own), rtol=0.0, atol=SAME):
            raise TimeError(
                f"a calibrated table has times of its own, {[round(t, 4) for t in self.times]}; got "
                f"{[round(t, 4) for t in times.tolist()]}. Leave grid= and times= out: pipe.replace(grid=None)"
            )
        return self.table

    def prepare(self, field: Field, times: Tensor, *, final: bool = False) -> Plan:
        """The table in the field's native space; `final` adds the closing data prediction.

        Raises:
            CompatError: For a network on another path, or that predicts something else.
            BudgetError, TimeError: For other times.
        """
        plan = self.plan(field.path, times)
        if self.predicts and tuple(field.model.predicts) != self.predicts:
            there, here = (" and ".join(kinds) for kinds in (self.predicts, field.model.predicts))
            raise _misplaced(f"this network predicts {here}, and that one predicted {there}")
        plan = plan.denoised(field.path) if final else plan
        return plan if plan.space in field.arriving else plan.rebase(field.path, field.native)

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
        """Carries states x `(B, *D)` along the field from `times[0]` to `times[-1]`, which must be its own times."""
        plan = self.prepare(field, check_times(times))
        return execute(plan, field, x, cond=cond, generator=generator, on_step=on_step)

    def steps_for(self, field: Field, nfe: int, times: Callable[[int], Tensor], *, final: bool = False) -> int:
        """Its number of steps, if they cost `nfe` network calls.

        Raises:
            BudgetError: If they do not.
        """
        cost = len(self.times) - 1 + final
        if cost != nfe:
            raise BudgetError(
                f"this table was calibrated for {cost} predictions; got a budget of {nfe}. Give that budget, or "
                "calibrate for this one: fm.calibrate(pipe, …, nfe=…)"
            )
        return len(self.times) - 1


def calibrated(
    space: str,
    times: Sequence[float],
    carry: Sequence[float],
    weights: Sequence[Sequence[float]],
    *,
    schedule: Sequence[float] = (),
    predicts: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Calibrated:
    """A table fitted by `fm.calibrate`, as numbers: `y_{s+1} = a_s·y_s + Σ_{j≤s} b_sj·p_j`.

    Args:
        space: What p_j is.
        times: N + 1 times.
        carry: a_s, N numbers.
        weights: b_sj, row s of s + 1 numbers.
        schedule: α and σ of its path at t = 1/8 … 7/8; empty to serve any.
        predicts: What its network predicts; empty to serve any.
        provenance: What it was fitted to, and how well.
    """
    return Calibrated(space, times, carry, weights, schedule, predicts, dict(provenance or {}))


def _same(there: Sequence[float], here: Sequence[float]) -> bool:
    return len(there) == len(here) and all(abs(a - b) <= SAME for a, b in zip(there, here))


def _misplaced(why: str) -> CompatError:
    return CompatError(
        [
            Problem(
                "this table was calibrated for another field",
                f"{why}: its weights mean nothing here",
                "calibrate this pipeline: fm.calibrate(pipe, …, nfe=…), or choose solver='auto'",
            )
        ]
    )
