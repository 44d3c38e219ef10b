"""Coefficient functions as solvers.

A plan may be made for one network alone, as a calibrated one is: it then has one number of `steps` and times of its own
in `grid`, says in `predicts` what the network must predict, and in `provenance` where it comes from. What else it asks
of the path and of the times its coefficient function checks, which is given both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import converters, field as attribute, frozen, validators
from torch import Tensor

from fm_core.building import name_of
from fm_core.errors import BudgetError, CompatError, TimeError
from fm_core.executing import execute
from fm_core.gaussian import check_times
from fm_core.plan import Plan
from fm_core.prediction import Prediction, as_prediction
from fm_core.protocols import OnStep, ProbabilityPath, TimeGrid

if TYPE_CHECKING:
    from fm_core.field import Field

__all__ = ["TableSolver"]


def _kinds(names: Sequence[str]) -> tuple[Prediction, ...]:
    return tuple(map(as_prediction, names))


@frozen
class _OnChecked:
    """A coefficient function that is given checked grids alone; what else it has is still there."""

    function: Callable[[ProbabilityPath, Tensor], Plan]

    def __call__(self, path: ProbabilityPath, times: Any) -> Plan:
        return self.function(path, check_times(times))

    def __getattr__(self, name: str) -> Any:
        if name == "function":  # a copy has none yet
            raise AttributeError(name)
        return getattr(self.function, name)


def _on_checked(function: Callable[[ProbabilityPath, Tensor], Plan]) -> _OnChecked:
    return function if isinstance(function, _OnChecked) else _OnChecked(function)


@frozen(eq=False)
class TableSolver:
    """Makes a coefficient function a `Solver`.

    Args:
        plan: `plan(path, times) -> Plan`, with times float64 `(N+1,)` on the CPU, strictly monotone, in [0, 1]: called
            with anything, it is given such times, or raises `TimeError`. A plan that goes
            on beyond them to t = 1 closes the run itself, in place of the data prediction.
        space: The kind of prediction that the plan uses; None where that depends on the path.
        order: Order of convergence (weak order for a stochastic table).
        evals_per_step: Network evaluations of one step once the history is full.
        stochastic: Whether the plan adds noise. Such a solver needs the score to be known and cannot invert.
        geometries: Geometries of paths that it serves.
        grid: A grid of its own, used unless the caller gives one.
        exact_in: The variable ("t", "log_snr" or "noise_to_signal") in which predictions that are polynomials of degree
            < order are integrated exactly; None where there is none.
        starts_blind: Whether it can start where predictions of its space say nothing of the data (noise at α = 0). If
            not, runs start a little later.
        steps: The one number of steps of which there is a plan; None for any.
        predicts: What a network must predict for the plan to mean anything; empty for anything.
        provenance: Where the table comes from: for one that was fitted to what, and how well.
    """

    plan: Callable[[ProbabilityPath, Tensor], Plan] = attribute(converter=_on_checked)
    space: Prediction | None = attribute(default=None, converter=converters.optional(as_prediction), kw_only=True)
    order: int = attribute(kw_only=True, validator=validators.ge(1))
    evals_per_step: int = attribute(default=1, kw_only=True, validator=validators.ge(1))
    stochastic: bool = attribute(default=False, kw_only=True)
    geometries: frozenset[str] = attribute(default=frozenset({"euclidean"}), kw_only=True, converter=frozenset)
    grid: TimeGrid | None = attribute(default=None, kw_only=True)
    exact_in: str | None = attribute(
        default=None, kw_only=True, validator=validators.in_((None, "t", "log_snr", "noise_to_signal"))
    )
    starts_blind: bool = attribute(default=False, kw_only=True)
    steps: int | None = attribute(default=None, kw_only=True)
    predicts: tuple[Prediction, ...] = attribute(default=(), kw_only=True, converter=_kinds)
    provenance: Mapping[str, Any] = attribute(factory=dict, kw_only=True)

    @property
    def needs(self) -> frozenset[Prediction]:
        """The one kind of prediction that the table uses; the data, which every path gives, where that depends."""
        return frozenset({self.space or Prediction.DATA})

    def space_on(self, path: ProbabilityPath) -> Prediction:
        """The kind of prediction that plans on this path use: as declared, else that of two steps in the middle."""
        return self.space or self.plan(path, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).space

    def prepare(self, field: Field, times: Tensor, *, final: bool = False) -> Plan:
        """The plan on this grid in the field's native space; `final` adds the data prediction that carries the last
        state to t = 1.

        Raises:
            TimeError: For a falling grid where the solver is stochastic; for a run that is not closed where the plan
                closes it.
            CompatError: For a network that predicts something else than the table was made for.
        """
        if self.stochastic and times[0] > times[-1]:
            raise TimeError(
                f"a stochastic solver cannot invert: the grid falls from {times[0]:.6g} to {times[-1]:.6g}; "
                "use a deterministic solver (ddim, heun, …) for inversion"
            )
        self._require_network(field)
        plan = self.plan(field.path, times)
        if self.space is not None and plan.space != self.space:
            raise ValueError(f"the solver declares space {str(self.space)!r} but its plan is in {str(plan.space)!r}")
        if plan.stochastic and not self.stochastic:
            raise ValueError("the plan adds noise, but the solver does not declare it; say stochastic=True")
        closed = len(plan.times) > len(times)
        if closed and not final:
            raise TimeError("this table goes on to the data prediction; it cannot stop before, with final='none'")
        if final and not closed:
            plan = plan.denoised(field.path)
        if plan.space in field.arriving or not hasattr(field.path, "affine"):
            return plan
        return plan.rebase(field.path, field.native)

    def _require_network(self, field: Field) -> None:
        from fm_core.calibration.guided import warn_of_other_guidance
        from fm_core.compat import made_for

        if found := list(made_for(self, field.model.predicts, field.path)):
            raise CompatError(found)
        warn_of_other_guidance(self.provenance, field.guidances)

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
            BudgetError: If even one step costs more, or the plan's one number of steps costs anything else.
        """
        if self.steps is not None:
            cost = self.prepare(field, times(self.steps), final=final).nfe
            if cost != nfe:
                raise BudgetError(
                    f"this table was made for {cost} predictions; got a budget of {nfe}. Give that budget, or fit a "
                    "table to this one: fm.calibrate(pipe, …, nfe=…)"
                )
            return self.steps
        fits, over, steps = 0, math.inf, max(1, nfe // self.evals_per_step)
        while fits + 1 < over:
            cost = self.prepare(field, times(steps), final=final).nfe
            if cost == nfe:
                return steps
            fits, over = (steps, over) if cost < nfe else (fits, steps)
            steps = int(min(max(steps * nfe // max(cost, 1), fits + 1), over - 1))  # by what a step costs so far
        if not fits:
            raise BudgetError(
                f"one step of {name_of(self)!r} costs {cost} network calls; got nfe={nfe}; give at least nfe={cost}"
            )
        return fits
