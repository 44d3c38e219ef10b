"""What optimal-transport pairing buys: path energy and 2-Wasserstein of OT-CFM beside I-CFM on N → 8 gaussians.

    .venv/bin/pytest benchmarks/bench_methods.py -s        (about a minute)

Data: eight Gaussians of radius 5 and mode std √.1. 4,000 steps of batch 256, 3 × 64 SELU, 100 Euler steps. Aims: NPE of
OT-CFM below 0.08 where I-CFM stays above 0.15, both W2 within 1.4 of the same-n floor (means over 5 draws, n = 1000).
"""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import fm_core as fm
from fm_core.floor import floor
from fm_core.randomness import make_generator

STEPS, BATCH, EULER, N, DRAWS = 4000, 256, 100, 1000, 5


@pytest.mark.parametrize("method", ["cfm", "ot_cfm"])
def bench_eight_gaussians(benchmark: BenchmarkFixture, one_thread: None, method: str) -> None:
    """Trains once; the time is the training's, the figures are in `extra_info`."""
    data = fm.build("dataset", "eight_gaussians", std=0.1**0.5)
    w2, npe = fm.build("metric", "wasserstein2"), fm.build("metric", "normalized_path_energy", steps=EULER)

    def train() -> fm.Pipeline:
        pipe = fm.recipe(method, model=fm.build("model", "mlp", shape=2, seed=0), solver="euler")
        return pipe.fit(data, steps=STEPS, batch_size=BATCH, seed=0).pipeline

    pipe = benchmark.pedantic(train, rounds=1)
    distances, energies = [], []
    # W2² between the laws, from ten times as many points as a draw: the truth, not one draw of it.
    generator = make_generator(1)
    optimum = w2(torch.randn(10 * N, 2, generator=generator), data(10 * N, generator)) ** 2
    with torch.no_grad():
        for draw in range(DRAWS):
            generator = make_generator(100 + draw)
            x0 = torch.randn(N, 2, generator=generator)
            distances.append(w2(pipe.sample(x0=x0, steps=EULER).x, data(N, generator)))
            energies.append(npe(lambda x, t: pipe.model(x, t), x0, squared_w2=optimum))
    least = floor(w2, data, N, draws=20, generator=make_generator(2)).mean
    figures = {
        "NPE": round(fmean(energies), 4),
        "W2": round(fmean(distances), 4),
        "floor": round(least, 4),
        "W2 / floor": round(fmean(distances) / least, 3),
        "nfe": EULER,
    }
    benchmark.extra_info.update(figures)
    print(f"\n{method}: {figures}")
