"""Path energy by hand, and NPE of fields whose energy and optimum are known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_core.errors import DataError, DivergenceError, ShapeError, TimeError
from fm_core.randomness import make_generator
from fm_plugins.metrics.path_energy import NormalizedPathEnergy, path_energy


def normal(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=make_generator(seed), dtype=dtype)


def test_the_quadrature_is_the_left_rectangle_rule_on_eulers_states():
    # v = t·x on the uneven grid 0, ½, 1 from x = 2: v is 0, then 1 at the unmoved state.
    times = torch.tensor([0.0, 0.5, 1.0])
    assert path_energy(lambda x, t: t[:, None] * x, torch.full((1, 1), 2.0), times) == 0.5 * 1.0
    # v = x doubles the state at ½ steps by 1.5: ½·2² + ½·3².
    assert path_energy(lambda x, t: x, torch.full((1, 1), 2.0), times) == 0.5 * 4 + 0.5 * 9
    uneven = torch.tensor([0.0, 0.25, 1.0])
    assert path_energy(lambda x, t: x, torch.full((1, 1), 2.0), uneven) == 0.25 * 4 + 0.75 * 2.5**2


def test_energy_is_summed_over_the_event_and_averaged_over_the_batch():
    x0 = torch.zeros(2, 1, 8, 8)
    speeds = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    assert math.isclose(path_energy(lambda x, t: speeds.expand_as(x), x0), 64 * (1 + 9) / 2, rel_tol=1e-6)


def test_energy_is_the_integral_in_the_limit_of_small_steps():
    # v = x: ‖v‖² = ‖x0‖²·e^{2t}, whose integral is ‖x0‖²·(e² − 1)/2.
    x0 = normal((50, 3), 0)
    expected = float(x0.square().sum(1).mean()) * (math.exp(2) - 1) / 2
    errors = [abs(path_energy(lambda x, t: x, x0, torch.linspace(0, 1, n + 1)) / expected - 1) for n in (100, 200)]
    assert errors[0] < 0.025
    assert math.isclose(errors[0] / errors[1], 2, rel_tol=0.05)


def test_the_field_sees_times_of_the_batch_in_the_states_dtype():
    seen = []

    def field(x, t):
        seen.append(t)
        return x

    path_energy(field, torch.zeros(3, 2), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
    assert [t.shape for t in seen] == [(3,), (3,)]
    assert seen[1].dtype == torch.float32
    assert torch.allclose(seen[1], torch.full((3,), 0.3))


def test_no_gradient_is_kept_and_the_source_is_not_written_to():
    weight = torch.ones(2, requires_grad=True)
    x0 = torch.ones(3, 2)
    path_energy(lambda x, t: weight * x, x0)
    assert weight.grad is None
    assert torch.equal(x0, torch.ones(3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 2), (40, 2), (12, 1, 8, 8)])
def test_npe_of_the_optimal_map_between_gaussians_is_zero(dtype, shape):
    # T(x) = 2x + 1 is optimal; its straight paths x_t = x0 + t·(T(x0) − x0) have the field (x + 1)/(1 + t).
    def field(x, t):
        return (x + 1) / (1 + t.view(-1, *[1] * (x.ndim - 1)))

    x0 = normal(shape, 0, dtype)
    npe = NormalizedPathEnergy()(field, x0, 2 * x0 + 1)
    assert npe < (1e-5 if dtype == torch.float32 else 1e-12)


def test_npe_of_a_half_turn_is_as_computed_by_hand():
    # One point carried from (1, 0) to (−1, 0) along the circle: PE = π², W2² = 4. Euler spirals out by (π/N)² a step.
    def turn(x, t):
        return math.pi * torch.stack([-x[:, 1], x[:, 0]], dim=1)

    x0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    steps = 400
    growth = [(1 + (math.pi / steps) ** 2) ** i for i in range(steps)]
    energy = math.pi**2 * sum(growth) / steps
    npe = NormalizedPathEnergy(steps=steps)
    assert math.isclose(npe(turn, x0, -x0), energy / 4 - 1, rel_tol=1e-9)
    assert math.isclose(npe(turn, x0, -x0), math.pi**2 / 4 - 1, rel_tol=0.03)


def test_npe_counts_energy_below_the_optimum_too():
    # Half the speed: a quarter of the energy that would be needed.
    x0 = normal((10, 2), 0)
    field = NormalizedPathEnergy()(lambda x, t: torch.full_like(x, 0.5), x0, x0 + 1)
    assert math.isclose(field, 0.75, rel_tol=1e-9)


def test_a_known_optimum_may_be_given():
    x0 = normal((10, 2), 0)
    assert math.isclose(NormalizedPathEnergy()(lambda x, t: torch.ones_like(x), x0, squared_w2=1.0), 1, rel_tol=1e-9)


def test_the_floor_of_npe_is_small_and_falls_with_n():
    def source(n, g):
        return torch.randn(n, 2, generator=g)

    def target(n, g):
        return torch.randn(n, 2, generator=g) + 4

    npe = NormalizedPathEnergy()
    coarse = npe.floor(source, target, 10, draws=40, generator=make_generator(0))
    fine = npe.floor(source, target, 250, draws=10, generator=make_generator(0))
    assert 0 < fine.mean < coarse.mean / 2
    assert (fine.n, fine.draws) == (250, 10)


@pytest.mark.parametrize(
    "times", [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0]), torch.zeros(2, 2)]
)
def test_times_that_are_no_grid_are_refused(times):
    with pytest.raises(TimeError, match="strictly increasing"):
        path_energy(lambda x, t: x, torch.zeros(1, 2), times)


def test_fields_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"\(3, 2\); the field returned \(3, 1\) at t = 0"):
        path_energy(lambda x, t: x[:, :1], torch.zeros(3, 2))


def test_energies_that_are_not_finite_are_refused():
    with pytest.raises(DivergenceError, match="nan"):
        path_energy(lambda x, t: x * float("nan"), torch.ones(3, 2))
    with pytest.raises(DivergenceError, match="inf"):
        path_energy(lambda x, t: x * 1e200, torch.ones(3, 2, dtype=torch.float64))


def test_an_empty_source_is_refused():
    with pytest.raises(DataError, match="got none"):
        path_energy(lambda x, t: x, torch.zeros(0, 2))


def test_npe_needs_exactly_one_optimum_and_a_positive_one():
    x0 = normal((4, 2), 0)
    npe = NormalizedPathEnergy()
    with pytest.raises(DataError, match="one of them"):
        npe(lambda x, t: x, x0)
    with pytest.raises(DataError, match="one of them"):
        npe(lambda x, t: x, x0, x0, squared_w2=1.0)
    for options in ({"x1": x0}, {"squared_w2": 0.0}):
        with pytest.raises(DataError, match="must be positive"):
            npe(lambda x, t: x, x0, **options)
