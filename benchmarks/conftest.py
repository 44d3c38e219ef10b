"""How benchmarks compare: all contestants in turn, round after round, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

Interleaved = Callable[..., dict[str, float]]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, as the ratios of small networks are quoted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def interleaved() -> Interleaved:
    """`interleaved(contestants, base, rounds)`: for each the median over rounds of its time over the base's."""

    def ratios(contestants: Mapping[str, Callable[[], object]], base: str, rounds: int) -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(rounds + 2):
            for name, run in contestants.items():
                began = time.perf_counter()
                run()
                if turn >= 2:  # the first two warm caches and allocators
                    times[name].append(time.perf_counter() - began)
        return {
            name: round(statistics.median(a / b for a, b in zip(own, times[base])), 3) for name, own in times.items()
        }

    return ratios
