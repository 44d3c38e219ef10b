"""What the kit measures stochastic solvers with: the law by impulses, grids that settle, and the power of an error."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fm_core import Prediction, build
from fm_core.law import state_laws
from fm_core.randomness import normal
from fm_core.testing.fields import FROM, GAUSSIAN, PATHS, TO, power_of, settled
from fm_core.testing.kit import Skipped
from fm_core.testing.laws import _answers
from fm_core.testing.mutants.plans import Loop


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["euler_maruyama", "sde_dpm_solver_pp", "stochastic_heun", "ddpm"])
def test_the_law_by_impulses_is_the_tables(name: str, path: str) -> None:
    solver, on, times = build("solver", name), PATHS[path], settled(12)
    mean, variance = GAUSSIAN.means[0], GAUSSIAN.stds[0].square()
    first, *_, (_, m, v) = state_laws(solver.plan(on, times), on, mean, variance)
    middle, gains = _answers(solver, on, first[1], first[2].sqrt(), times)
    torch.testing.assert_close(middle, m, rtol=0, atol=1e-10)
    torch.testing.assert_close(gains.square().sum(0), v, rtol=1e-9, atol=0)


def test_a_solver_that_is_not_affine_is_not_given_a_law() -> None:
    def step(field: Any, x: torch.Tensor, t: float, s: float, generator: torch.Generator) -> torch.Tensor:
        z = normal(x.shape, generator=generator, dtype=x.dtype)
        return x + (s - t) * field.predict(x, t, None, Prediction.VELOCITY) ** 2 + (s - t) ** 0.5 * z  # type: ignore[no-any-return]

    curved = Loop(step, stochastic=True)
    alpha, sigma = (f(torch.tensor(FROM, dtype=torch.float64)) for f in (PATHS["linear"].alpha, PATHS["linear"].sigma))
    with pytest.raises(Skipped, match="not affine"):
        _answers(curved, PATHS["linear"], alpha * GAUSSIAN.means[0], sigma, settled(4))


@pytest.mark.parametrize("steps", [24, 96])
def test_settled_grids_begin_and_end_in_small_steps(steps: int) -> None:
    times = settled(steps)
    gaps = times.diff()
    assert (float(times[0]), float(times[-1])) == (FROM, TO)
    assert bool((gaps > 0).all())
    torch.testing.assert_close(gaps, gaps.flip(0))
    assert float(gaps[0]) < 10 / steps**3 * (TO - FROM)
    assert float(gaps.max()) < 1.9 / steps * (TO - FROM)


def test_the_power_of_an_error() -> None:
    assert power_of(lambda n: 3.0 / n**2, (16, 64), 2.0) == pytest.approx(2.0)
    asked: list[int] = []
    assert power_of(lambda n: asked.append(n) or 1.0 / n, (8, 16, 32), 0.9) == pytest.approx(1.0)  # type: ignore[func-returns-value]
    assert asked == [8, 16], "sizes that are not needed are not run"
    assert power_of(lambda n: 1 / n + 20 / n**3, (4, 8, 16), 3.0) == pytest.approx(math.log2(0.5625 / 0.1640625))
    assert power_of(lambda n: 1e-12, (8, 16), 4.0) == math.inf
    assert power_of(lambda n: math.nan, (8, 16), 1.0) == -math.inf
