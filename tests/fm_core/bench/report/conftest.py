"""Results such as the suites write, made up: known errors, orders, costs, statuses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from attrs import frozen

from fm_core.bench.records import Record, Run

NFES = (5, 8, 10, 15, 20, 30, 50)


@frozen
class Made:
    """A made-up solver: error C·NFE^−order·e^noise, NFE·(network + overhead) seconds."""

    name: str
    order: float
    constant: float
    overhead: float = 0.1
    group: str = "ours"


SOLVERS = (
    Made("euler", 1, 0.9, 0.02),
    Made("heun", 2, 3.0, 0.04),
    Made("rk4", 4, 120.0, 0.03),
    Made("ddim", 1, 0.7, 0.05),
    Made("dpm_solver_pp · log_snr", 2, 1.2, 0.08),
    Made("adams_pc-4 · power 1.25", 3.2, 2.05, 0.08),
    Made("auto", 3.2, 2.0, 0.08),
    Made("calibrated", 2.2, 0.12, 0.12),
    Made("diffusers Euler", 1, 0.9, 0.34, "diffusers"),
    Made("diffusers DPM++2M", 2, 1.9, 3.2, "diffusers"),
    Made("diffusers UniPC-3", 2.9, 1.1, 8.4, "diffusers"),
)
PROBLEMS = {"gaussian, 2-D": 0.3, "8 gaussians, 2-D": 1.0, "64 modes, 32-D": 1.4, "digits, class-conditional": 3.0}


def solver_records(
    solvers: Sequence[Made] = SOLVERS,
    problems: dict[str, float] = PROBLEMS,
    *,
    seeds: int = 5,
    nfes: Sequence[int] = NFES,
    run: str = "1f0c",
) -> Iterator[Record]:
    for problem, hardness in problems.items():
        network = 2e-4 * hardness
        for seed in range(seeds):
            for solver in solvers:
                for nfe in nfes:
                    noise = random.Random(f"{problem}{seed}{solver.name}{nfe}").gauss(0, 0.05)
                    error = hardness * solver.constant * nfe**-solver.order * 2.718281828**noise + 2e-6 * hardness
                    yield Record(
                        "solvers",
                        problem,
                        solver.name,
                        {"nfe": nfe},
                        seed,
                        solver.group,
                        figures={
                            "nfe": nfe,
                            "error_median": error,
                            "error_rms": 1.3 * error,
                            "sample_s": nfe * network * (1 + solver.overhead) * 2.718281828 ** (noise / 2),
                            "distance": 0.08 + error / 3,
                            "floor": 0.08,
                            "reference_error": 1e-9,
                        },
                        notes={"order": solver.order},
                        run=run,
                    )


def other_records(run: str = "1f0c") -> Iterator[Record]:
    """Of the other suites, and rows with every status."""
    budget = {"steps": 20000, "batch_size": 512}
    methods = {"OT-CFM": (0.3, 0.03), "I-CFM": (0.37, 0.2), "FM": (0.34, 0.19), "RF": (0.42, 0.04)}
    for task, floor in (("N→8gaussians", 0.25), ("N→moons", 0.1)):
        for seed in range(5):
            yield Record("methods", task, "floor", budget, seed, figures={"w2": floor + 0.01 * seed}, run=run)
            for name, (w2, npe) in methods.items():
                noise = random.Random(f"{task}{seed}{name}").gauss(1, 0.05)
                figures = {"w2": w2 * noise, "npe": npe * noise, "straightness": 0.1 * noise, "train_s": 60 * noise}
                published = {"published": {"w2": 0.303, "w2_std": 0.043, "npe": 0.031}} if name == "OT-CFM" else {}
                yield Record("methods", task, name, budget, seed, figures=figures, notes=published, run=run)
    for seed in range(2):
        for name, cost in (("heun", 1.1), ("diffusers Heun", 1.3)):
            for batch in (1, 16, 256, 4096):
                speed = {"samples_per_s": 5000 * batch**0.7 / cost * (1 + 0.01 * seed), "memory_mb": 200 + batch / 10}
                group = "diffusers" if "diffusers" in name else "ours"
                yield Record("throughput", "mlp, 2-D", name, {"batch": batch}, seed, group, figures=speed, run=run)
    yield Record("micro", "bench_plan", "bench_combine[256]", {}, 0, figures={"mean_s": 3.1e-6}, run=run)
    bad: dict[str, Any] = {
        "problem": "8 gaussians, 2-D",
        "settings": {"nfe": 5},
        "seed": 0,
        "suite": "solvers",
        "run": run,
    }
    yield Record(contender="dopri5", status="failed", why="ValueError: <b>no</b> budget", **bad)
    yield Record(contender="ddpm", status="diverged", why="not finite at t = 0.93", figures={"nfe": 5}, **bad)
    yield Record(contender="azula Heun", group="azula", status="skipped", why="azula is not installed", **bad)


RUN = Run(
    "1f0c",
    "fm bench solvers --out out/bench",
    "2026-11-22T10:00:00+00:00",
    {"processor": "Xeon", "cores": 2, "threads": 1, "memory_gb": 7.8, "gpu": None, "system": "Linux x86_64"},
    {"python": "3.12.3", "torch": "2.13.0", "diffusers": "0.42.1"},
    {"commit": "0123456789abcdef", "dirty": False},
)


@frozen
class Results:
    """What tests make results of."""

    run: Run
    solver: Callable[..., Iterator[Record]]
    other: Callable[..., Iterator[Record]]
    made: Callable[..., Any]
    solvers: Sequence[Made]


@pytest.fixture(scope="session")
def synthetic() -> Results:
    return Results(RUN, solver_records, other_records, Made, SOLVERS)
