"""Plans as text and as JSON, and the reference executor: what a table does, in numpy alone.

`run_numpy` is the definition that every other executor is held to, and needs nothing but numpy and a plan, or the JSON
of one, so that a table can be run where torch is not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fm_core.errors import ArgumentError, SavedFileError

if TYPE_CHECKING:
    from fm_core.plan import Plan

__all__ = ["FORMAT", "check_row", "described", "plan_of_json", "plan_to_json", "run_numpy"]

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


def plan_of_json(text: str | bytes) -> Plan:
    """The plan that `plan_to_json` wrote.

    Raises:
        SavedFileError: If it is no such JSON, is of another version, lacks a part, or holds what no plan has.
        ArgumentError: If it is no text.
    """
    from fm_core.plan import Plan, Row

    table = _table(text)
    try:
        return Plan(table["space"], table["t0"], [Row(**row) for row in table["rows"]])
    except ValueError as error:  # of the space: all else is checked
        raise SavedFileError(f"this JSON is no plan: {error}") from error


def _table(text: object) -> Mapping[str, Any]:
    """The JSON as a mapping, all of it checked but the space, which numpy has no use for."""
    if not isinstance(text, str | bytes):
        raise ArgumentError(f"a plan is read from the text that plan.to_json() gave; got {type(text).__name__}")
    try:
        table = json.loads(text)
    except ValueError as wrong:
        raise SavedFileError(f"a plan is saved as JSON; this cannot be read: {wrong}") from wrong
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        got = table.get("format") if isinstance(table, dict) else type(table).__name__
        raise SavedFileError(
            f"expected a plan of the format {FORMAT!r}; got {got!r}: written by another version, or no plan"
        )
    unknown = set(table) ^ {"format", "space", "t0", "rows"}
    rows = table.get("rows")
    if unknown or not isinstance(rows, list) or any(not isinstance(row, dict) or set(row) != _ROW for row in rows):
        raise SavedFileError(
            "a plan has the keys format, space, t0 and rows, and every row "
            f"{', '.join(sorted(_ROW))}; this one has {', '.join(sorted(table))}"
        )
    if not rows:
        raise SavedFileError("this JSON is no plan: a plan has at least one row; got none")
    try:
        return table | {"t0": _number(table["t0"]), "rows": [_row(s, row) for s, row in enumerate(rows)]}
    except (TypeError, ValueError) as error:
        raise SavedFileError(f"this JSON is no plan: {error}") from error


def _row(s: int, row: Mapping[str, Any]) -> dict[str, Any]:
    states, predictions = (tuple((_index(k), _number(w)) for k, w in row[name]) for name in ("states", "predictions"))
    t, noise, accepted = _number(row["t"]), _number(row["noise"]), row["accepted"]
    if not isinstance(accepted, bool):
        raise ValueError(f"accepted is true or false; got {accepted!r}")
    check_row(s, t, states, predictions, noise)
    return {"t": t, "states": states, "predictions": predictions, "noise": noise, "accepted": accepted}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"times, weights and noise are finite numbers; got {value!r}")
    return float(value)


def _index(index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"an index is a whole number; got {index!r}")
    return index


def check_row(
    s: int, t: float, states: Iterable[tuple[int, float]], predictions: Iterable[tuple[int, float]], noise: float
) -> None:
    """What every row of a plan must have: something it is made of, indices of what exists, finite numbers.

    Raises:
        ValueError: Saying which row, and what is wrong with it.
    """
    terms = (*states, *predictions)
    if not terms:
        raise ValueError(f"row {s} of the plan (to t = {t:.6g}) uses no state and no prediction")
    for index, weight in terms:
        if not 0 <= index <= s:
            raise ValueError(f"row {s} of the plan uses index {index}; a row s may use states and predictions 0 … s")
        if not math.isfinite(weight):
            raise ValueError(f"row {s} of the plan (to t = {t:.6g}) has the weight {weight} for index {index}")
    if not math.isfinite(noise) or not math.isfinite(t):
        raise ValueError(f"row {s} of the plan has noise {noise} and t {t}; both must be finite")


def run_numpy(
    plan: Plan | str | bytes,
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
        ValueError: If there is less noise than noisy rows.
        SavedFileError: If the JSON is no plan.
        ArgumentError: For what is neither a plan nor its JSON.

    >>> from fm_core import Plan, Row
    >>> plan = Plan("velocity", 0.0, [Row(0.5, [(0, 1.0)], [(0, 0.5)]), Row(1.0, [(1, 1.0)], [(1, 0.5)])])
    >>> for t, state in run_numpy(plan.to_json(), lambda x, t: x, np.ones((1, 2))):
    ...     print(t, state)
    0.0 [[1. 1.]]
    0.5 [[1.5 1.5]]
    1.0 [[2.25 2.25]]
    """
    (t0, rows), x = _plain(plan), np.asarray(x)
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


def _plain(plan: Plan | str | bytes) -> tuple[float, list[Mapping[str, Any]]]:
    if isinstance(plan, str | bytes) or not hasattr(plan, "rows"):
        table = _table(plan)
        return table["t0"], table["rows"]
    return plan.t0, [{name: getattr(row, name) for name in _ROW} for row in plan.rows]


def described(plan: Plan, *, digits: int = 5) -> str:
    """A plan as a readable table.

    A new state that is a grid point is marked `*`; `y` are states, `p` predictions, and `z` is fresh noise.

    Args:
        plan: Any plan.
        digits: Significant digits of the weights, ≥ 1.

    Raises:
        ArgumentError: For digits that are no such number.

    >>> from fm_core import Plan, Row
    >>> plan = Plan("data", 0.0, [Row(0.5, [(0, 0.5)], [(0, 0.5)], noise=0.1), Row(1.0, (), [(1, 1.0)])])
    >>> print(plan.describe())
    plan in data: 2 rows, 2 steps from t = 0 to t = 1, 2 network calls (y0 y1), stochastic
    y0*  t = 0
    y1*  t = 0.5  0.5·y0 + 0.5·p0 + 0.1·z
    y2*  t = 1    1·p1
    """
    if isinstance(digits, bool) or not isinstance(digits, int) or digits < 1:
        raise ArgumentError(f"digits is a whole number ≥ 1; got {digits!r}")
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
