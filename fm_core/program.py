"""A plan as a program: when the network is asked, what is added up at once, and when each value can be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from fm_core.plan import Plan

__all__ = ["Group", "Instruction", "groups", "instructions"]


@frozen
class Instruction:
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


def instructions(plan: Plan) -> tuple[Instruction, ...]:
    """The rows as instructions: every prediction just before its first use, everything forgotten after its last."""
    going_to = _next_accepted(plan)
    operands = [tuple(k for k, _ in row.states) + tuple(-1 - j for j, _ in row.predictions) for row in plan.rows]
    evaluate: list[list[tuple[int, int]]] = [[] for _ in plan.rows]
    last_use = {k: k for k in range(len(plan.rows))}  # a state that nothing uses goes with the next row
    for s, used in enumerate(operands):
        for index in used:
            if index < 0 and index not in last_use:
                evaluate[s].append((-1 - index, going_to[s]))
                last_use[-1 - index] = s
            last_use[index] = s
    spent: list[list[int]] = [[] for _ in plan.rows]
    for index, s in last_use.items():
        spent[s].append(index)
    return tuple(
        Instruction(
            evaluate=tuple(evaluate[s]),
            operands=operands[s],
            weights=tuple(weight for _, weight in row.states + row.predictions),
            noise=row.noise,
            spent=tuple(spent[s]),
            accepted=row.t if row.accepted else None,
        )
        for s, row in enumerate(plan.rows)
    )


def _next_accepted(plan: Plan) -> list[int]:
    """For every row the index of the first accepted state that it or a later row makes."""
    going_to, target = [], len(plan.rows)
    for s in range(len(plan.rows) - 1, -1, -1):
        target = s + 1 if plan.rows[s].accepted else target
        going_to.append(target)
    return going_to[::-1]


@frozen
class Group:
    """Rows between two network calls, as one linear map from what is held to their new states.

    Attributes:
        evaluate: Predictions first used here, as in `Instruction`.
        operands: What the map reads, by buffer index.
        weights: One row of weights over the operands for every new state.
        first: Index of the first new state.
        noise: Standard deviation of the noise in the last one.
        spent: What is used here for the last time.
        accepted: The time of every new state that is a grid point, None for others.
    """

    evaluate: tuple[tuple[int, int], ...]
    operands: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]
    first: int
    noise: float
    spent: tuple[int, ...]
    accepted: tuple[float | None, ...]


def groups(program: tuple[Instruction, ...], *, fused: bool) -> tuple[Group, ...]:
    """The program in groups: of one row each, or fused, every row with those after it that ask nothing new.

    In a fused group a row that uses an earlier one's state has that row's weights in its place: a corrected state and
    the next predicted one come from one product. A noisy row ends its group.
    """
    found: list[Group] = []
    start = 0
    while start < len(program):
        end = start + 1
        while fused and end < len(program) and not program[end].evaluate and not program[end - 1].noise:
            end += 1
        found.append(_group(program[start:end], start + 1))
        start = end
    return tuple(found)


def _group(rows: tuple[Instruction, ...], first: int) -> Group:
    maps: dict[int, dict[int, float]] = {}
    for new, row in enumerate(rows, first):
        total: dict[int, float] = {}
        for index, weight in zip(row.operands, row.weights, strict=True):
            for source, share in maps.get(index, {index: 1.0}).items():
                total[source] = total.get(source, 0.0) + weight * share
        maps[new] = total
    operands = tuple(dict.fromkeys(index for total in maps.values() for index in total))
    return Group(
        evaluate=tuple(pair for row in rows for pair in row.evaluate),
        operands=operands,
        weights=tuple(tuple(total.get(index, 0.0) for index in operands) for total in maps.values()),
        first=first,
        noise=rows[-1].noise,
        spent=tuple(index for row in rows for index in row.spent),
        accepted=tuple(row.accepted for row in rows),
    )
