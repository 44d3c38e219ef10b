"""The solver is of the order it declares."""

from __future__ import annotations

import math
from itertools import pairwise

import fm_core as fm
import torch
from torch import Tensor

from my_plugin.solver import ralston

PATH = fm.build("path", "linear")


def end(velocity: fm.Model, steps: int, x: Tensor) -> Tensor:
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return ralston().solve(fm.Field(velocity, PATH), x, times)


def test_it_is_exact_on_velocities_that_are_linear_in_time() -> None:
    velocity = fm.Model(lambda x, t: (3 - 4 * t)[:, None].expand_as(x), predicts="velocity")
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(end(velocity, 1, x), x + 1)


def test_halving_the_steps_quarters_the_error() -> None:
    velocity = fm.Model(lambda x, t: -2 * x + t[:, None].cos(), predicts="velocity")
    x = torch.ones(1, 1, dtype=torch.float64)
    # x' = −2x + cos t has the solution c·e^{−2t} + (2·cos t + sin t)/5, with c = 3/5 for x(0) = 1.
    exact = 3 / 5 * math.exp(-2) + (2 * math.cos(1) + math.sin(1)) / 5
    errors = [abs(float(end(velocity, steps, x)) - exact) for steps in (64, 128, 256)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(abs(order - 2) < 0.05 for order in orders), orders


def test_it_spends_what_it_declares() -> None:
    velocity = fm.Model(lambda x, t: x, predicts="velocity")
    pipe = fm.compose(path=PATH, model=velocity, solver=ralston())
    assert pipe.sample((4, 2), steps=5, seed=0).nfe == 5 * ralston().evals_per_step
