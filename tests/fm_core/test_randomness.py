"""Sample i depends on the seed and on i alone, and no global generator is read or written."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from fm_core.randomness import BLOCK, BlockGenerator, fresh_seed, make_generator, normal, spawn_seed

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def drawn(seed: int, start: int, stop: int, draws: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Successive draws of samples [start, stop)."""
    generator = BlockGenerator(seed, start, stop)
    return [normal((stop - start, 3), generator=generator, dtype=dtype) for _ in range(draws)]


WHOLE = drawn(5, 0, 4 * BLOCK)


@given(rows=st.tuples(st.integers(0, 4 * BLOCK), st.integers(0, 4 * BLOCK)).map(sorted).filter(lambda r: r[0] < r[1]))
@settings(max_examples=40)
def test_samples_do_not_depend_on_the_batch_or_the_chunk(rows: list[int]) -> None:
    """Any chunk of a run, drawn alone, is that chunk of the whole run, in the first draw and the next."""
    start, stop = rows
    for draw, whole in zip(drawn(5, start, stop), WHOLE, strict=True):
        assert draw.shape == (stop - start, 3)
        assert torch.equal(draw, whole[start:stop])


@pytest.mark.parametrize("batch", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_a_larger_batch_begins_with_the_smaller(batch: int) -> None:
    assert torch.equal(drawn(5, 0, batch)[1], WHOLE[1][:batch])


def test_samples_of_different_blocks_draws_and_seeds_differ() -> None:
    first, second = WHOLE
    assert not torch.equal(first, second)
    assert first.flatten().unique().numel() == first.numel()
    assert not torch.equal(drawn(6, 0, BLOCK)[0], first[:BLOCK])


def test_blocks_are_standard_normal_together() -> None:
    (x,) = drawn(0, 0, 200 * BLOCK, draws=1, dtype=torch.float64)
    assert x.mean(0).abs().max() < 0.04
    assert (x.T.cov() - torch.eye(3, dtype=torch.float64)).abs().max() < 0.05


def test_code_that_knows_no_blocks_may_draw_from_a_block_generator() -> None:
    generator = BlockGenerator(1, 70, 80)
    assert isinstance(generator, torch.Generator)
    a = torch.randn(4, generator=generator)
    assert torch.equal(a, torch.randn(4, generator=BlockGenerator(1, 70, 80)))
    assert not torch.equal(a, torch.randn(4, generator=BlockGenerator(2, 70, 80)))


def test_draws_of_any_sampler_are_made_by_whole_blocks() -> None:
    asked: list[int] = []

    def sampler(n: int, generator: torch.Generator) -> torch.Tensor:
        asked.append(n)
        return torch.rand(n, 2, generator=generator)

    assert BlockGenerator(0, BLOCK - 1, BLOCK + 2).draw(sampler).shape == (3, 2)
    assert asked == [BLOCK, BLOCK]


@given(seed=st.integers(0, 2**63 - 1), block=st.integers(0, 2**20))
@settings(max_examples=50)
def test_spawned_seeds_are_seeds_and_differ(seed: int, block: int) -> None:
    spawned = spawn_seed(seed, block)
    assert 0 <= spawned < 2**63
    assert spawned == spawn_seed(seed, block)
    assert len({spawned, spawn_seed(seed, block + 1), spawn_seed(seed + 1, block), spawn_seed(seed, block, 0)}) == 4


def test_generators_without_a_seed_differ() -> None:
    assert 0 <= fresh_seed() < 2**63
    assert make_generator().initial_seed() != make_generator().initial_seed()
    assert make_generator(3).initial_seed() == 3
    assert not torch.equal(normal((2, 2)), normal((2, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_noise_has_the_dtype_and_shape_asked_for(dtype: torch.dtype) -> None:
    for shape in ((1, 2), (5, 1, 4, 4)):
        for generator in (make_generator(0), BlockGenerator(0, 0, shape[0]), None):
            noise = normal(shape, generator=generator, dtype=dtype, device="cpu")
            assert (noise.shape, noise.dtype) == (shape, dtype)
