"""A plan in blocks of steps, each as the text of a straight-line function of tensors: what a compiler is given.

In the text a value is named by its distance from the block's first state (`y0` that state, `p_1` the prediction at the
state before it), and times, weights and noise are arguments. So blocks of one structure have one text whatever the grid
and the weights are, and are compiled once. A multistep run starts up, then goes on in equal steps, then ends: the equal
ones are cut into equal blocks, and what remains of them goes to the start-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from attrs import frozen

from fm_core.plan import Plan
from fm_core.program import Instruction

__all__ = ["Block", "blocks"]


@frozen
class Block:
    """Rows of a plan as one function, and what it is called with. A buffer index is as in `Instruction`.

    Attributes:
        text: A function `block(field, cond, kinds, t, w, z, *given)`: times t, weights w, noise z.
        given: The states and predictions of earlier blocks that it reads.
        made: What it returns.
        kept: What later blocks read, all of them together.
        seen: The states that it returns because they were asked for.
        clock: For every prediction the time of its state, and the time the solver is going to.
        weights: The weights in the order in which the text uses them, noise included.
        noisy: The rows that add noise.
    """

    text: str
    given: tuple[int, ...]
    made: tuple[int, ...]
    kept: tuple[int, ...]
    seen: tuple[int, ...]
    clock: tuple[float, ...]
    weights: tuple[float, ...]
    noisy: tuple[int, ...]


def blocks(plan: Plan, most: int, *, watched: bool) -> tuple[Block, ...]:
    """The plan in blocks of at most `most` steps, each ending at an accepted state.

    Args:
        plan: The table.
        most: The most steps of a block, at least 1.
        watched: Whether blocks return every state that is accepted or noisy, rather than what is read later alone.
    """
    program = plan.program
    ends = [s + 1 for s, row in enumerate(program) if row.accepted is not None or s == len(program) - 1]
    steps = list(pairwise([0, *ends]))
    pieces, equal = _pieces([_lines(program, a, b) for a, b in steps], most)
    spans = [(steps[first][0], steps[last - 1][1]) for first, last in pieces]
    kept = _kept(program, spans)
    made = [_made(program, span, kept[i], watched) for i, span in enumerate(spans)]
    shared = sorted({index for i in equal for index in _relative(made[i], spans[i][0])})
    return tuple(
        _block(plan, span, _absolute(shared, span[0]) if i in equal else made[i], kept[i], watched)
        for i, span in enumerate(spans)
    )


def _pieces(steps: Sequence[object], most: int) -> tuple[list[tuple[int, int]], range]:
    """Ranges of steps, and which of these are equal: the longest run of equal steps in blocks of one size."""
    count = len(steps)
    changes = [0, *(i for i in range(1, count) if steps[i] != steps[i - 1]), count]
    start, stop = max(pairwise(changes), key=lambda run: run[1] - run[0])
    repeats = -(-(stop - start) // most)
    if repeats == 1:
        return _evenly(0, count, most), range(0)
    size, rest = divmod(stop - start, repeats)
    if start or stop == count:
        start += rest
    else:
        stop -= rest
    head, tail = _evenly(0, start, most), _evenly(stop, count, most)
    body = [(i, i + size) for i in range(start, stop, size)]
    return head + body + tail, range(len(head), len(head) + len(body))


def _evenly(start: int, stop: int, most: int) -> list[tuple[int, int]]:
    count = -(-(stop - start) // most)
    cuts = [start + (stop - start) * i // count for i in range(count + 1)] if count else []
    return list(pairwise(cuts))


def _reads(program: Sequence[Instruction], start: int, stop: int) -> set[int]:
    """What rows read: operands, and the states at which the network is asked."""
    rows = program[start:stop]
    asked = {j for row in rows for j, _ in row.evaluate}
    return asked | {index for row in rows for index in row.operands}


def _makes(program: Sequence[Instruction], start: int, stop: int) -> set[int]:
    """What rows make: their states, and the predictions first used there."""
    return {*range(start + 1, stop + 1), *(-1 - j for row in program[start:stop] for j, _ in row.evaluate)}


def _kept(program: Sequence[Instruction], spans: Sequence[tuple[int, int]]) -> list[set[int]]:
    """What is read after every block, or is the result."""
    kept, need = [], {len(program)}
    for span in reversed(spans):
        kept.append(need)
        need = (need - _makes(program, *span)) | (_reads(program, *span) - _makes(program, *span))
    return kept[::-1]


def _made(program: Sequence[Instruction], span: tuple[int, int], kept: set[int], watched: bool) -> list[int]:
    """What a block returns: what is read later, and what is watched."""
    return sorted((kept & _makes(program, *span)) | (set(_seen(program, *span)) if watched else set()))


def _seen(program: Sequence[Instruction], start: int, stop: int) -> list[int]:
    rows = enumerate(program[start:stop], start)
    return [s + 1 for s, row in rows if row.accepted is not None or row.noise]


def _relative(indices: Sequence[int], base: int) -> list[tuple[str, int]]:
    """Buffer indices by kind and by distance from the state of index `base`."""
    return [("y", index - base) if index >= 0 else ("p", -1 - index - base) for index in indices]


def _absolute(names: Sequence[tuple[str, int]], base: int) -> list[int]:
    return [offset + base if kind == "y" else -1 - offset - base for kind, offset in names]


def _names(indices: Sequence[int], base: int) -> list[str]:
    return [f"{kind}{offset}".replace("-", "_") for kind, offset in _relative(indices, base)]


def _lines(program: Sequence[Instruction], start: int, stop: int) -> list[str]:
    """The rows as assignments: predictions before the sums that use them."""
    lines, asked, weights, noises = [], 0, 0, 0
    for s, row in enumerate(program[start:stop], start):
        for j, _ in row.evaluate:
            state, name = _names([j, -1 - j], start)
            lines.append(f"{name} = field.ask({state}, t[{asked}].expand(n), cond, kinds, t[{asked + 1}].expand(n))")
            lines.append(f"{name} = {name}.to({state}.dtype)")
            asked += 2
        terms = [f"w[{weights + i}] * {name}" for i, name in enumerate(_names(row.operands, start))]
        weights += len(terms)
        if row.noise:
            terms.append(f"w[{weights}] * z[{noises}]")
            weights, noises = weights + 1, noises + 1
        lines.append(f"{_names([s + 1], start)[0]} = {' + '.join(terms)}")
    return lines


def _block(plan: Plan, span: tuple[int, int], made: Sequence[int], kept: set[int], watched: bool) -> Block:
    program, (start, stop) = plan.program, span
    rows, times = program[start:stop], plan.state_times
    given = sorted(_reads(program, *span) - _makes(program, *span))
    names, result = _names(given, start), "".join(f"{name}, " for name in _names(made, start))
    body = [f"n = {names[0]}.shape[0]", *_lines(program, *span), f"return ({result})"]
    return Block(
        text=f"def block(field, cond, kinds, t, w, z, {', '.join(names)}):\n    " + "\n    ".join(body) + "\n",
        given=tuple(given),
        made=tuple(made),
        kept=tuple(sorted(kept)),
        seen=tuple(_seen(program, *span)) if watched else (),
        clock=tuple(times[i] for row in rows for pair in row.evaluate for i in pair),
        weights=tuple(w for row in rows for w in (*row.weights, *((row.noise,) if row.noise else ()))),
        noisy=tuple(s for s, row in enumerate(rows, start) if row.noise),
    )
