"""What every toy data set promises: any n, float32, finite, its own generator and no other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_core.randomness import make_generator
from fm_plugins.metrics.energy_distance import EnergyDistance
from fm_plugins.toy_data import fm_components
from fm_plugins.toy_data.checkerboard import Checkerboard
from fm_plugins.toy_data.eight_gaussians import EightGaussians
from fm_plugins.toy_data.gaussian import Gaussian
from fm_plugins.toy_data.moons import Moons
from fm_plugins.toy_data.moons_to_gaussians import standardised_moons, wide_eight_gaussians
from fm_plugins.toy_data.pinwheel import Pinwheel
from fm_plugins.toy_data.rings import Rings
from fm_plugins.toy_data.scurve import SCurve

DATASETS = {
    "checkerboard": Checkerboard(),
    "eight_gaussians": EightGaussians(),
    "gaussian": Gaussian(),
    "moons": Moons(),
    "pinwheel": Pinwheel(),
    "rings": Rings(),
    "scurve": SCurve(),
    "standardised_moons": standardised_moons(),
    "wide_eight_gaussians": wide_eight_gaussians(),
}

each = pytest.mark.parametrize("data", [*DATASETS.values(), Moons(stratified=True)], ids=[*DATASETS, "stratified"])


@each
@pytest.mark.parametrize("n", [0, 1, 2, 7, 256])
@pytest.mark.usefixtures("global_rng_untouched")
def test_any_number_of_samples_is_float32_and_finite(data, n):
    x = data(n, make_generator(3))
    assert x.shape == (n, 2)
    assert x.dtype == torch.float32
    assert x.isfinite().all()


@each
def test_default_dtype_does_not_change_the_samples(data):
    expected = data(50, make_generator(1))
    torch.set_default_dtype(torch.float64)
    try:
        x = data(50, make_generator(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert x.dtype == torch.float32
    assert torch.equal(x, expected)


@each
def test_equal_seeds_give_equal_samples_whatever_the_global_seeds_are(data):
    first = data(50, make_generator(1))
    with torch.random.fork_rng():
        state = np.random.get_state()  # noqa: NPY002 - the global generator is what is tested
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002
        second = data(50, make_generator(1))
        np.random.set_state(state)  # noqa: NPY002
    assert torch.equal(first, second)
    assert not torch.equal(first, data(50, make_generator(2)))


@each
@pytest.mark.usefixtures("global_rng_untouched")
def test_no_generator_means_fresh_entropy(data):
    assert not torch.equal(data(8), data(8))


@each
def test_a_generator_advances(data):
    g = make_generator(0)
    assert not torch.equal(data(8, g), data(8, g))


@pytest.mark.parametrize("data", DATASETS.values(), ids=DATASETS)
def test_many_draws_of_one_have_the_law_of_one_draw_of_many(data):
    # The grid of make_moons fails this: a draw of one is always the same point.
    g = make_generator(5)
    singly = torch.cat([data(1, g) for _ in range(1500)])
    together, other = data(1500, g), data(1500, g)
    energy = EnergyDistance()
    scale = float(together.std())
    assert energy(singly, together) < 6e-3 * scale
    assert energy(together, other) < 6e-3 * scale


def test_a_data_set_is_a_frozen_value():
    assert Moons(noise=0.1) == Moons(noise=0.1)
    assert len({Rings(), Rings(), Rings(noise=0.0)}) == 2
    with pytest.raises(AttributeError):
        Moons().noise = 0.1


@pytest.mark.parametrize(
    ("cls", "options"),
    [(Moons, {"noise": -1}), (EightGaussians, {"std": -0.1}), (Checkerboard, {"scale": 0}), (Rings, {"rings": 0})],
)
def test_impossible_parameters_are_refused(cls, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cls(**options)


def test_the_plugin_lists_exactly_these_data_sets():
    listed = fm_components()
    assert {component.name for component in listed} == set(DATASETS)
    assert {component.kind for component in listed} == {"dataset"}
    assert all(component.summary and component.reference for component in listed)
