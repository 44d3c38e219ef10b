"""What a time affords, on a clock that only what is timed moves on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fm_core.bench import affording
from fm_core.bench.affording import Afforded, affordable
from fm_core.bench.contenders import Contender, contenders
from fm_core.errors import BudgetError

EULER, HEUN = contenders(["euler", "heun"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(affording.time, "perf_counter", lambda: now[0])
    return now


def afforded(clock: list[float], cost: Callable[[int], float], seconds: float, least: int = 1) -> Afforded | None:
    """What costs so much for n calls may spend."""

    def run(one: Contender, n: int) -> Callable[[], None]:
        def go() -> None:
            if n < least:
                raise BudgetError("a step costs more")
            clock[0] += cost(n)

        return go

    return affordable([EULER], run, seconds, 1280).get(EULER)


@pytest.mark.parametrize(
    "cost",
    [lambda n: 1e-3 * n, lambda n: 0.02 + 1e-3 * n, lambda n: 2e-4 * n**1.4, lambda n: 1e-2 * n**0.5],
    ids=["even", "dear to begin", "ever dearer", "ever cheaper"],
)
@pytest.mark.parametrize("seconds", [0.0031, 0.0211, 0.0501, 0.3001])
def test_what_is_given_fits_and_nearly_fills_the_time(
    clock: list[float], cost: Callable[[int], float], seconds: float
) -> None:
    """By the line through 5 and 25 calls alone, "ever dearer" got calls for no time: its intercept is negative."""
    found = afforded(clock, cost, seconds)
    right = max((n for n in range(1, 1281) if cost(n) <= seconds), default=0)
    if right == 0:
        assert found is None
        return
    assert found is not None
    assert found.seconds == pytest.approx(cost(found.calls))
    assert found.seconds <= seconds
    assert found.calls == right or found.seconds >= 0.85 * seconds


def test_no_more_calls_are_given_than_can_be_judged(clock: list[float]) -> None:
    found = afforded(clock, lambda n: 1e-6 * n, 1.0)
    assert found == Afforded(1280, pytest.approx(1.28e-3))


def test_what_no_step_fits_into_has_nothing(clock: list[float]) -> None:
    assert afforded(clock, lambda n: 1e-3 * n, 0.0035, least=4) is None
    assert afforded(clock, lambda n: 1e-3 * n, 0.0045, least=4) == Afforded(4, pytest.approx(4e-3))


def test_each_gets_its_own_number(clock: list[float]) -> None:
    def run(one: Contender, n: int) -> Callable[[], None]:
        def go() -> None:
            clock[0] += 1e-3 * n * (2 if one is HEUN else 1)

        return go

    found = affordable([EULER, HEUN], run, 0.0401, 1280)
    assert {one.name: own.calls for one, own in found.items()} == {"euler": 40, "heun": 20}
