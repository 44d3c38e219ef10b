"""How benchmarks compare: all contestants in turn, round after round, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

Interleaved = Callable[..., dict[str, float]]

# A script, which runs for minutes and has options of its own, is no benchmark of pytest, whatever it is called.
collect_ignore = [
    path.name
    for path in Path(__file__).parent.glob("bench_*.py")
    if '__name__ == "__main__"' in path.read_text("utf-8")
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: takes seconds; `fm bench micro --quick` runs these alone")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, as the ratios of small networks are quoted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def interleaved() -> Interleaved:
    """`interleaved(contestants, base, rounds)`: for each the median over rounds of its time over the base's.

    With `clock=time.thread_time` the time is the processor's, for what runs on one thread: other processes then count
    only by what they push out of the caches.
    """

    def ratios(
        contestants: Mapping[str, Callable[[], object]],
        base: str,
        rounds: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(rounds + 2):
            for name, run in contestants.items():
                began = clock()
                run()
                if turn >= 2:  # the first two warm caches and allocators
                    times[name].append(clock() - began)
        return {
            name: round(statistics.median(a / b for a, b in zip(own, times[base])), 3) for name, own in times.items()
        }

    return ratios
