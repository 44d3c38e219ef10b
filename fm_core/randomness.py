"""Randomness without global state: explicit generators, and one generator per fixed block of samples.

Sample `i` of a run with seed `s` draws everything (source and step noise) from the generator of its block `⌊i / 64⌋`,
which is seeded by `(s, block)` alone and always draws for the whole block. So sample `i` does not depend on how many
others are drawn beside it, nor on the chunks in which they are drawn.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from fm_core.errors import ArgumentError

__all__ = ["BLOCK", "BlockGenerator", "check_seed", "fresh_seed", "make_generator", "normal", "spawn_seed"]

BLOCK = 64
"""Samples that share one generator."""


def fresh_seed() -> int:
    """A seed from the operating system's entropy, shape-free, in `[0, 2^63)`."""
    return secrets.randbits(63)


def check_seed(seed: object) -> int:
    """The seed, a non-negative integer of any library.

    Raises:
        ArgumentError: For anything else, which would seed another stream than the number that it looks like.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ArgumentError(f"a seed is a whole number ≥ 0; got {seed!r}, of type {type(seed).__name__}")
    return int(seed)


def spawn_seed(seed: int, *key: int) -> int:
    """A seed for the stream `key` of `seed`; streams of different keys are independent.

    Args:
        seed: Any non-negative integer.
        key: Non-negative integers that name the stream, for example a block's index.

    References:
        Saarinen & Aumasson 2015, BLAKE2. https://www.rfc-editor.org/rfc/rfc7693
    """
    digest = hashlib.blake2b(repr((check_seed(seed), *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_generator(seed: int | None = None, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded with `seed`, or with fresh entropy for None; torch's global generator is neither read nor
    written.
    """
    return torch.Generator(device=device).manual_seed(fresh_seed() if seed is None else check_seed(seed))


class BlockGenerator(torch.Generator):
    """The generators of samples `[start, stop)` of a seeded run, one per block of 64.

    It is itself a `torch.Generator` (of another stream than its blocks), so code that knows nothing of blocks may draw
    from it; `draw` is the way to draws that do not depend on the batch.

    Args:
        seed: Seed of the run.
        start: Index of the first sample.
        stop: Index after the last sample.
        device: Where the numbers are drawn.
    """

    def __new__(cls, seed: int, start: int, stop: int, device: torch.device | str = "cpu") -> BlockGenerator:
        return super().__new__(cls, device=device)  # type: ignore[call-arg]  # the stub lacks it

    def __init__(self, seed: int, start: int, stop: int, device: torch.device | str = "cpu") -> None:
        first, last = start // BLOCK, -(-stop // BLOCK)
        seeds = [spawn_seed(seed, block) for block in range(first, last)]
        # A stream of its own: code that draws from it directly must not repeat the numbers of its first block.
        self.manual_seed(spawn_seed(seed, first, 1))
        self.blocks = [torch.Generator(device=device).manual_seed(s) for s in seeds]
        self._rows = slice(start - first * BLOCK, stop - first * BLOCK)

    def draw(self, sampler: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """Draws whole blocks by `sampler(64, generator)` and returns this run's rows, shape `(stop − start, *D)`."""
        drawn = [sampler(BLOCK, generator) for generator in self.blocks]
        return (drawn[0] if len(drawn) == 1 else torch.cat(drawn))[self._rows]


def normal(
    shape: Sequence[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal noise of shape `(B, *D)`, by blocks if the generator is a `BlockGenerator`.

    The numbers are drawn on the generator's device and moved to `device`; without a generator fresh entropy is used.
    """
    if generator is None:
        generator = make_generator(device=device or "cpu")

    def sampler(n: int, g: torch.Generator) -> Tensor:
        return torch.randn((n, *shape[1:]), generator=g, dtype=dtype, device=g.device)

    noise = generator.draw(sampler) if isinstance(generator, BlockGenerator) else sampler(shape[0], generator)
    return noise if device is None else noise.to(device)
