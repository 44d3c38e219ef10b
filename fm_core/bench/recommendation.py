"""What `fm.recommend` gives: the contenders within a budget, ranked, and which to take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from attrs import field, frozen

from fm_core.bench.affording import Afforded
from fm_core.bench.contenders import Contender
from fm_core.bench.records import Record
from fm_core.bench.report.cells import DOUBT
from fm_core.bench.statistics import FEWEST, Estimate, differ, estimate
from fm_core.errors import BudgetError
from fm_core.pipeline import Pipeline

__all__ = ["Recommendation", "Row", "ranked"]

ERROR = "error_median"
SAME = 1e-4
"""Contenders whose errors differ by less than this part, on every seed, take the same steps but for rounding."""


@frozen
class Row:
    """A contender within the budget.

    Args:
        name: Solver and grid as one types them.
        nfe: Network calls spent on a sample.
        error: Median over the samples of the end-point error.
        verdict: "best", "the same" as the best, "no difference" from it, "worse", "untold" where the seeds are too few
            to tell, or why it did not run.
        seconds: Least time of one batch; None where it was not timed.
    """

    name: str
    nfe: int
    error: Estimate | None
    verdict: str
    seconds: float | None = None


@frozen(eq=False)
class Recommendation:
    """A solver for a pipeline and a budget, with the evidence.

    Args:
        name: The solver and its grid as one types them.
        nfe: The budget to sample with: `pipeline.sample(…, nfe=nfe)`.
        pipeline: The pipeline with them in it.
        budget: What was asked for.
        rows: All contenders, the least error first.
        reference_error: How far two references differ: errors near it say nothing.
        reference_steps: Steps of the reference.
        batch: Samples drawn at a time, of which times are.
        threads: Threads on which torch computed.
    """

    name: str
    nfe: int
    pipeline: Pipeline = field(repr=False)
    budget: str
    rows: tuple[Row, ...] = field(repr=False)
    reference_error: float
    reference_steps: int
    batch: int
    threads: int

    @property
    def level(self) -> tuple[str, ...]:
        """Contenders between which and this one no difference was found."""
        return tuple(row.name for row in self.rows if row.verdict == "no difference")

    @property
    def same(self) -> tuple[str, ...]:
        """Contenders that take the same steps as this one within the budget."""
        return tuple(row.name for row in self.rows if row.verdict == "the same")

    @property
    def conclusions(self) -> tuple[str, ...]:
        """In sentences: what to take, what is as good, and by what it was measured."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        lines = [f"Take {self.name} with nfe={self.nfe}."]
        if self.same:
            take = "takes" if len(self.same) == 1 else "take"
            lines.append(f"Within this budget {', '.join(self.same)} {take} the same steps; it is the plainest.")
        if self.level:
            lines.append(f"No difference was found from {', '.join(self.level)}.")
        if any(row.verdict == "untold" for row in self.rows):
            lines.append(f"Whether others differ by chance cannot be told from so few seeds: give {FEWEST} or more.")
        lines.append(
            f"Errors are against the pipeline's own solution in {self.reference_steps} steps, itself right to "
            f"{self.reference_error:.2g}; times are of a batch of {self.batch} on {threads}."
        )
        best = self.rows[0].error
        if best is not None and best.median < DOUBT * self.reference_error:
            lines.append("Errors are close to the reference's own: the best ones cannot be told apart by it.")
        return tuple(lines)

    def __str__(self) -> str:
        ran = [row for row in self.rows if row.error is not None]
        width = max(len(row.name) for row in ran)
        lines = [f"take {self.name}, nfe={self.nfe} (budget {self.budget})"]
        for row in ran:
            took = "" if row.seconds is None else f"  {1000 * row.seconds:.3g} ms"
            lines.append(f"  {row.name:<{width}}  nfe {row.nfe:>3}  error {row.error}{took}  {row.verdict}")
        return "\n".join([*lines, *self.conclusions[1:]])


def ranked(
    afforded: Mapping[Contender, Afforded], records: Mapping[str, list[Record]], budget: str | int
) -> tuple[Row, ...]:
    """The contenders, what is best first."""
    troubles = {one: _trouble(records[one.name], spent.calls) for one, spent in afforded.items()}
    errors = {
        one: estimate({record.seed: record.figures[ERROR] for record in records[one.name]})
        for one, trouble in troubles.items()
        if records[one.name] and trouble is None
    }
    missing = [Row(one.name, 0, None, trouble) for one, trouble in troubles.items() if trouble is not None]
    if not errors:
        why = "; ".join(dict.fromkeys(row.verdict for row in missing)) or "nothing is that fast"
        raise BudgetError(f"no solver runs on this pipeline within {budget}: {why}")
    order = sorted(errors, key=lambda one: errors[one].median)
    same = [one for one in order if _same(errors[one], errors[order[0]])]
    winner = min(same, key=_plainness)
    order.sort(key=lambda one: (one is not winner, one not in same))
    found = []
    for one in order:
        apart = differ(errors[winner], errors[one])
        told = "untold" if apart is None else "worse" if apart else "no difference"
        verdict = "best" if one is winner else "the same" if one in same else told
        nfe = max(int(record.figures["nfe"]) for record in records[one.name])
        found.append(Row(one.name, nfe, errors[one], verdict, afforded[one].seconds))
    return (*found, *missing)


def _trouble(records: Iterable[Record], calls: int) -> str | None:
    """Why a contender is none: what went wrong, or that it does not keep to the network calls it was given."""
    for record in records:
        if record.status != "ok":
            return f"{record.status}: {record.why}"
        if record.figures["nfe"] > calls:
            return f"failed: it made {record.figures['nfe']:.0f} network calls where {calls} were asked for"
    return None


def _same(one: Estimate, other: Estimate) -> bool:
    return all(math.isclose(x, other.by_seed[seed], rel_tol=SAME) for seed, x in one.by_seed.items())


def _plainness(one: Contender) -> tuple[bool, bool, int, int]:
    """The plainest is the least: on its own grid, of low order, of few calls a step."""
    if one.fitted:
        return True, True, 0, 0
    return False, one.grid is not None, one.built.order, one.built.evals_per_step
