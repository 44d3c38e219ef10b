"""Plans as text and as JSON, and the reference executor: what a table does, in numpy alone.

`run_numpy` is the definition that every other executor is held to, and needs nothing but numpy and a plan, or the JSON
of one, so that a table can be run where torch is not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fm_core.plan import Plan

__all__ = ["FORMAT", "described", "plan_of_json", "plan_to_json", "run_numpy"]

FORMAT = "fm.plan/1"
"""What the JSON calls itself."""

_ROW = {"t", "states", "predictions", "noise", "accepted"}

Array = NDArray[Any]


def plan_to_json(plan: Plan) -> str:
    """A plan as JSON, one row a line; every number is read back to the last bit.

    Args:
        plan: Any plan.
    """
    rows = ",\n    ".join(
        json.dumps(
            {
                "t": row.t,
                "states": row.states,
                "predictions": row.predictions,
                "noise": row.noise,
                "accepted": row.accepted,
            }
        )
        for row in plan.rows
    )
    head = f'"format": "{FORMAT}",\n  "space": {json.dumps(str(plan.space))},\n  "t0": {json.dumps(plan.t0)}'
    return f'{{\n  {head},\n  "rows": [\n    {rows}\n  ]\n}}\n'


def plan_of_json(text: str) -> Plan:
    """The plan that `plan_to_json` wrote.

    Raises:
        SavedFileError: If it is no such JSON, is of another version, or lacks a part.
    """
    from fm_core.errors import SavedFileError
    from fm_core.plan import Plan, Row

    table = _table(text, SavedFileError)
    try:
        rows = [
            Row(
                float(row["t"]),
                _terms(row["states"]),
                _terms(row["predictions"]),
                float(row["noise"]),
                bool(row["accepted"]),
            )
            for row in table["rows"]
        ]
        return Plan(table["space"], float(table["t0"]), rows)
    except (TypeError, ValueError, KeyError) as error:
        raise SavedFileError(f"this JSON is no plan: {type(error).__name__}: {error}") from error


def _table(text: str, error: type[Exception]) -> Mapping[str, Any]:
    """The JSON as a mapping, its form checked."""
    try:
        table = json.loads(text)
    except json.JSONDecodeError as wrong:
        raise error(f"a plan is saved as JSON; this cannot be read: {wrong}") from wrong
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        got = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise error(f"expected a plan of the format {FORMAT!r}; got {got!r}: written by another version, or no plan")
    unknown = set(table) ^ {"format", "space", "t0", "rows"}
    rows = table.get("rows")
    if unknown or not isinstance(rows, list) or any(not isinstance(row, dict) or set(row) != _ROW for row in rows):
        raise error(
            "a plan has the keys format, space, t0 and rows, and every row "
            f"{', '.join(sorted(_ROW))}; this one has {', '.join(sorted(table))}"
        )
    return table


def _terms(pairs: Iterable[Any]) -> tuple[tuple[int, float], ...]:
    return tuple((_index(index), float(weight)) for index, weight in pairs)


def _index(index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"an index is a whole number; got {index!r}")
    return index


def run_numpy(
    plan: Plan | str,
    predict: Callable[[Array, float], Array],
    x: Array,
    *,
    noise: Iterable[Array] = (),
) -> Iterator[tuple[float, Array]]:
    """Runs a plan in numpy: `y_{s+1} = Σ a_k·y_k + Σ b_j·predict(y_j, t_j) + noise·z_s`, nothing else.

    Args:
        plan: The plan, or its JSON.
        predict: Prediction of the plan's space at `(x, t)`, x `(B, *D)` and t a number.
        x: First state, `(B, *D)`; the run is in its dtype.
        noise: The standard normal noise of the noisy rows, in order, each `(B, *D)`.

    Yields:
        Time and state of the first state, of every accepted one, and of the last.

    Raises:
        ValueError: If there is less noise than noisy rows, or the JSON is no plan.

    >>> from fm_core import Plan, Row
    >>> plan = Plan("velocity", 0.0, [Row(0.5, [(0, 1.0)], [(0, 0.5)]), Row(1.0, [(1, 1.0)], [(1, 0.5)])])
    >>> for t, state in run_numpy(plan.to_json(), lambda x, t: x, np.ones((1, 2))):
    ...     print(t, state)
    0.0 [[1. 1.]]
    0.5 [[1.5 1.5]]
    1.0 [[2.25 2.25]]
    """
    t0, rows = _plain(plan)
    asked = {j for row in rows for j, _ in row["predictions"]}
    last_use = {k: s for s, row in enumerate(rows) for pairs in (row["states"], row["predictions"]) for k, _ in pairs}
    draws, states, predictions, t = iter(noise), {0: x}, {}, t0
    yield t0, x
    for s, row in enumerate(rows):
        if s in asked:
            predictions[s] = predict(states[s], t)
        new = np.zeros_like(x)
        for k, weight in row["states"]:
            new = new + weight * states[k]
        for j, weight in row["predictions"]:
            new = new + weight * predictions[j]
        if row["noise"]:
            z = next(draws, None)
            if z is None:
                raise ValueError(f"row {s} of the plan adds noise, and no more was given; give one array a noisy row")
            new = new + row["noise"] * z
        t, states[s + 1] = row["t"], new
        for k in [k for k in states if k <= s and last_use.get(k, -1) <= s]:
            states.pop(k)
            predictions.pop(k, None)
        if row["accepted"] or s == len(rows) - 1:
            yield t, new


def _plain(plan: Plan | str) -> tuple[float, list[Mapping[str, Any]]]:
    if isinstance(plan, str):
        table = _table(plan, ValueError)
        return float(table["t0"]), table["rows"]
    return plan.t0, [{name: getattr(row, name) for name in _ROW} for row in plan.rows]


def described(plan: Plan, *, digits: int = 5) -> str:
    """A plan as a readable table.

    A new state that is a grid point is marked `*`; `y` are states, `p` predictions, and `z` is fresh noise.

    Args:
        plan: Any plan.
        digits: Significant digits of the weights.

    >>> from fm_core import Plan, Row
    >>> plan = Plan("data", 0.0, [Row(0.5, [(0, 0.5)], [(0, 0.5)], noise=0.1), Row(1.0, (), [(1, 1.0)])])
    >>> print(plan.describe())
    plan in data: 2 rows, 2 steps from t = 0 to t = 1, 2 network calls (y0 y1), stochastic
    y0*  t = 0
    y1*  t = 0.5  0.5·y0 + 0.5·p0 + 0.1·z
    y2*  t = 1    1·p1
    """
    calls = " ".join(f"y{j}" for j in plan.evaluated[:6]) + (" …" if plan.nfe > 6 else "")
    head = (
        f"plan in {plan.space}: {_count(len(plan.rows), 'row')}, {_count(len(plan.times) - 1, 'step')} from "
        f"t = {plan.t0:.6g} to t = {plan.state_times[-1]:.6g}, {_count(plan.nfe, 'network call')} ({calls}), "
        + ("stochastic" if plan.stochastic else "deterministic")
    )
    lines = [("y0*", f"{plan.t0:.6g}", "")]
    for new, row in enumerate(plan.rows, 1):
        terms = [(weight, f"y{k}") for k, weight in row.states]
        terms += [(weight, f"p{j}") for j, weight in row.predictions]
        terms += [(row.noise, "z")] if row.noise else []
        lines.append((f"y{new}{'*' if row.accepted else ' '}", f"{row.t:.6g}", _sum(terms, digits)))
    wide, wider = (max(len(line[i]) for line in lines) for i in (0, 1))
    table = "\n".join(f"{name:<{wide}}  t = {t:<{wider}}  {total}".rstrip() for name, t, total in lines)
    return f"{head}\n{table}"


def _sum(terms: list[tuple[float, str]], digits: int) -> str:
    text = ""
    for weight, name in terms:
        sign = ("−" if weight < 0 else "") if not text else (" − " if weight < 0 else " + ")
        text += f"{sign}{abs(weight):.{digits}g}·{name}"
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
