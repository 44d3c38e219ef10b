"""Path energy, and its NPE, of the exact fields of [SF]²M's Table 2: what a network without error would have.

    .venv/bin/python benchmarks/exact_path_energy.py

With `x_t = t·x1 + b_t·x0 + σ·ε`, data from a mixture of N(c_i, s²) and the source from one of N(d_j, r²), a pair of
components gives a Gaussian x_t of variance `v = t²s² + b²r² + σ²` about `µ_ij = t·c_i + b·d_j`, and

    E[x1 + b'·x0 | x_t, i, j] = c_i + b'·d_j + (t·s² + b·b'·r²)/v · (x_t − µ_ij).

The exact field u is its mean under the posterior of the pairs. Its flow has the law of x_t, so its path energy is
`E ∫‖u_t(x_t)‖² dt` with x_t drawn from the path itself: no flow is solved and nothing is trained. Points of data stand
for themselves (s = 0). W2²(q0, q1) is that between the draws, as in `fm bench methods --paper sf2m`.

The rows that train with minibatch pairs or twice have no such field.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from attrs import frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from fm_core import registry
from fm_core.bench.papers import SF2M, Task
from fm_core.randomness import make_generator

SIGMA = 0.1
AT_ONCE = 2**22


@frozen(eq=False)
class Law:
    """A mixture with one standard deviation, and draws of it."""

    centres: Tensor
    std: float
    draws: Tensor


def law_of(config: dict[str, object] | None, n: int, seed: int) -> Law:
    """What a task's data or source is."""
    generator = make_generator(seed)
    if config is None:
        return Law(torch.zeros(1, 2), 1.0, torch.randn(n, 2, generator=generator))
    dataset = registry.from_config("dataset", config)
    draws = dataset(n, generator=generator)
    if hasattr(dataset, "centers"):
        return Law(dataset.centers, dataset.std, draws)
    return Law(draws, 0.0, draws)


def energy(x0: Law, x1: Law, *, fm: bool, times: int, generator: torch.Generator) -> tuple[float, float]:
    """E ∫‖u‖² dt by midpoints in time with fresh draws at each, and its standard error."""
    rate = SIGMA - 1 if fm else -1.0
    noise = 0.0 if fm else SIGMA
    means, errors = [], []
    for k in range(times):
        t = (k + 0.5) / times
        b = 1 + rate * t
        x = t * _some(x1, times, generator) + b * _some(x0, times, generator)
        x = x + noise * torch.randn(x.shape, generator=generator)
        squares = field(x, x0, x1, t, b, rate, noise).square().sum(1)
        means.append(squares.mean())
        errors.append(squares.var() / len(squares))
    return float(torch.stack(means).mean()), float(torch.stack(errors).sum().sqrt()) / times


def _some(law: Law, times: int, generator: torch.Generator) -> Tensor:
    count = len(law.draws) // times
    return law.draws[torch.randperm(len(law.draws), generator=generator)[:count]]


def field(x: Tensor, x0: Law, x1: Law, t: float, b: float, rate: float, noise: float) -> Tensor:
    """u_t(x), shape `(N, 2)`."""
    variance = (t * x1.std) ** 2 + (b * x0.std) ** 2 + noise**2
    slope = (t * x1.std**2 + b * rate * x0.std**2) / variance
    pairs = torch.cartesian_prod(torch.arange(len(x1.centres)), torch.arange(len(x0.centres)))
    c, d = x1.centres[pairs[:, 0]], x0.centres[pairs[:, 1]]
    mean, move = t * c + b * d, c + rate * d
    found = []
    for some in x.split(max(1, AT_ONCE // len(mean))):
        posterior = (torch.cdist(some, mean).square() / (-2 * variance)).softmax(1)
        found.append(posterior @ (move - slope * mean) + slope * some)
    return torch.cat(found)


def row(name: str, task: Task, n: int, times: int) -> list[list[str]]:
    """The lines of a column of the paper's table."""
    x0, x1 = law_of(task.source, n, 1), law_of(task.data, n, 2)
    wasserstein = registry.build("metric", "wasserstein2")
    optimum = float(wasserstein(x0.draws, x1.draws)) ** 2
    lines = []
    for method in ("I-CFM", "FM"):
        published = SF2M.published[method].get(name)
        if published is not None:
            found, error = energy(x0, x1, fm=method == "FM", times=times, generator=make_generator(3))
            npe = f"{found / optimum - 1:.3f} ± {error / optimum:.3f}"
            lines.append([name, method, f"{found:.3f}", f"{optimum:.3f}", npe, f"{published.npe:.3f}"])
    return lines


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="draws of each law")
    parser.add_argument("--times", type=int, default=50, help="midpoints in time")
    parser.add_argument("--out", type=Path, help="a file for the table in Markdown")
    asked = parser.parse_args()
    head = ["task", "field of", "path energy", "W2²", "NPE", "NPE, published"]
    lines = [line for name, task in track(SF2M.tasks.items()) for line in row(name, task, asked.n, asked.times)]
    table = Table(*head)
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    if asked.out:
        rows = [head, ["---"] * len(head), *lines]
        asked.out.write_text("\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n")


if __name__ == "__main__":
    main()
