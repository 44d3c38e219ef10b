"""Running many tables at once, and how a table's ends depend on its free numbers.

What changes a row leaves all before it as it was. So derivatives by forward differences cost about N³/6 calls for the
pilot instead of N³/2; nothing is differentiated (any network, any guidance, no gradient on any parameter), and the
memory is that of sampling. States are float64, the network is asked in its own dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_core.calibration.comparing import distances
from fm_core.calibration.pilot import Pilot
from fm_core.calibration.table import Table, Tables, tables_at

__all__ = ["ends_of", "errors_of", "jacobian"]

HELD = 2**24
"""Numbers that the histories of all tables may hold at once."""


def ends_of(pilot: Pilot, tables: Tables, changed: Tensor | None = None) -> Tensor:
    """Where V tables take the pilot, `(V, B, E)`, float64.

    Args:
        pilot: Trajectories.
        tables: The tables.
        changed: The first row in which a table differs from the first one, `(V,)`, falling nowhere; 0 by default.
    """
    if pilot.apart and len(tables) > 1:
        return torch.cat([ends_of(pilot, tables[v : v + 1]) for v in range(len(tables))])
    changed = torch.zeros(len(tables), dtype=torch.long) if changed is None else changed
    steps = tables.weights.shape[1]
    parts = [_run(part, tables, changed) for _, part in pilot.parts(len(tables) * (steps + 1), HELD)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def errors_of(pilot: Pilot, tables: Tables) -> Tensor:
    """The root-mean-square error of every trajectory's end, `(V, B)`."""
    return distances(ends_of(pilot, tables), pilot.ends)


def _run(pilot: Pilot, tables: Tables, changed: Tensor) -> Tensor:
    many, steps = tables.weights.shape[:2]
    grids, weights = pilot.grids(tables.times), tables.weights.to(pilot.x0.device)
    field, start = pilot.field(), pilot.start(grids)
    y = start.expand(many, *start.shape).clone()
    history = start.new_zeros(many, steps, *start.shape)
    for s in range(steps):
        moved = max(1, int((changed < s).sum()))  # those that stand elsewhere than the first table by now
        active = max(1, int((changed <= s).sum()))
        history[:moved, s] = pilot.velocity(field, y[:moved], grids, s)
        if active > moved:
            history[moved:active, : s + 1] = history[:1, : s + 1]
            y[moved:active] = y[:1]
        step = torch.bmm(weights[:active, s : s + 1, : s + 1], history[:active, : s + 1].flatten(2))
        y[:active] += step.reshape(active, *start.shape)
    return grids.scale[:, -1, None, None] * y


def jacobian(pilot: Pilot, table: Table, small: float) -> tuple[Tensor, Tensor]:
    """The ends `(B, E)`, and their derivatives by the free numbers, `(N + N·(N+1)/2, B, E)`.

    Args:
        pilot: Trajectories.
        table: Where to differentiate.
        small: Difference in β, and in times in units of the shorter gap beside.
    """
    steps, base = table.steps, table.times
    rows, columns = torch.tril_indices(steps, steps)
    inner = torch.arange(steps - 1)
    count = steps - 1 + len(rows)
    shortest = torch.minimum(base.diff()[:-1], base.diff()[1:])
    times, shares = base.repeat(count, 1), table.shares.repeat(count, 1, 1)
    times[inner, inner + 1] += small * shortest
    shares[torch.arange(steps - 1, count), rows, columns] += small
    changed = torch.cat([inner, rows])  # time s is first felt where the step before it ends
    order = changed.argsort(stable=True)
    tables = tables_at(torch.cat([base[None], times[order]]), torch.cat([table.shares[None], shares[order]]))
    ends = ends_of(pilot, tables, torch.cat([changed.new_zeros(1), changed[order]]))
    slopes = torch.empty_like(ends[1:])
    slopes[order.to(ends.device)] = ends[1:] - ends[:1]
    slopes[: steps - 1] /= (small * shortest).to(slopes)[:, None, None]
    slopes[steps - 1 :] /= small
    by_gaps = torch.einsum("sg,sbe->gbe", _times_by_gaps(table).to(slopes), slopes[: steps - 1])
    return ends[0], torch.cat([by_gaps, slopes[steps - 1 :]])


def _times_by_gaps(table: Table) -> Tensor:
    """∂τ_s/∂g_i = (limit − τ_0)·π_i·(1[i < s] − Σ_{k<s} π_k) with π = softmax(g), `(N−1, N)`."""
    portion = table.gaps.softmax(0)
    before = torch.ones(table.steps, table.steps, dtype=torch.float64).tril()[:-1]
    return (table.limit - table.ends[0]) * portion * (before - portion.cumsum(0)[:-1, None])
