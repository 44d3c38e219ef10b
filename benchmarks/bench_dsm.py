"""Denoising score matching finds the score: a trained network beside the closed form, level by level.

    .venv/bin/pytest benchmarks/bench_dsm.py -s        (about two minutes)

Data: three Gaussians of std 0.3. The network predicts the data, and its score is (α·data − x)/σ². Aims: a relative
error of the score below 0.15 at every level, and annealed Langevin and the probability-flow ODE within three times the
floor of the data, and of each other.
"""

from __future__ import annotations

import torch
from pytest_benchmark.fixture import BenchmarkFixture

import fm_core as fm
from fm_core.floor import floor
from fm_core.randomness import make_generator
from fm_core.testing import GaussianMixture

DATA = GaussianMixture([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.5]], 0.3)
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""σ, in units of the data."""


def bench_score(benchmark: BenchmarkFixture, one_thread: None) -> None:
    """Trains once; the time is the training's, the figures are in `extra_info`."""

    def train() -> fm.Pipeline:
        net = fm.build("model", "edm_precond", net=fm.build("model", "mlp", shape=2, width=128, seed=0), path="ve")
        pipe = fm.recipe("dsm", model=fm.Model(net, predicts="data"), objective={"name": "dsm", "time": "stratified"})
        return pipe.fit(DATA, steps=6000, batch_size=512, lr=2e-3, lr_schedule="cosine", seed=0).pipeline

    pipe = benchmark.pedantic(train, rounds=1)
    field, figures = fm.Field(pipe.model, pipe.path), {}
    generator = make_generator(1)
    for sigma in LEVELS:
        t = float(pipe.path.t_of_log_snr(torch.tensor(sigma, dtype=torch.float64).log() * -2))
        x1 = DATA(4000, generator)
        x_t = (x1 + sigma * torch.randn(x1.shape, generator=generator)).float()
        with torch.no_grad():
            found = field.predict(x_t, t, None, "score")
        exact = DATA.predict(pipe.path, fm.Prediction.SCORE, x_t.double(), t)
        figures[f"σ = {sigma:g}"] = round(float((found - exact).norm() / exact.norm()), 4)
    distance = fm.build("metric", "energy_distance")
    least = floor(distance, DATA, 2000, draws=10, generator=make_generator(2)).mean
    real = DATA(2000, generator)
    runs = {
        "annealed Langevin": (pipe.replace(solver={"name": "annealed_langevin", "step_size": 0.5}), {"steps": 100}),
        "flow (heun)": (pipe.replace(solver="heun", grid={"name": "karras"}), {"steps": 50}),
    }
    ends = {name: run.sample((2000, 2), seed=3, **budget).x for name, (run, budget) in runs.items()}
    for name, x in ends.items():
        figures[f"energy distance, {name}"] = round(distance(x, real), 5)
    figures["energy distance, one from the other"] = round(distance(*ends.values()), 5)
    figures["floor"] = round(least, 5)
    benchmark.extra_info.update(figures)
    print(f"\n{figures}")
